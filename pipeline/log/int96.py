"""Times of Parquet's old type INT96, which Spark, Hive and Impala write.

They hold any day and nanoseconds of it, which no 64-bit time does. Files are read in microseconds
and also in nanoseconds, which shows where microseconds are too coarse.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet


def names(parquet: pa.parquet.ParquetFile, columns: list[str]) -> list[str]:
    """The columns among `columns` that have this type."""
    leaves = (parquet.schema.column(i) for i in range(len(parquet.schema)))
    legacy = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    return [name for name in columns if name in legacy]


def is_cut(microseconds: pa.Array, nanoseconds: pa.Array) -> np.ndarray:
    """Whether microseconds are too coarse for each time, bool.

    Args:
        microseconds: Times as read in microseconds.
        nanoseconds: The same times in nanoseconds. Those that do not fit have wrapped around.
    """
    coarse, fine = (
        times.view(pa.int64()).fill_null(0).to_numpy() for times in (microseconds, nanoseconds)
    )
    return coarse * 1000 != fine  # the product wraps as well
