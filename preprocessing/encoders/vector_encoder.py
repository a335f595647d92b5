"""The encoder of vectors: numbers of one scale, in the type that examples hold.

Shapes: n rows, D numbers of a vector.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.encoders.columns import shortest
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.features.encoder_specs import Vector
from preprocessing.features.feature import Feature
from preprocessing.values import vectors

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


class VectorEncoder(FittedEncoder):
    """Encodes to x / norm, rounded to the type that examples hold; zeros where x is missing.

    Args:
        feature: The feature to encode; its encoder is `encoder_specs.Vector`.
        norm: Root mean square norm of the training vectors, positive.
    """

    def __init__(self, feature: Feature, norm: float) -> None:
        super().__init__(feature)
        assert isinstance(feature.encoder, Vector)
        self.norm = norm
        self.storage = np.dtype(feature.encoder.storage)

    def numbers(self) -> dict[str, Any]:
        """See `FittedEncoder.numbers`."""
        return {"norm": self.norm}

    def encode(self, values: Any) -> np.ndarray:
        """Encodes vectors.

        Args:
            values: [n] column as `vectors.pack` makes it, or [n, D] numbers, of which a vector
                with a number that is not finite is missing.

        Returns:
            [n, D] numbers of the type that the storage names.

        Example:
            >>> from preprocessing.features.feature import DType, Role
            >>> text = Feature(name="text", column="text", role=Role.ITEM, dtype=DType.FLOAT32,
            ...                shape=(2,), encoder=Vector(storage="float16"))
            >>> VectorEncoder(text, norm=5.0).encode(np.array([[3.0, 4.0], [np.nan, 1.0]]))
            array([[0.6, 0.8],
                   [0. , 0. ]], dtype=float16)
        """
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            return self._encode(values)
        numbers_nD = np.asarray(values, np.float32)
        is_missing_n = ~np.isfinite(numbers_nD).all(axis=1, keepdims=True)
        return self._scaled(np.where(is_missing_n, np.float32(0.0), numbers_nD))

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Raw vectors that encode to the given ones, of few digits: float32 [..., D]."""
        scaled = np.ravel(encoded).astype(self.storage)
        raw = (scaled.astype(np.float64) * self.norm).astype(np.float32)
        return shortest(raw, scaled, self._scaled).reshape(np.shape(encoded))

    def _encode(self, column: pa.Array) -> np.ndarray:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        return self._scaled(vectors.unpack(column))

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        scaled = (numbers.astype(np.float64) / self.norm).astype(np.float32)
        if self.storage == np.float16:
            scaled = np.clip(scaled, -LARGEST_FLOAT16, LARGEST_FLOAT16)
        return scaled.astype(self.storage)
