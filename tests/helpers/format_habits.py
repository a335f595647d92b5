"""One frame, written as programs write it: who writes which value how.

A habit of a text format says how cells are written, one of Parquet which Arrow types the columns
have. To add one, add an entry; `tests/pipeline/log/test_format_matrix.py` does the rest.
"""

import csv
import dataclasses
import datetime
import io
import json
import pathlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

UTC = datetime.timezone.utc
PARIS = datetime.timezone(datetime.timedelta(hours=1))
_START = datetime.datetime(2017, 11, 25, 8, 53, 20, 120_000, UTC)
_VOCABULARY = {"kind": "vocabulary"}
_NUMERIC = {"kind": "numeric", "normalisation": "none"}

SCHEMA = {
    "features": [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": _VOCABULARY},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
        {
            "name": "brand",
            "role": "item",
            "dtype": "string",
            "encoder": _VOCABULARY,
            "default": "none",
        },
        {"name": "is_new", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
        {"name": "on_sale", "role": "item", "dtype": "int64", "encoder": _NUMERIC},
        {"name": "stock", "role": "item", "dtype": "int64", "encoder": _NUMERIC},
        {"name": "price", "role": "item", "dtype": "float32", "encoder": _NUMERIC},
        {"name": "at", "role": "timestamp", "dtype": "datetime"},
        {"name": "session", "role": "request", "dtype": "string"},
        {"name": "clicked", "role": "label", "dtype": "int64"},
    ],
    "history": {"max_length": 5},
}


def frame() -> dict[str, list]:
    """Columns of an impression log: ids of ten digits and more, with every kind of hole in them."""
    rows = range(96)
    request = [row // 2 for row in rows]
    return {
        "user_id": [10**11 + r % 6 for r in request],
        "item_id": [None if row == 41 else 70 + row * row % 13 for row in rows],
        "brand": [None if row % 7 == 3 else f"b{row % 5}" for row in rows],
        "is_new": [row % 3 == 0 for row in rows],
        "on_sale": [row % 5 == 0 for row in rows],
        "stock": [None if row % 11 == 4 else row * 100 for row in rows],
        "price": [None if row % 13 == 5 else row * 0.25 + 0.1 for row in rows],
        "at": [_START + datetime.timedelta(milliseconds=130 * r) for r in request],
        "session": [500 + r for r in request],
        "clicked": [row % 2 == row // 2 % 2 for row in rows],
    }


def _iso(pattern: str, zone: datetime.tzinfo = UTC) -> Callable[[datetime.datetime], str]:
    """Writes times by a pattern of `strftime`, in which %3 stands for milliseconds."""

    def write(time: datetime.datetime) -> str:
        local = time.astimezone(zone)
        return local.strftime(pattern.replace("%3", f"{local.microsecond // 1000:03d}"))

    return write


def _csv(header: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()


@dataclasses.dataclass(frozen=True)
class Text:
    """How a program writes values as text.

    Attributes:
        time: Writes a time.
        missing: Stands for a missing value; None leaves the key out (JSON).
        booleans: False and true.
        integer: Writes integers without holes.
        holed: Writes integers of a column in which some are missing.
        number: Writes floats.
        write: Puts the cells of CSV together.
    """

    time: Callable[[datetime.datetime], str]
    missing: str | None = ""
    booleans: tuple[str, str] = ("false", "true")
    integer: Callable[[int], str] = str
    holed: Callable[[int], str] = str
    number: Callable[[float], str] = repr
    write: Callable[[list[str], list[list[str]]], bytes] = _csv

    def cell(self, value: Any, has_holes: bool) -> str | None:
        if value is None:
            return self.missing
        if isinstance(value, bool):
            return self.booleans[value]
        if isinstance(value, int):
            return (self.holed if has_holes else self.integer)(value)
        if isinstance(value, float):
            return self.number(value)
        return self.time(value) if isinstance(value, datetime.datetime) else value

    def rows(self, columns: dict[str, list]) -> list[list[str | None]]:
        cells = [
            [self.cell(value, None in column) for value in column] for column in columns.values()
        ]
        return [list(row) for row in zip(*cells, strict=True)]


def _float(value: int) -> str:
    return f"{value}.0"


def _decimal(value: int) -> str:
    return f"{value}.00"


CSV = {
    "pandas": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), booleans=("False", "True"), holed=_float),
    "pandas, zone": Text(
        _iso("%Y-%m-%d %H:%M:%S.%3000+00:00"), booleans=("False", "True"), holed=_float
    ),
    "pandas, all floats": Text(_iso("%Y-%m-%dT%H:%M:%S.%3"), integer=_float, holed=_float),
    "pandas, astype(str)": Text(
        _iso("%Y-%m-%d %H:%M:%S.%3"), "nan", ("False", "True"), holed=_float
    ),
    "pandas, Int64 as str": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), "<NA>", ("False", "True")),
    "Python": Text(_iso("%Y-%m-%dT%H:%M:%S.%3000"), "None", ("False", "True")),
    "Spark": Text(_iso("%Y-%m-%dT%H:%M:%S.%3Z")),
    "Spark, session zone": Text(_iso("%Y-%m-%dT%H:%M:%S.%3+01:00", PARIS)),
    "Hive": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), r"\N"),
    "MySQL": Text(_iso("%Y-%m-%d %H:%M:%S.%3000"), r"\N", integer=_decimal, holed=_decimal),
    "MySQL Workbench": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), "NULL"),
    "Excel": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), booleans=("FALSE", "TRUE")),
    "Postgres, timestamptz": Text(_iso("%Y-%m-%d %H:%M:%S.%3+00")),
    "DuckDB": Text(_iso("%Y-%m-%d %H:%M:%S.%3")),
    "BigQuery": Text(_iso("%Y-%m-%d %H:%M:%S.%3000 UTC")),
    "Java Instant, nanoseconds": Text(_iso("%Y-%m-%dT%H:%M:%S.%3000000Z"), "null"),
}

_Z = _iso("%Y-%m-%dT%H:%M:%S.%3Z")


def _quoted(value: Any) -> str:
    return json.dumps(str(value))


JSON = {
    "pandas": Text(_iso("%Y-%m-%dT%H:%M:%S.%3"), "null", holed=_float),
    "pandas, zone": Text(_Z, "null", holed=_float),
    "pandas, all floats": Text(_Z, "null", integer=_float, holed=_float),
    "Python": Text(_iso("%Y-%m-%dT%H:%M:%S.%3000+00:00"), "null"),
    "Python, NaN": Text(_Z, "NaN", holed=_float),
    "Python, default=str": Text(_iso("%Y-%m-%d %H:%M:%S.%3000+00:00"), '"None"'),
    "Spark": Text(_Z, None),
    "Spark, session zone": Text(_iso("%Y-%m-%dT%H:%M:%S.%3+01:00", PARIS), None),
    "JavaScript": Text(_Z, "null", integer=_quoted, holed=_quoted),
    "BigQuery": Text(
        _iso("%Y-%m-%d %H:%M:%S.%3000 UTC"), None, integer=_quoted, holed=_quoted, number=_quoted
    ),
    "DuckDB": Text(_iso("%Y-%m-%d %H:%M:%S.%3"), "null"),
    "all texts": Text(
        _Z, '""', ('"False"', '"True"'), integer=_quoted, holed=_quoted, number=_quoted
    ),
    "mixed": Text(
        _Z, "null", integer=lambda v: [str(v), _float(v), _quoted(v)][v % 3], holed=_quoted
    ),
    "exponents": Text(_Z, "null", integer=lambda v: f"{v / 100:.0f}e2" if v % 100 == 0 else str(v)),
}


def _cast(**kinds: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    """Gives columns other types; those that are not named keep theirs."""

    def change(table: pa.Table) -> pa.Table:
        for name, kind in kinds.items():
            column = table[name]
            if pa.types.is_string(kind) and pa.types.is_boolean(column.type):
                column = pa.chunked_array([[str(value) for value in column.to_pylist()]])
            if pa.types.is_decimal(kind):
                values = [None if v is None else Decimal(v) for v in column.to_pylist()]
                column = pa.chunked_array([pa.array(values, kind)])
            table = table.set_column(
                table.schema.get_field_index(name), name, column.cast(kind, safe=False)
            )
        return table

    return change


def _as_texts(table: pa.Table) -> pa.Table:
    texts = {name: [CSV["pandas"].cell(v, False) for v in table[name].to_pylist()] for name in
             table.column_names}  # fmt: skip
    return pa.table(texts)


def _floats_for_holes(table: pa.Table) -> pa.Table:
    return _cast(item_id=pa.float64(), stock=pa.float64())(table)


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_Write = Callable[[pa.Table, pathlib.Path], None]


def _written(change: Callable[[pa.Table], pa.Table], **options: Any) -> _Write:
    return lambda table, path: pq.write_table(change(table), path, row_group_size=37, **options)


PARQUET: dict[str, _Write] = {
    "pandas": _written(lambda t: _cast(at=pa.timestamp("ns"))(_floats_for_holes(t))),
    "pandas, zone": _written(
        lambda t: _cast(at=pa.timestamp("us", "Europe/Paris"))(_floats_for_holes(t))
    ),
    "pandas, Int64": _written(_cast(at=pa.timestamp("us"))),
    "pandas, category": _written(_cast(brand=_DICTIONARY, at=pa.timestamp("ms"))),
    "Spark": _written(_cast(at=pa.timestamp("us", "UTC"))),
    "Spark, INT96": _written(
        _cast(at=pa.timestamp("ns")), use_deprecated_int96_timestamps=True, store_schema=False
    ),
    "Spark, decimals": _written(
        _cast(
            user_id=pa.decimal128(38, 0), item_id=pa.decimal128(20, 10), stock=pa.decimal128(9, 2)
        )
    ),
    "Hive, binary": _written(_cast(brand=pa.binary()), store_schema=False),
    "DuckDB": _written(_cast(user_id=pa.uint64(), item_id=pa.int16(), clicked=pa.uint8())),
    "Polars": lambda table, path: pl.from_arrow(table).write_parquet(path),
    "views": _written(_cast(brand=pa.string_view(), at=pa.timestamp("ms", "UTC"))),
    "large texts": _written(_cast(brand=pa.large_string(), session=pa.large_string())),
    "milliseconds": _written(_cast(at=pa.timestamp("ms"))),
    "all texts": _written(_as_texts),
    "labels as floats": _written(_cast(clicked=pa.float64(), on_sale=pa.float32())),
}


def write(directory: pathlib.Path, kind: str, habit: str, columns: dict[str, list]) -> str:
    """Writes a frame by a habit of `csv`, `jsonl` or `parquet`; returns the path."""
    path = directory / f"log.{kind}"
    if kind == "parquet":
        PARQUET[habit](pa.table(columns), path)
    elif kind == "csv":
        text = CSV[habit]
        path.write_bytes(text.write(list(columns), text.rows(columns)))
    else:
        lines = []
        for row in JSON[habit].rows(columns):
            cells = zip(columns, row, strict=True)
            fields = (
                f"{_quoted(name)}: {_token(cell)}" for name, cell in cells if cell is not None
            )
            lines.append(f"{{{', '.join(fields)}}}\n")
        path.write_text("".join(lines))
    return str(path)


def _token(cell: str) -> str:
    """A cell as JSON has it: numbers and words as they are, what else there is in quotes."""
    try:
        is_json = isinstance(json.loads(cell), (int, float, str, type(None)))
    except ValueError:
        is_json = False
    return cell if is_json and not cell.startswith("b") else _quoted(cell)
