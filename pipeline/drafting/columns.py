"""Facts of a column in a sample of a log, and how far one column follows from another."""

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log.values import as_number, as_time
from preprocessing.features.feature import DType

FOLLOWS = 0.8
"""Agreement from which on a column follows from a key: nearly every key has one value."""

ALWAYS = 0.99
"""Agreement from which on exceptions are too few to matter even if each costs a row."""

_MOSTLY = 0.95
_LEAST_REPEATED_ROWS = 10
_FIRST = 100
_BITS = [0, 1]


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """A column of a sample, its values as texts in their one spelling.

    Attributes:
        name: Name of the column in the log.
        codes: Place of the value of each row in `values`, -1 where it is missing: int64 [rows].
        values: The distinct values, none of them null: strings.
        unreadable: Why its values cannot be read; empty if they can.
        is_many: Whether a row has several values; `values` are then sets of them, as
            `preprocessing.values.value_sets` joins them.
        separator: What is between the values of a row of many; None if it is a list.
        size: How many numbers each value has, if the values are vectors; 0 if they are not.
    """

    name: str
    codes: np.ndarray
    values: pa.Array
    unreadable: str = ""
    is_many: bool = False
    separator: str | None = None
    size: int = 0

    @classmethod
    def of(
        cls, name: str, texts: pa.Array, is_many: bool = False, separator: str | None = None
    ) -> "Column":
        """The column of these texts, null where a value is missing."""
        encoded = texts.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
        return cls(name, codes, encoded.dictionary, is_many=is_many, separator=separator)

    @property
    def distinct(self) -> int:
        """Number of distinct values."""
        return len(self.values)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Number of rows of each distinct value."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.distinct)

    @property
    def present(self) -> int:
        """Number of rows that have a value."""
        return int(self.counts.sum())

    @property
    def missing(self) -> float:
        """Share of rows without a value."""
        return 1 - self.present / max(1, len(self.codes))

    @functools.cached_property
    def integers(self) -> np.ndarray | None:
        """The distinct values as int64, if all are whole numbers or booleans."""
        integers, faults = as_number(self.values, DType.INT64)
        if not self.distinct or any(bad.any() for bad in faults.values()):
            return None
        return integers.to_numpy()

    @functools.cached_property
    def numbers(self) -> np.ndarray | None:
        """The distinct values as floats, if all are numbers or booleans."""
        if self.integers is not None:
            return self.integers.astype(np.float64)
        floats, faults = as_number(self.values, DType.FLOAT32)
        if not self.distinct or any(bad.any() for bad in faults.values()):
            return None
        return floats.to_numpy().astype(np.float64)

    @functools.cached_property
    def is_times(self) -> bool:
        """Whether all values are ISO dates or times."""
        # Looking for dates among other texts is slow, and the first ones nearly always tell.
        return bool(self.distinct) and all(
            not bad.any()
            for values in (self.values[:_FIRST], self.values)
            for bad in as_time(values)[1].values()
        )

    @property
    def is_binary(self) -> bool:
        """Whether the values are 0 and 1, or booleans."""
        return (
            self.distinct == len(_BITS)
            and self.integers is not None
            and sorted(self.integers) == _BITS
        )

    @property
    def is_own_per_row(self) -> bool:
        """Whether nearly every row has a value that no other row has."""
        return self.present >= _LEAST_REPEATED_ROWS and self.distinct > _MOSTLY * self.present

    @functools.cached_property
    def words_per_value(self) -> float:
        """Mean number of words, separated by spaces, of a distinct value."""
        return float(pc.mean(pc.add(pc.count_substring(self.values, " "), 1)).as_py() or 0)

    def example(self) -> str:
        """The smallest value, as an example that does not depend on the order of rows."""
        return str(pc.min(self.values).as_py())


def agreement(column: Column, key: Column) -> float | None:
    """How much rows of one key agree on a column: 1 if each key has one value, 0 as by chance.

    It is the chance that another row of the same key has the same value, compared with the chance
    for any other row (as Cohen's kappa). Rows that miss either are left out, and so are keys of
    one row, which always agree with themselves. None if too few rows are left to tell.
    """
    has_both = (column.codes >= 0) & (key.codes >= 0)
    rows_of_key = np.bincount(key.codes[has_both], minlength=key.distinct)
    used = has_both & (rows_of_key[key.codes] > 1)
    keys, values = key.codes[used], column.codes[used]
    if len(keys) < _LEAST_REPEATED_ROWS:
        return None
    _, pair, counts = np.unique(
        keys * column.distinct + values, return_inverse=True, return_counts=True
    )
    same = float(np.mean((counts[pair] - 1) / (rows_of_key[keys] - 1)))
    overall = np.bincount(values)
    by_chance = float((overall * (overall - 1)).sum() / (len(values) * (len(values) - 1)))
    return 1.0 if by_chance == 1 else (same - by_chance) / (1 - by_chance)


def follows(column: Column, key: Column, least: float = FOLLOWS) -> bool:
    """Whether nearly every value of the key has one value of the column."""
    return (agreement(column, key) or 0) >= least


def variance_explained(column: Column, key: Column) -> float:
    """How much of the variance of numbers lies between keys: 1 all of it, 0 as much as by chance.

    Prices that change from day to day agree on nothing, and still tell the item. It is 0 for a
    column of texts, and where nothing can be said.
    """
    has_both = (column.codes >= 0) & (key.codes >= 0)
    if column.numbers is None or not has_both.any():
        return 0.0
    values, keys = column.numbers[column.codes[has_both]], key.codes[has_both]
    rows_of_key = np.bincount(keys, minlength=key.distinct)
    means = np.bincount(keys, values, key.distinct) / np.maximum(1, rows_of_key)
    inner_degrees = len(values) - np.count_nonzero(rows_of_key)
    if not inner_degrees or not values.var():
        return 0.0
    inner_variance = float(((values - means[keys]) ** 2).sum()) / inner_degrees
    return max(0.0, 1 - inner_variance / float(values.var(ddof=1)))
