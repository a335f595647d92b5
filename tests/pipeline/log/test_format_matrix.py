"""One frame gives one data set: whoever wrote it, in whatever format."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job.log_schema import load_schema
from pipeline.log import readers
from pipeline.log.input_files import list_inputs
from pipeline.log.row_checks import FILE, LABEL, LINE, REQUEST, TIME, defaulted_column, validate
from pipeline.log.values import NOT_A_TIME, TOO_FINE
from preprocessing.features.feature import DType
from preprocessing.schema import Schema
from preprocessing.values.spelling import INEXACT
from tests.helpers.format_habits import CSV, JSON, PARQUET, SCHEMA, frame, write
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes

MATRIX = [
    (kind, habit)
    for kind, habits in (("csv", CSV), ("jsonl", JSON), ("parquet", PARQUET))
    for habit in habits
]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def _validated(path, schema):
    """Events of a log by name, without their places; and reasons of rejection by row from 0."""
    log = readers.columns_of_files(list_inputs(path))
    load_schema(BuildArguments(input=path, output="", schema=schema), log)
    (file,) = log
    content = Schema.load(schema)
    events, rejected = [], {}
    first = 2 if path.endswith("csv") else 1
    for part in readers.ranges(file):
        for batch in readers.read(part, [f.column for f in content.features]):
            result = validate(batch, content)
            events.append(result.events.drop_columns([FILE, LINE]))
            rejected |= {r.line - first: r.reason for r in result.rejections}
    return pa.concat_tables(events).to_pydict(), rejected


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


def _expected():
    """What a reader of the frame would say its events are; the row without an item is bad."""
    columns = frame()
    columns[defaulted_column("brand")] = [not brand for brand in columns["brand"]]
    columns["brand"] = [brand or "none" for brand in columns["brand"]]
    columns["is_new"] = [str(value).lower() for value in columns["is_new"]]
    columns["price"] = [v if v is None else float(np.float32(v)) for v in columns["price"]]
    for name in ("user_id", "item_id", "session"):
        columns[name] = [str(value) for value in columns[name]]
    for name in ("on_sale", "clicked"):
        columns[name] = [int(value) for value in columns[name]]
    columns["at"] = [(t - EPOCH) // datetime.timedelta(microseconds=1) for t in columns["at"]]
    ours = {"at": TIME, "session": REQUEST, "clicked": LABEL}
    kept = [row for row, item in enumerate(columns["item_id"]) if item != "None"]
    return {ours.get(name, name): [c[row] for row in kept] for name, c in columns.items()}


@pytest.mark.parametrize(("kind", "habit"), MATRIX)
def test_one_frame_gives_the_same_events_whoever_wrote_it(tmp_path, schema, kind, habit):
    events, rejected = _validated(write(tmp_path, kind, habit, frame()), schema)
    assert events == _expected()
    assert rejected == {41: "column 'item_id': missing value"}


def _build(directory, log, schema):
    with inline():
        return build_examples(
            BuildArguments(
                input=log,
                output=str(directory / "data"),
                schema=schema,
                num_shards=4,
                max_bad_fraction=0.05,
                protocol="time_split",
            )
        )


def test_one_frame_gives_the_same_bytes_as_integers_of_the_same_unit_do(tmp_path, schema):
    contents = []
    for kind, habit in (("csv", "pandas"), ("jsonl", "mixed"), ("parquet", "Spark, INT96")):
        (tmp_path / kind).mkdir()
        log = write(tmp_path / kind, kind, habit, frame())
        data = _build(tmp_path / kind, log, schema)
        assert data.manifest["time_unit"] == "microseconds since 1970-01-01T00:00:00Z"
        assert data.stats["period"] == 86_400 * 10**6
        assert all(data.num_requests(split) > 0 for split in ("train", "validation", "test"))
        contents.append(shard_bytes(data.path))
    columns = frame()
    columns["at"] = [(t - EPOCH) // datetime.timedelta(microseconds=1) for t in columns["at"]]
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA).replace("datetime", "int64"))
    log = write(tmp_path, "parquet", "DuckDB", columns)
    data = _build(tmp_path, log, str(tmp_path / "schema.json"))
    assert (data.manifest["time_unit"], data.stats["period"]) == (None, 86_400)
    contents.append(shard_bytes(data.path))
    assert contents[0] == contents[1] == contents[2] == contents[3]


def test_there_are_at_least_twelve_habits_of_each_format():
    assert min(len(CSV), len(JSON), len(PARQUET)) >= 12


def _columns(**changes):
    columns = {"user_id": ["u"] * 3, "item_id": ["i"] * 3, "timestamp": [5, 6, 7]} | changes
    return {name: pa.array(values) if isinstance(values, list) else values
            for name, values in columns.items()}  # fmt: skip


def _write(tmp_path, kind, columns, cells):
    """The same log in a format; `cells` are the texts or JSON values of the column that matters."""
    path = tmp_path / f"log.{kind}"
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, path)
        return str(path)
    name, texts = cells
    rows = [row | {name: text} for row, text in zip(table.to_pylist(), texts, strict=True)]
    if kind == "csv":
        lines = [",".join(table.column_names)]
        lines += [",".join(str(value).strip('"') for value in row.values()) for row in rows]
    else:
        quoted = [{k: v if k == name else json.dumps(v) for k, v in row.items()} for row in rows]
        lines = ["{" + ", ".join(f'"{k}": {v}' for k, v in row.items()) + "}" for row in quoted]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


FRACTION = "a fraction; give times as integers, of a finer unit"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("dtype", "column", "values", "cells", "reasons"),
    [
        (
            "int64",
            "item_id",
            [1.0, 2.0**53, 1e17],
            ["1.0", "9007199254740992.0", "1e+17"],
            {1: f"column 'item_id': {INEXACT}", 2: f"column 'item_id': {INEXACT}"},
        ),
        (
            "int64",
            "timestamp",
            [5.0, 6.5, 2.0**53],
            ["5.0", "6.5", "9007199254740992.0"],
            {1: f"column 'timestamp': {FRACTION}", 2: f"column 'timestamp': {INEXACT}"},
        ),
        (
            "datetime",
            "timestamp",
            pa.array([1_000, 1_001, 2_000], pa.timestamp("ns")),
            [f'"1970-01-01 00:00:00.00000{n}"' for n in ("1000", "1001", "2000")],
            {1: f"column 'timestamp': {TOO_FINE}"},
        ),
        (
            "datetime",
            "timestamp",
            ["2017-11-25", "2017-02-30", "25.11.2017"],
            ['"2017-11-25"', '"2017-02-30"', '"25.11.2017"'],
            dict.fromkeys((1, 2), f"column 'timestamp': {NOT_A_TIME}"),
        ),
    ],
    ids=["lost digits", "fractions", "nanoseconds", "no dates"],
)
def test_what_cannot_be_kept_is_rejected_for_the_same_reason_in_every_format(
    tmp_path, kind, dtype, column, values, cells, reasons
):
    log = _write(tmp_path, kind, _columns(**{column: values}), (column, cells))
    vocabulary = {"kind": "vocabulary"}
    content = {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
            {"name": "timestamp", "role": "timestamp", "dtype": dtype},
        ]
    }
    (tmp_path / "schema.json").write_text(json.dumps(content))
    _, rejected = _validated(log, str(tmp_path / "schema.json"))
    assert rejected == reasons


def _inferred(path):
    log = readers.columns_of_files(list_inputs(path))
    return load_schema(BuildArguments(input=path, output=""), log)


DAYS = ["2017-11-25", "2017-11-26", "2017-11-27"]


@pytest.mark.parametrize(
    ("kind", "values", "cells", "dtype"),
    [
        ("csv", DAYS, DAYS, "datetime"),
        ("csv", DAYS, ["", *DAYS[1:]], "datetime"),
        ("csv", [1, 2, 3], ["1", "2", "3"], "int64"),
        ("csv", [1, 2, 3], ["20171125", "20171126", "20171127"], "int64"),
        ("jsonl", DAYS, [json.dumps(day) for day in DAYS], "datetime"),
        ("jsonl", DAYS, ["null", *(json.dumps(day) for day in DAYS[1:])], "datetime"),
        ("jsonl", [1, 2, 3], ["1", "2.0", "3"], "int64"),
        ("parquet", DAYS, None, "datetime"),
        ("parquet", pa.array(range(3), pa.date32()), None, "datetime"),
        ("parquet", pa.array(range(3), pa.timestamp("s")), None, "datetime"),
        ("parquet", [1.0, 2.0, 3.0], None, "int64"),
    ],
)
def test_the_first_time_tells_whether_times_are_dates(tmp_path, kind, values, cells, dtype):
    log = _write(tmp_path, kind, _columns(timestamp=values), ("timestamp", cells))
    assert _inferred(log).timestamp.dtype is DType(dtype)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("brand", [["a"]] * 3, "Expected texts, numbers or dates in the column 'brand'"),
        ("brand", [{"a": 1}] * 3, "struct<a: int64>. Fix: write one value per row"),
        ("brand", pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "map<string"),
        ("brand", pa.array([1.0] * 3, pa.float16()), "halffloat. Fix: write it as float32"),
        ("brand", pa.array([1] * 3, pa.time64("us")), "time64[us]. Fix: write it as text or as a"),
        ("brand", pa.array([1] * 3, pa.duration("s")), "duration[s]. Fix: write it as a number"),
        ("brand", pa.array([1] * 3, pa.timestamp("s")), "timestamp[ms]. Fix: write it as text"),
        ("brand", pa.array([b"0" * 16] * 3, pa.uuid()), "arrow.uuid>. Fix: write it as text"),
        ("brand", pa.array([b"0" * 4] * 3, pa.binary(4)), "fixed_size_binary[4]. Fix: write it as"),
        ("timestamp", pa.array([1] * 3, pa.time32("s")), "Expected dates or times in the column"),
        ("timestamp", [[1]] * 3, "Expected numbers in the column 'timestamp'"),
        ("user_id", [["a"]] * 3, "Expected texts, numbers or dates in the column 'user_id'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_type_that_is_not_understood_is_named_before_anything_is_read(
    tmp_path, column, values, message
):
    columns = _columns(brand=["a"] * 3) | _columns(**{column: values})
    log = _write(tmp_path, "parquet", columns, None)
    with pytest.raises(readers.UserError) as caught:
        _inferred(log)
    assert message in str(caught.value)
    assert f"{log}, found the type " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_type_of_times_has_to_be_that_of_the_schema(tmp_path, schema):
    for dtype, kind, fix in (
        ("int64", pa.timestamp("us"), 'say "dtype": "datetime" in the schema'),
        ("datetime", pa.int64(), 'say "dtype": "int64" in the schema'),
    ):
        content = json.loads(json.dumps(SCHEMA))
        content["features"][7]["dtype"] = dtype
        (tmp_path / "schema.json").write_text(json.dumps(content))
        table = pa.table(frame())
        place = table.schema.get_field_index("at")
        times = table["at"].cast(pa.int64()).cast(kind)
        pq.write_table(table.set_column(place, "at", times), tmp_path / "log.parquet")
        with pytest.raises(readers.UserError, match=fix):
            _validated(str(tmp_path / "log.parquet"), str(tmp_path / "schema.json"))


def test_far_dates_of_int96_neither_wrap_nor_lose_nanoseconds(tmp_path):
    """Arrow reads INT96 in nanoseconds, which wrap in 2262, or cuts them to a coarser unit."""
    far = (datetime.datetime(9999, 12, 31) - datetime.datetime(1970, 1, 1)).days * 86_400_000_000
    columns = {"user_id": ["u"] * 3, "item_id": ["i"] * 3}
    path = tmp_path / "log.parquet"
    for unit, times, kept, reasons in (
        ("us", [far, 1, None], [far, 1], {2: "column 'timestamp': missing value"}),
        ("ns", [1_000, 1_001, 2_000], [1, 2], {1: f"column 'timestamp': {TOO_FINE}"}),
    ):
        table = pa.table(columns | {"timestamp": pa.array(times, pa.timestamp(unit))})
        pq.write_table(table, path, use_deprecated_int96_timestamps=True)
        schema = _inferred(str(path))
        schema.save(tmp_path / "schema.json")
        events, rejected = _validated(str(path), str(tmp_path / "schema.json"))
        assert (events[TIME], rejected) == (kept, reasons)
