r"""The one spelling of a value: the text of an id or a category, whatever file it came in.

    7, 7.0, "7.0", Decimal("7.00")     "7"
    7.5, Decimal("7.50")               "7.5"
    True, "True", "TRUE"               "true"
    None, NaN, "", "NULL", r"\N"        missing
    "007", "1e5", "7.50", "i7"         as they are

The spelling of a value never depends on other values. Logs and requests follow the same rule, so
that values which are equal in training are equal in serving. See docs/schema.md.

A whole number that a float cannot tell from its neighbour (2^53 or more), or that a spreadsheet
wrote as 1.23457E+11, no longer says which integer it was: it has no spelling.
"""

import decimal
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING = ("", r"\N", "NULL", "null", "NaN", "nan", "NaT", "None", "<NA>")
"""Texts that databases and data frames write for a missing value."""

INEXACT = "a number whose last digits are lost (a float of 2^53 or more, or such as 1.23E+11)"
NOT_UTF8 = "invalid UTF-8"
"""Reasons why a value has no spelling."""

EXACT_BELOW = 2**53
"""From this number on, a float equals several integers that people may have meant."""

_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_ZERO_FRACTION = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_SCIENTIFIC = re.compile(r"[+-]?[0-9](?:\.[0-9]+)?[eE]\+[0-9]{2,}")

# First bytes of texts that may have to be respelled: the words above, and numbers.
_WORD, _NUMBER = 1, 2
_BEGINNINGS = np.zeros(256, np.uint8)
_BEGINNINGS[[ord(word[0]) for word in (*filter(None, MISSING), *_BOOLEANS)]] = _WORD
_BEGINNINGS[[*b"+-0123456789"]] = _NUMBER
_LONGEST_WORD = max(map(len, (*MISSING, *_BOOLEANS)))


class InexactError(ValueError):
    """A number whose last digits are lost."""


class Spelled(NamedTuple):
    """A column of texts.

    Attributes:
        texts: String array, null where the value is missing or has no spelling.
        faults: Rows that have no spelling, bool per row, by reason.
    """

    texts: pa.Array
    faults: dict[str, np.ndarray]


def spell(value: str | bool | int | float | decimal.Decimal) -> str | None:
    """The spelling of one value; None if it stands for a missing one.

    Raises:
        InexactError: The value is a number whose last digits are lost.
    """
    if isinstance(value, str):
        return _spell_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return _spell_decimal(value)
    return _spell_float(value, EXACT_BELOW)


def spelled(column: pa.Array) -> Spelled:
    """The spellings of a column of any type that `pipeline.log.column_types` takes for texts."""
    column_type = column.type
    if pa.types.is_dictionary(column_type) and len(column.dictionary):
        values = spelled(column.dictionary)
        codes = column.indices.fill_null(0).to_numpy()
        faults = {reason: bad[codes] & _valid(column) for reason, bad in values.faults.items()}
        return Spelled(values.texts.take(column.indices), faults)
    if pa.types.is_floating(column_type):
        return _spelled_floats(column)
    if pa.types.is_decimal(column_type):
        return _spelled_decimals(column)
    texts, not_utf8 = cast(column, pa.string())
    if (
        pa.types.is_boolean(column_type)
        or pa.types.is_integer(column_type)
        or pa.types.is_date(column_type)
    ):
        return Spelled(texts, {})
    rows = np.flatnonzero(_may_change(texts))
    if texts.null_count:
        rows = rows[_valid(texts)[rows]]
    if not len(rows):
        return Spelled(texts, {NOT_UTF8: not_utf8} if not_utf8.any() else {})
    encoded = texts.take(pa.array(rows)).dictionary_encode()
    values = _each(encoded.dictionary.to_pylist(), _spell_text)
    texts = _replaced(texts, rows, values.texts.take(encoded.indices))
    inexact = np.zeros(len(texts), bool)
    inexact[rows] = values.faults[INEXACT][encoded.indices.to_numpy()]
    return Spelled(texts, {NOT_UTF8: not_utf8, INEXACT: inexact})


def without_missing(texts: pa.Array) -> pa.Array:
    """The texts, null where one stands for a missing value."""
    rows = np.flatnonzero(_Ends.of(texts).is_word())
    if not len(rows):
        return texts
    is_missing = np.zeros(len(texts), bool)
    words = texts.take(pa.array(rows))
    is_missing[rows] = as_mask(pc.is_in(words, value_set=pa.array(MISSING, words.type)))
    if not is_missing.any():
        return texts
    return pc.if_else(pa.array(is_missing), pa.scalar(None, texts.type), texts)


def cast(column: pa.Array, to: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Casts a column; rows that cannot be cast become null and are marked, bool.

    The column is cast at once; if that fails, its distinct values are cast in ever smaller parts.
    """
    try:
        return pc.cast(column, to), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        encoded = column.dictionary_encode()
        array = pa.concat_arrays(_cast_parts(encoded.dictionary, to)).take(encoded.indices)
        return array, as_mask(pc.and_(pc.is_null(array), pc.is_valid(column)))


def _cast_parts(values: pa.Array, to: pa.DataType) -> list[pa.Array]:
    try:
        return [pc.cast(values, to)]
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [pa.nulls(1, to)]
        middle = len(values) // 2
        return _cast_parts(values[:middle], to) + _cast_parts(values[middle:], to)


def as_mask(column: pa.Array) -> np.ndarray:
    """A boolean column without nulls as NumPy array."""
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def _valid(column: pa.Array) -> np.ndarray:
    return as_mask(pc.is_valid(column))


def _spell_text(text: str) -> str | None:
    if text in MISSING:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if whole := _ZERO_FRACTION.fullmatch(text):
        if len(whole[1]) > 17 or abs(int(whole[1])) >= EXACT_BELOW:
            raise InexactError(text)
        return "0" if whole[1] == "-0" else whole[1]
    if _SCIENTIFIC.fullmatch(text):
        raise InexactError(text)
    return text


def _spell_float(number: float, limit: int) -> str | None:
    if math.isnan(number):
        return None
    if not number.is_integer():
        return str(number)
    if abs(number) >= limit:
        raise InexactError(str(number))
    return str(int(number))


def _spell_decimal(number: decimal.Decimal) -> str:
    if number == number.to_integral_value():
        return str(int(number))
    shortest = repr(float(number))
    return shortest if decimal.Decimal(shortest) == number else f"{number.normalize():f}"


def exact_below(kind: pa.DataType) -> int:
    """`EXACT_BELOW` for a type of floats."""
    return 2**24 if kind == pa.float32() else EXACT_BELOW


def _spelled_floats(column: pa.Array) -> Spelled:
    """Spells whole numbers, which nearly all ids are, at once and other floats one by one."""
    limit = exact_below(column.type)
    numbers = column.to_numpy(zero_copy_only=False)
    is_whole = (np.abs(numbers) < limit) & (np.trunc(numbers) == numbers)
    whole = np.where(is_whole, numbers, 0).astype(np.int64)
    texts = pa.array(whole, mask=~is_whole).cast(pa.string())
    rows = np.flatnonzero(~is_whole & ~np.isnan(numbers))
    inexact = np.zeros(len(column), bool)
    if len(rows):
        distinct, codes = np.unique(numbers[rows], return_inverse=True)
        values = _each(list(distinct), lambda number: _spell_float(number, limit))
        texts = _replaced(texts, rows, values.texts.take(pa.array(codes)))
        inexact[rows] = values.faults[INEXACT][codes]
    return Spelled(texts, {INEXACT: inexact})


def _spelled_decimals(column: pa.Array) -> Spelled:
    """Spells decimals, which are exact at any length: whole numbers at once, others one by one."""
    wide = pc.cast(column, pa.decimal256(76, column.type.scale))
    try:
        return Spelled(pc.cast(wide, pa.decimal256(76, 0)).cast(pa.string()), {})
    except pa.ArrowInvalid:
        encoded = wide.dictionary_encode()
        values = _each(encoded.dictionary.to_pylist(), _spell_decimal)
        return Spelled(values.texts.take(encoded.indices), {})


def _each(values: Sequence[Any], spell_one: Callable[[Any], str | None]) -> Spelled:
    """Spells distinct values one by one."""
    texts: list[str | None] = []
    inexact = np.zeros(len(values), bool)
    for place, value in enumerate(values):
        try:
            texts.append(spell_one(value))
        except InexactError:
            texts.append(None)
            inexact[place] = True
    return Spelled(pa.array(texts, pa.string()), {INEXACT: inexact})


def _replaced(texts: pa.Array, rows: np.ndarray, values: pa.Array) -> pa.Array:
    mask = np.zeros(len(texts), bool)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), values)


def _may_change(texts: pa.Array) -> np.ndarray:
    """Whether each text may have to be respelled, by its ends, which are cheap to check.

    Hardly any column of a log holds such texts, so that few are checked in full.
    """
    ends = _Ends.of(texts)
    may_change = ends.is_word()
    is_fraction = ends.last == ord("0") if ends.has(".") else np.bool_(False)
    if is_fraction.any() or ends.has("+"):
        may_change |= (ends.kinds == _NUMBER) & (is_fraction | ends.has("+"))
    return may_change


class _Ends(NamedTuple):
    """First and last bytes of texts.

    Attributes:
        data: uint8, the bytes of all texts.
        lengths: int32 [n], lengths of the texts in bytes.
        kinds: uint8 [n], _WORD or _NUMBER if the first byte is one that such texts begin with.
        last: uint8 [n], last byte of each text.
    """

    data: np.ndarray
    lengths: np.ndarray
    kinds: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, texts: pa.StringArray) -> "_Ends":
        _, offsets, data = texts.buffers()
        if data is None or not data.size:
            zeros = np.zeros(len(texts), np.uint8)
            return cls(zeros[:0], zeros, zeros, zeros)
        window = slice(texts.offset, texts.offset + len(texts) + 1)
        starts = np.frombuffer(offsets, np.int32)[window]
        bytes_ = np.frombuffer(data, np.uint8)
        lengths = np.diff(starts)
        # Without bounds checks: "clip" is the fastest mode. An empty text gets a neighbour's bytes.
        kinds = _BEGINNINGS.take(bytes_.take(starts[:-1], mode="clip"))
        last = bytes_.take(starts[1:] - 1, mode="clip")
        return cls(bytes_[starts[0] : starts[-1]], lengths, kinds, last)

    def has(self, character: str) -> bool:
        """Whether any text holds a character."""
        return bool((self.data == ord(character)).any())

    def is_word(self) -> np.ndarray:
        """Whether each text may be a word with another spelling, bool [n]."""
        return (self.lengths == 0) | ((self.kinds == _WORD) & (self.lengths <= _LONGEST_WORD))
