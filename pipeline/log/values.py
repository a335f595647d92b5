"""Columns of numbers and times, whatever type a file has for them.

Texts (ids, categories) have a rule of their own, which requests follow too: see
`preprocessing.values.spelling`. The functions return a column of the feature's type, null where the
value is missing, and the bad rows by reason.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.features.feature import DType
from preprocessing.values.spelling import INEXACT, as_mask, cast, exact_below, without_missing

LINE_BREAK = "line break in a value"
NOT_AN_INTEGER = "not an integer"
NOT_FINITE = "not a finite number"
NOT_A_TIME = "not an ISO date or time such as 2017-11-25T08:53:20Z"
TOO_FINE = "a time finer than a microsecond; give nanoseconds as integers, with dtype int64"
_A_DATE = 'a date or time; say "dtype": "datetime"'
_A_FRACTION = "a fraction; give times as integers, of a finer unit"

_INTEGER = r"^[+-]?\d+$|^0[xX]"
_FLOAT = r"^[+-]?\d*\.\d*(?:[eE][+-]?\d+)?$|^[+-]?\d+[eE][+-]?\d+$"
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_TIME = (
    r"^(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[ T](?P<clock>\d\d(?::\d\d(?::\d\d)?)?)(?P<fraction>\.\d{1,9})?"
    r"(?P<zone>Z| ?UTC|[+-]\d\d(?::?\d\d)?)?)?$"
)
_TIME_PARTS = ("date", "clock", "fraction", "zone")

Faults = dict[str, np.ndarray]
"""Bad rows, bool per row, by reason."""


def as_number(column: pa.Array, dtype: DType) -> tuple[pa.Array, Faults]:
    """Turns a column of any type that `pipeline.log.column_types` accepts into int64 or float32.

    Booleans are 0 and 1; a float is an integer if it is whole.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_decimal(column.type):  # of any width
        column = column.cast(pa.decimal256(76, column.type.scale))
    faults: Faults = {}
    if not _is_number(column.type):
        column, not_text = cast(column, pa.string())
        column = without_missing(column)
        faults[NOT_AN_INTEGER if dtype is DType.INT64 else NOT_FINITE] = not_text
    if dtype is DType.INT64:
        array, cast_faults = _as_int64(column)
    else:
        array, cast_faults = _as_float32(column)
    return array, _merged(faults, cast_faults)


def line_breaks(texts: pa.Array) -> np.ndarray:
    """Whether each text holds a line break; a search of all bytes is nearly always enough."""
    data = texts.buffers()[2]
    if data is None or not (np.frombuffer(data, np.uint8) <= ord("\r")).any():
        return np.zeros(len(texts), bool)
    return as_mask(pc.fill_null(pc.match_substring_regex(texts, r"[\r\n]"), False))


def as_time(column: pa.Array) -> tuple[pa.Array, Faults]:
    """Turns a column of dates, times or ISO texts into int64, microseconds since 1970 in UTC.

    An offset is applied; times without one are in UTC.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_temporal(column.type):
        return _of_timestamps(column)
    texts, not_text = cast(column, pa.string())
    texts = without_missing(texts)
    times, faults = _of_iso(texts)
    return times, _merged({NOT_A_TIME: not_text}, faults)


def with_reasons_of_times(column: pa.Array, faults: Faults) -> Faults:
    """Gives dates and fractions a reason of their own among times that are no integers.

    Args:
        column: Times as the log has them.
        faults: Faults of that column.
    """
    rows = np.flatnonzero(faults.get(NOT_AN_INTEGER, False))
    if not len(rows):
        return faults
    texts, _ = cast(column.take(pa.array(rows)), pa.string())
    _, is_fraction = _cast_some(texts, r"\.\d*[1-9]", pa.float64())
    finer_faults = {reason: np.zeros(len(column), bool) for reason in (_A_DATE, _A_FRACTION)}
    finer_faults[_A_DATE][rows] = as_mask(pc.is_valid(as_time(texts)[0]))
    finer_faults[_A_FRACTION][rows] = is_fraction
    return {**finer_faults, **faults}


def _is_number(data_type: pa.DataType) -> bool:
    return any(
        matches(data_type)
        for matches in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )


def _as_int64(column: pa.Array) -> tuple[pa.Array, Faults]:
    if pa.types.is_floating(column.type):
        return _whole(column)
    if not pa.types.is_string(column.type):
        array, bad = cast(column, pa.int64())
        return array, {NOT_AN_INTEGER: bad}
    try:
        return pc.cast(column, pa.int64()), {}
    except pa.ArrowInvalid:
        pass
    texts = _with_digits_for_booleans(column)
    integers, is_integer = _cast_some(texts, _INTEGER, pa.int64())
    floats, is_float = _cast_some(texts, _FLOAT, pa.float64())
    whole, faults = _whole(floats)
    neither: Faults = {NOT_AN_INTEGER: as_mask(pc.is_valid(texts)) & ~is_integer & ~is_float}
    return pc.coalesce(integers, whole), _merged(neither, faults)


def _as_float32(column: pa.Array) -> tuple[pa.Array, Faults]:
    bad = np.zeros(len(column), bool)
    try:
        # Numbers of more digits than a float holds are rounded, as texts are.
        array = pc.cast(column, pa.float64(), safe=not _is_number(column.type))
    except pa.ArrowInvalid:
        texts = _with_digits_for_booleans(column)
        array, is_number = _cast_some(texts, f"{_INTEGER}|{_FLOAT}", pa.float64())
        bad = as_mask(pc.is_valid(texts)) & ~is_number
    array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    # Adding 0 turns -0 into 0.
    array = pc.add(array, 0.0).cast(pa.float32(), safe=False)
    return array, {NOT_FINITE: bad | as_mask(pc.fill_null(pc.is_inf(array), False))}


def _cast_some(texts: pa.Array, pattern: str, to: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Casts the texts that match a pattern; also returns which of them are such numbers, bool."""
    matching = pc.if_else(
        pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string())
    )
    array, _ = cast(matching, to)
    return array, as_mask(pc.is_valid(array))


def _whole(column: pa.Array) -> tuple[pa.Array, Faults]:
    """Floats as int64, NaN as null."""
    numbers = column.to_numpy(zero_copy_only=False)
    is_whole = np.isfinite(numbers) & (np.trunc(numbers) == numbers)
    is_exact = np.abs(numbers) < exact_below(column.type)
    good = is_whole & is_exact
    integers = np.where(good, numbers, 0).astype(np.int64)
    faults = {INEXACT: is_whole & ~is_exact, NOT_AN_INTEGER: ~is_whole & ~np.isnan(numbers)}
    return pa.array(integers, mask=~good), faults


def _with_digits_for_booleans(texts: pa.Array) -> pa.Array:
    for digit, words in (("1", _TRUE), ("0", _FALSE)):
        is_word = pc.is_in(texts, value_set=pa.array(words))
        texts = pc.if_else(is_word, pa.scalar(digit), texts)
    return texts


def _of_timestamps(column: pa.Array) -> tuple[pa.Array, Faults]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    unit = column.type.unit
    ticks = column.view(pa.int64())
    if unit == "ns":
        microseconds, nanoseconds = np.divmod(ticks.fill_null(0).to_numpy(), 1000)
        missing = as_mask(pc.is_null(ticks))
        return pa.array(microseconds, mask=missing), {TOO_FINE: nanoseconds != 0}
    times, out_of_range = cast(ticks.view(pa.timestamp(unit)), pa.timestamp("us"))
    return times.view(pa.int64()), {NOT_A_TIME: out_of_range}


def _of_iso(texts: pa.Array) -> tuple[pa.Array, Faults]:
    """Parses ISO 8601 texts: fast if all or none have an offset, else by the same rule."""
    for timestamp_type in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pc.cast(texts, timestamp_type).view(pa.int64()), {}
        except pa.ArrowInvalid:
            pass
    parts = pc.extract_regex(texts, _TIME)
    date, clock, fraction, zone = (pc.struct_field(parts, name) for name in _TIME_PARTS)
    clock = pc.if_else(pc.equal(clock, ""), "00:00:00", clock)
    zone = pc.if_else(pc.is_in(zone, value_set=pa.array(["", "UTC", " UTC"])), "Z", zone)
    too_fine = pc.match_substring_regex(fraction, r"\.\d{6}\d*[1-9]")
    joined = pc.binary_join_element_wise(
        pc.binary_join_element_wise(date, clock, " "),
        pc.utf8_slice_codeunits(fraction, 0, 7),
        zone,
        "",
    )
    times, _ = cast(joined, pa.timestamp("us", "UTC"))
    bad = as_mask(pc.and_(pc.is_valid(texts), pc.is_null(times)))
    return times.view(pa.int64()), {
        NOT_A_TIME: bad,
        TOO_FINE: as_mask(pc.fill_null(too_fine, False)),
    }


def _merged(faults: Faults, more_faults: Faults) -> Faults:
    """The faults of both, reason by reason."""
    merged = dict(faults)
    for reason, bad in more_faults.items():
        merged[reason] = merged[reason] | bad if reason in merged else bad
    return merged
