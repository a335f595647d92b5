import numpy as np
import pyarrow as pa
import pytest

from pipeline.log.raw_batch import InputFile, RawBatch
from pipeline.log.row_checks import FILE, LINE, TIME, columns_of, validate
from preprocessing.schema import Schema
from preprocessing.values.spelling import INEXACT

CATEGORICAL = {"kind": "vocabulary"}


def _schema(*more, behaviours=None):
    features = [
        {"name": "user", "role": "user", "dtype": "string", "encoder": CATEGORICAL},
        {"name": "item", "role": "item", "dtype": "string", "encoder": CATEGORICAL},
        {"name": "at", "column": "ts", "role": "timestamp", "dtype": "int64"},
        *more,
    ]
    history = {"behaviours": behaviours} if behaviours else {}
    return Schema.from_json({"features": features, "history": {"max_length": 5, **history}})


def _validate(schema, **columns):
    arrays = {name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in columns.items()}
    num_rows = len(next(iter(arrays.values())))
    file = InputFile("log.csv", 3, "csv", 1)
    return validate(RawBatch(file, arrays, np.arange(2, num_rows + 2), []), schema)


def _item(name, dtype, kind="vocabulary", **more):
    encoder = {"kind": kind, **({"boundaries": [1.0]} if kind == "bucketised" else {})}
    return {"name": name, "role": "item", "dtype": dtype, "encoder": encoder, **more}


def test_good_rows_become_events_with_their_place():
    result = _validate(_schema(), user=[1, 2], item=[b"a", b"b"], ts=["7", "8"])
    assert result.events.to_pydict() == {
        "user": ["1", "2"],
        "item": ["a", "b"],
        TIME: [7, 8],
        FILE: [3, 3],
        LINE: [2, 3],
    }
    assert (result.read, result.filtered, result.rejections) == (2, {}, [])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user": [b"u", b"\xff"]}, "column 'user': invalid UTF-8"),
        ({"user": [b"u", b""]}, "column 'user': missing value"),
        ({"user": ["u", None]}, "column 'user': missing value"),
        ({"item": ["i", "i\n2"]}, "column 'item': line break in a value"),
        ({"item": ["i", "i\r2"]}, "column 'item': line break in a value"),
        ({"ts": [b"7", b"seven"]}, "column 'ts': not an integer"),
        ({"ts": [7.0, 7.5]}, "column 'ts': a fraction; give times as integers, of a finer unit"),
        ({"ts": ["7", "7.5"]}, "column 'ts': a fraction; give times as integers, of a finer unit"),
        ({"ts": ["7", "2017-11-25"]}, 'column \'ts\': a date or time; say "dtype": "datetime"'),
        ({"ts": [7.0, 2.0**53]}, f"column 'ts': {INEXACT}"),
        ({"user": ["u", "1.23457E+11"]}, f"column 'user': {INEXACT}"),
        ({"ts": ["7", "99999999999999999999"]}, "column 'ts': not an integer"),
        ({"ts": ["7", ""]}, "column 'ts': missing value"),
        ({"ts": [7.0, float("nan")]}, "column 'ts': missing value"),
    ],
)
def test_a_bad_row_is_rejected_with_line_reason_and_excerpt(columns, reason):
    good = {"user": ["u", "u"], "item": ["i", "i"], "ts": ["7", "8"]}
    result = _validate(_schema(), **(good | columns))
    assert result.events[LINE].to_pylist() == [2]
    (rejection,) = result.rejections
    assert (rejection.file, rejection.line, rejection.reason) == ("log.csv", 3, reason)
    assert "'item': " in rejection.excerpt
    assert result.read == 2


def test_a_row_with_two_mistakes_is_rejected_once():
    result = _validate(_schema(), user=["", "u"], item=["", "i"], ts=["x", "7"])
    assert [r.reason for r in result.rejections] == ["column 'user': missing value"]


def test_behaviours_filter_before_anything_else():
    schema = _schema(behaviours={"column": "kind", "values": ["buy", "1"]})
    assert columns_of(schema) == ["user", "item", "ts", "kind"]
    result = _validate(
        schema, user=["u", "u", "", "u"], item=["i"] * 4, ts=[1, 2, 3, 4],
        kind=["buy", "view", "view", None],
    )  # fmt: skip
    assert (result.events.num_rows, result.filtered, result.rejections) == (
        1,
        {"behaviours": 3},
        [],
    )
    numbers = _validate(schema, user=["u", "u"], item=["i", "i"], ts=[1, 2], kind=[1, 2])
    assert (numbers.events.num_rows, numbers.filtered) == (1, {"behaviours": 1})


def test_missing_values_take_the_default_or_stay_null_where_encoders_have_a_place():
    schema = _schema(
        _item("brand", "string", default="none"),
        _item("size", "int64", default=3),
        _item("price", "float32", "numeric"),
        _item("age", "float32", "bucketised"),
    )
    result = _validate(
        schema, user=["u"] * 3, item=["i"] * 3, ts=[1, 2, 3], brand=["b", "", None],
        size=[-1, 5, None], price=["1.5", "", "nan"], age=[2.0, float("nan"), None],
    )  # fmt: skip
    assert not result.rejections
    assert result.events["brand"].to_pylist() == ["b", "none", "none"]
    assert result.events["size"].to_pylist() == [3, 5, 3]
    assert result.events["price"].to_pylist() == [1.5, None, None]
    assert result.events["age"].to_pylist() == [2.0, None, None]


def test_the_reserved_integer_is_missing_in_ids_but_a_number_in_numbers():
    schema = _schema(_item("size", "int64"), _item("delta", "int64", "numeric"))
    result = _validate(
        schema, user=["u", "u"], item=["i", "i"], ts=[1, 2], size=[-1, 4], delta=[-1, -1]
    )
    assert [r.reason for r in result.rejections] == ["column 'size': missing value"]
    assert result.events["delta"].to_pylist() == [-1]


@pytest.mark.parametrize("bad", ["one", "inf", "1e99"])
def test_numbers_must_be_finite(bad):
    schema = _schema(_item("price", "float32", "numeric"))
    result = _validate(schema, user=["u"] * 2, item=["i"] * 2, ts=[1, 2], price=["1", bad])
    assert [r.reason for r in result.rejections] == ["column 'price': not a finite number"]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([7.0, None, 9.0]), ["7", "9"]),
        (pa.array([7.5, None, 9.0]), ["7.5", "9"]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", None, "b"], pa.large_string()), ["a", "b"]),
        (pa.array([7, None, 9], pa.int32()), ["7", "9"]),
    ],
)
def test_ids_of_any_type_become_texts(column, texts):
    result = _validate(_schema(), user=column, item=["i"] * 3, ts=[1, 2, 3])
    assert result.events["user"].to_pylist() == texts
    assert len(result.rejections) == 1
