"""Columns of raw values: Arrow types, texts, numbers, padding."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.features.feature import DType, Feature

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


def numpy_type(feature: Feature) -> Any:
    """NumPy type of the raw values of a feature."""
    return {DType.STRING: object, DType.INT64: np.int64, DType.FLOAT32: np.float32}[feature.dtype]


def to_numpy(column: pa.Array) -> np.ndarray:
    """The values as a NumPy array, texts as objects."""
    return column.to_numpy(zero_copy_only=False)
