"""Columns of many values: lists and texts become sets, and bad values reject their row."""

import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline.log import column_types, readers
from pipeline.log.input_files import list_inputs
from pipeline.log.row_checks import columns_of, separators_of, validate
from pipeline.log.value_sets import as_sets
from preprocessing.errors import UserError
from preprocessing.features.parsing import parse_feature
from preprocessing.schema import Schema


def _feature(dtype="string", separator="|", **more):
    many = {"max": 4} | ({} if separator is None else {"separator": separator})
    record = {"name": "a", "role": "item", "dtype": dtype, "encoder": {"kind": "vocabulary"}}
    return parse_feature(record | {"many": many} | more, "")


def _sets(column, **feature):
    sets, faults = as_sets(column, _feature(**feature))
    texts = [None if text is None else text.split("\x1f") for text in sets.to_pylist()]
    return texts, {reason: np.flatnonzero(bad).tolist() for reason, bad in faults.items()}


_ROWS = [["b", "a", "b"], None, [], [None, "x", "NaN"], ["a"]]
_TEXTS = ["b|a|b", None, "", "NULL|x", "a"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(_TEXTS),
        pa.array(_TEXTS).dictionary_encode(),
        pa.array(_TEXTS, pa.large_binary()),
        pa.array(_ROWS),
        pa.array(_ROWS, pa.large_list(pa.string())),
        pa.array(_ROWS, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
)
def test_texts_and_lists_are_the_same_sets(column):
    texts, faults = _sets(column)
    assert texts == [["a", "b"], None, None, ["x"], ["a"]]
    assert not any(faults.values())


def test_values_have_their_one_spelling():
    assert _sets(pa.array([[7.0, 2.5], [1.0]]))[0] == [["2.5", "7"], ["1"]]
    assert _sets(pa.array([[7, 10], [1]], pa.list_(pa.int64())))[0] == [["10", "7"], ["1"]]
    assert _sets(pa.array([[True, False]]))[0] == [["false", "true"]]
    assert _sets(pa.array(["7.0|True|007"]))[0] == [["007", "7", "true"]]
    assert _sets(pa.array([7, 8]))[0] == [["7"], ["8"]]
    assert _sets(pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)))[0] == [["1", "2"], ["3", "4"]]


def test_integers_lose_padding_and_reject_others():
    texts, faults = _sets(pa.array(["3|-1|3.0|07", "x|1", None, "-1"]), dtype="int64")
    assert texts[0] == ["3", "7"]
    assert texts[2:] == [None, None]
    assert faults["not an integer"] == [1]


def test_a_separator_may_have_several_characters():
    assert _sets(pa.array(["a, b, c,d"]), separator=", ")[0] == [["a", "b", "c,d"]]


@pytest.mark.parametrize("as_list", [False, True])
def test_bad_values_reject_their_row(as_list):
    rows = [["a", "b\x1fc"], ["fine"], ["9007199254740993.0"], ["two\nlines", "x"]]
    column = pa.array(rows if as_list else ["|".join(row) for row in rows])
    _, faults = _sets(column)
    assert {reason: bad for reason, bad in faults.items() if bad} == {
        "a value that holds U+001F, which is kept for separating values": [0],
        "a number whose last digits are lost (a float of 2^53 or more, or such as 1.23E+11)": [2],
        "line break in a value": [3],
    }


def _schema(separator="|"):
    record = _feature(separator=separator, default=None).to_json() | {"name": "tags", "column": "t"}
    return Schema.from_json({"features": [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": {"kind": "vocabulary"}},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": {"kind": "vocabulary"}},
        record,
    ]})  # fmt: skip


def _events(path, schema):
    (file,) = list_inputs(str(path))
    (batch,) = [
        b for part in readers.ranges(file)
        for b in readers.read(part, columns_of(schema), separators_of(schema))
    ]  # fmt: skip
    checked = validate(batch, schema)
    return checked.events["tags"].to_pylist(), [(r.line, r.reason) for r in checked.rejections]


@pytest.mark.parametrize("separator", ["|", None])
def test_rows_of_json_have_lists_or_texts(tmp_path, separator):
    values = [["b", "a"], [], None, "a|b", 7, [["x"]], {"x": 1}, [1, "x", None, 2.0], [2**70]]
    lines = [json.dumps({"user_id": "u", "item_id": "i", "t": value}) for value in values]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"user_id": "u", "item_id": "i"}']))
    tags, rejections = _events(tmp_path / "log.jsonl", _schema(separator))
    of_texts = ["a\x1fb", "7"] if separator else []
    assert tags == ["a\x1fb", None, None, *of_texts, "1\x1f2\x1fx", str(2**70), None]
    no_list = "column 't': expected a list, found one value (\"many\" has no separator)"
    assert rejections == [
        *([] if separator else [(4, no_list), (5, no_list)]),
        (6, "column 't': expected a list of single values, found a nested one"),
        (7, "column 't': expected a list, found a nested value"),
    ]


@pytest.mark.parametrize("separator", ["|", None])
def test_lists_of_parquet_need_no_separator_and_texts_do(separator):
    feature = _feature(separator=separator)
    for kind in (pa.list_(pa.string()), pa.large_list(pa.int64()), pa.list_(pa.int32(), 3)):
        column_types.check_many("f", "parquet", {"a": kind}, feature)
    column_types.check_many("f", "jsonl", {}, feature)
    for file_format, types in (("csv", {}), ("parquet", {"a": pa.string()})):
        if separator is not None:
            column_types.check_many("f", file_format, types, feature)
            continue
        with pytest.raises(UserError) as error:
            column_types.check_many("f", file_format, types, feature)
        assert str(error.value) == (
            "Expected lists of values in the column 'a' of f, found texts. Fix: say what separates "
            'the values of \'a\' in the schema, such as "many": {"max": 8, "separator": "|"}.'
        )


def test_lists_of_other_things_are_refused():
    for kind in (pa.list_(pa.list_(pa.int64())), pa.list_(pa.struct([("x", pa.int64())]))):
        with pytest.raises(UserError, match="found the type"):
            column_types.check_many("f", "parquet", {"a": kind}, _feature())


def test_a_list_where_the_schema_says_one_value_names_many():
    types = {"a": pa.list_(pa.string())}
    with pytest.raises(UserError, match='say "many": {"max": 8} for the feature in the schema'):
        column_types.check("f", types, "a", _feature().dtype)
