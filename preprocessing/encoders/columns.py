"""Columns of raw values: Arrow types, texts, numbers, padding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.features.feature import DType, Feature

_FLOAT32_DIGITS = 7  # more digits do not survive in float32
ARROW_TYPES = {
    DType.STRING: pa.large_string(),
    DType.INT64: pa.int64(),
    DType.FLOAT32: pa.float32(),
}


def texts(column: pa.Array) -> pa.Array:
    """Values as large_string: integers as decimal text."""
    return column.cast(pa.large_string())


def is_pad(feature: Feature, column: pa.Array) -> np.ndarray:
    """True where a value is missing or stands for padding."""
    pads = pc.equal(column, pa.scalar(feature.pad_value, column.type))
    return pads.fill_null(True).to_numpy(zero_copy_only=False)


def floats(column: pa.Array) -> np.ndarray:
    """The numbers as float64, NaN where missing."""
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def signed_log(numbers: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def shortest(
    raw: np.ndarray, scaled: np.ndarray, encode: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The numbers of fewest digits that encode to the same: 3.04 instead of 3.0399997.

    Args:
        raw: float32 [n], numbers that encode to `scaled` or close to it.
        scaled: [n], encoded numbers.
        encode: Function that encodes numbers [n].
    """
    sizes = np.abs(raw.astype(np.float64))
    exponents = np.floor(np.log10(sizes, where=sizes > 0, out=np.zeros(len(raw))))
    for digits in range(_FLOAT32_DIGITS, 0, -1):
        units = 10.0 ** (digits - 1 - exponents)
        rounded = (np.rint(raw * units) / units).astype(np.float32)
        raw = np.where(encode(rounded) == scaled, rounded, raw)
    zero = np.zeros(len(raw), np.float32)
    return np.where(encode(zero) == scaled, zero, raw)


def numpy_type(feature: Feature) -> Any:
    """NumPy type of the raw values of a feature."""
    return {DType.STRING: object, DType.INT64: np.int64, DType.FLOAT32: np.float32}[feature.dtype]


def to_numpy(column: pa.Array) -> np.ndarray:
    """The values as a NumPy array, texts as objects."""
    return column.to_numpy(zero_copy_only=False)
