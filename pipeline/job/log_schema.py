"""The schema of a build: loaded, given by a published log or inferred, and checked."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arguments import BuildArguments
from pipeline.drafting import draft as drafting
from pipeline.drafting import sample, several, table
from pipeline.drafting.columns import Column
from pipeline.job import log_files
from pipeline.log import column_types, readers
from pipeline.log.row_checks import columns_of
from pipeline.log.topic_files import explained_broker_errors
from pipeline.log.values import as_number, as_time
from preprocessing import cli, time_units
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError, shown
from preprocessing.example_keys import TIMESTAMP
from preprocessing.features.feature import UNITS, DType, Role
from preprocessing.schema import Schema
from preprocessing.schema_inference import POSITION, infer_schema
from preprocessing.splits import BY_TIME
from preprocessing.values.spelling import cast, spelled, without_missing

_LONGEST_SUMMARY = 1000
_LONGEST_EXAMPLE = 60
_LOOKED_AT = 10_000


class CheckedLog(NamedTuple):
    """A log that can be read, as far as arguments, files and columns tell.

    Attributes:
        arguments: Arguments of the build.
        files: Files of the log.
        columns: The names of the columns of each file.
        schema: The schema, given or inferred.
    """

    arguments: BuildArguments
    files: list[readers.InputFile]
    columns: dict[readers.InputFile, list[str]]
    schema: Schema

    def resuming(self) -> "CheckedLog":
        """The same log, for a build that goes on where one was cut off.

        Of a topic that build began to read up to where it ended then.
        """
        log = self._replace(arguments=dataclasses.replace(self.arguments, resume=True))
        begun = log_files.begun_files(log.arguments) if log.arguments.reads_topic else []
        if not begun:
            return log
        names = next(iter(self.columns.values()))
        return log._replace(files=begun, columns={file: names for file in begun if file.size})


def check(arguments: BuildArguments) -> CheckedLog:
    """Checks the arguments, files and columns of a build; says which schema is inferred.

    Raises:
        UserError: Wrong arguments, or a log that cannot be read or has other columns.
    """
    arguments.check()
    log = log_files.list_log(arguments)
    with explained_broker_errors():
        columns = readers.columns_of_files(log)
        schema = load_schema(arguments, columns)
    for feature in schema.history_features:
        if feature.is_vector:
            sys.stderr.write(f"{_vectors_of_events(feature.name, schema)}\n")
    return CheckedLog(arguments, log, columns, schema)


def _vectors_of_events(name: str, schema: Schema) -> str:
    """What to consider where each event of a history holds a vector."""
    return (
        f"{name}: history.features holds a vector of {schema[name].shape[0]} numbers for each "
        f"event. If it follows from the item, a table that is shared by candidates and history "
        f"holds it once: leave {name} out of the schema, and train with "
        f"--set=pretrained.{schema.item_key.name}=FILE (docs/training.md, Pretrained tables)."
    )


def load_schema(
    arguments: BuildArguments, columns: Mapping[readers.InputFile, list[str]]
) -> Schema:
    """The schema that --schema names, that of a published log, or one inferred from the columns.

    Args:
        arguments: Arguments of the build.
        columns: Columns of each file of the log that has rows.

    Raises:
        UserError: The schema does not fit the arguments or the columns of a file.
    """
    adapter = arguments.adapter
    if arguments.base is not None:
        schema = _schema_of_base(arguments)
    elif arguments.schema is not None:
        schema = Schema.load(arguments.schema)
    elif adapter is not None:
        schema = _said(adapter.schema(arguments.behaviours), f"Schema of {arguments.dataset}")
    else:
        _check_same_columns(columns)
        schema = _said(_inferred(arguments, columns), "Inferred schema")
    _check_impression_log(arguments, schema)
    _check_expiry(arguments, schema)
    if schema.timestamp is None and arguments.protocol in BY_TIME:
        raise UserError(
            f"--protocol={arguments.protocol}: expected a feature of role 'timestamp', found none.",
            "use --protocol=leave_last_out, which needs the order of rows only.",
        )
    is_inferred_position = (
        arguments.schema is None
        and schema.timestamp is not None
        and schema.timestamp.column == POSITION
    )
    if is_inferred_position and arguments.protocol in BY_TIME:
        raise UserError(
            f"--protocol={arguments.protocol}: expected times that users share, found {POSITION}, "
            "which orders the events of each user only.",
            "use --protocol=leave_last_out.",
        )
    if is_inferred_position and arguments.draws_available:
        raise UserError(
            f"--negative_sampling={arguments.negative_sampling}: expected times that users share, "
            f"found {POSITION}, which orders the events of each user only: no item appears before "
            "another.",
            "use --negative_sampling=uniform or popularity; if the rows are in the order in which "
            "things happened, leave this column out of the log.",
        )
    time = schema.timestamp
    if time is not None and time.dtype not in (DType.INT64, DType.DATETIME):
        raise UserError(
            f"Expected dtype int64 or datetime for the timestamp {time.name!r}, found "
            f"{time.dtype.value}."
        )
    required_columns = columns_of(schema) if adapter is None else adapter.raw_columns
    for file, names in columns.items():
        check_columns(file, names, required_columns)
        _check_types(file, schema, () if adapter is None else adapter.raw_columns)
    if adapter is not None:
        dataset_columns = [*adapter.columns, *filter(None, [adapter.behaviour_column])]
        for column in columns_of(schema):
            if column not in dataset_columns:
                raise UserError(
                    f"{arguments.schema}: expected columns that --dataset={arguments.dataset} has "
                    f"({', '.join(dataset_columns)}), found {column!r}."
                )
    return schema


def _schema_of_base(arguments: BuildArguments) -> Schema:
    """The schema of the base, which one given beside it must equal."""
    schema = DataDir.open(str(arguments.base), verify=False).schema
    if arguments.schema is not None:
        given = Schema.load(arguments.schema)
        if given.hash() != schema.hash():
            raise UserError(
                f"--schema: expected the schema of --base={arguments.base}, found differences: "
                f"{'; '.join(schema.diff(given))}.",
                "leave --schema out, or build from the whole log with the new schema.",
            )
    return schema


def requests_from(arguments: BuildArguments, schema: Schema) -> int | None:
    """The time that --train_from names in units of the log, None without it.

    Raises:
        UserError: It is no time as the log has them.
    """
    text = arguments.train_from
    if text is None:
        return None
    is_datetime = time_units.is_datetime(schema)
    times, _ = (
        as_time(pa.array([text])) if is_datetime else as_number(pa.array([text]), DType.INT64)
    )
    if times.null_count:
        kind = "a date or a time in ISO form" if is_datetime else "an integer like those of the log"
        raise UserError(f"--train_from: expected {kind}, found {text!r}.")
    return int(times[0].as_py())


def _inferred(arguments: BuildArguments, columns: Mapping[readers.InputFile, list[str]]) -> Schema:
    """The schema of a canonical log whose first file has these columns, or a draft for another."""
    file, names = next(iter(columns.items()))
    if flag := file.dialect.other_delimiter(names):
        raise UserError(
            f"Expected the columns user_id and item_id in {file.path}, found only {names[0]!r}.",
            f"name what separates them: {flag}.",
        )
    if not {"user_id", "item_id"} <= set(names):
        return _drafted(arguments, columns)
    index_columns = [name for name in names if column_types.is_row_number(name)]
    if index_columns:
        index_names = ", ".join(repr(shown(name)) for name in index_columns)
        sys.stdout.write(f"Left out, as numbers of rows: {index_names}\n")
    timed_files = [log_file for log_file, header in columns.items() if header.count(TIMESTAMP) == 1]
    feature_columns = [name for name in names if name not in index_columns]
    schema = infer_schema(feature_columns, time_dtype=_time_dtype(timed_files))
    _warn_of_many(arguments, file, schema)
    return schema


def _warn_of_many(arguments: BuildArguments, file: readers.InputFile, schema: Schema) -> None:
    """Says so if rows of a canonical log seem to have several values, which one value each becomes.

    Its schema is never guessed at, so the columns are taken as they are.
    """
    types = readers.column_types(file)
    names = [
        feature.column
        for feature in schema.item_features[1:]
        if column_types.is_text(types.get(feature.column, pa.string()))
    ]
    for batch in readers.first_batch(file, names) if names else ():
        for name in names:
            column = Column.of(name, spelled(batch.columns[name][:_LOOKED_AT]).texts)
            if separator := several.separator_of(column) if column.distinct else None:
                sys.stderr.write(
                    f"{shown(name)}: values such as {_example(column, separator)!r} look like "
                    f"several values separated by {separator}, but become one value each. To take "
                    f"them apart draft a schema with {_draft_command(arguments)}, which says "
                    f'"many" of such columns, and name it with --schema.\n'
                )


def _example(column: Column, separator: str) -> str:
    """The smallest value that a separator cuts."""
    cut = column.values.filter(pc.match_substring(column.values, separator))
    return shown(pc.min(cut).as_py(), _LONGEST_EXAMPLE)


def _draft_command(arguments: BuildArguments) -> str:
    """The command that drafts a schema of the log."""
    command = f"python -m pipeline.infer_schema --input={shlex.quote(arguments.input)}"
    if arguments.csv_delimiter != BuildArguments.csv_delimiter:
        command += f" --csv_delimiter={shlex.quote(arguments.csv_delimiter)}"
    if arguments.kafka_config is not None:
        command += f" --kafka_config={shlex.quote(arguments.kafka_config)}"
    return cli.as_started(f"{command} --output=schema.json")


def _drafted(arguments: BuildArguments, columns: Mapping[readers.InputFile, list[str]]) -> Schema:
    """The schema drafted for a log of other columns, if the data leaves no doubt about it."""
    draft = drafting.draft(sample.read(columns).columns)
    command = _draft_command(arguments)
    if draft.schema is None or not draft.is_certain:
        names = next(iter(columns.values()))
        raise UserError(
            f"Expected the columns user_id and item_id, found {', '.join(names)}.",
            f"draft a schema with {command}, check it, and name it with --schema.",
        )
    sys.stderr.write(
        f"Schema guessed from names and data: {shown(table.summary(draft), _LONGEST_SUMMARY)}. For "
        f"another one draft it with {command}, and name it with --schema.\n"
    )
    return draft.schema


def _time_dtype(files: list[readers.InputFile]) -> DType:
    """DATETIME if the column of times has such a type or begins with an ISO text.

    Args:
        files: Files of the log that have the column of times.
    """
    for file in files:
        column_type = readers.column_types(file).get(TIMESTAMP, pa.string())
        if pa.types.is_temporal(column_type):
            return DType.DATETIME
        if not column_types.is_text(column_type):
            return DType.INT64
        for batch in readers.first_batch(file, [TIMESTAMP]):
            texts, _ = cast(batch.columns[TIMESTAMP], pa.string())
            first = without_missing(texts).drop_null()[:1]
            if len(first):
                return DType.INT64 if as_time(first)[0].null_count else DType.DATETIME
    return DType.INT64


def _check_types(file: readers.InputFile, schema: Schema, raw_columns: Sequence[str]) -> None:
    """Raises `UserError` if a column has a type that is not understood.

    Args:
        file: One file of the log.
        schema: Schema that says what the columns should hold.
        raw_columns: Columns of a published log, which are turned into those of the schema later.
    """
    types = readers.column_types(file)
    for column in raw_columns:
        column_types.check(file.path, types, column, DType.STRING)
    if raw_columns:  # texts, whatever the file has
        for feature in schema.log_features:
            if feature.many is not None:
                column_types.check_many(file.path, "csv", {}, feature)
    else:
        for feature in schema.log_features:
            if feature.many is not None:
                column_types.check_many(file.path, file.format, types, feature)
                continue
            if feature.is_vector:
                column_types.check_vectors(file.path, types, feature)
                continue
            is_time = feature.role is Role.TIMESTAMP
            column_types.check(file.path, types, feature.column, feature.dtype, is_time)
        if schema.history.behaviours is not None:
            column_types.check(file.path, types, schema.history.behaviours.column, DType.STRING)


def _check_same_columns(columns: Mapping[readers.InputFile, list[str]]) -> None:
    """Raises `UserError` if a file has a column that the first lacks: it would not be read."""
    first, names = next(iter(columns.items()))
    for file, header in columns.items():
        extra_columns = [
            name for name in header if name not in names and not column_types.is_row_number(name)
        ]
        if extra_columns:
            raise UserError(
                f"Expected the columns of {first.path} in {file.path}, found also "
                f"{', '.join(map(shown, extra_columns))}.",
                "name a schema file with --schema, or give all files the same columns.",
            )


def _said(schema: Schema, title: str) -> Schema:
    records = "".join(f"  {json.dumps(f.to_json())}\n" for f in schema.features)
    sys.stdout.write(f"{title}:\n{records}")
    return schema


def _check_impression_log(arguments: BuildArguments, schema: Schema) -> None:
    """Raises `UserError` if an impression log lacks a feature or is given a flag it cannot use."""
    if schema.request is not None and not schema.is_impression_log:
        raise UserError(
            "Expected a feature of role 'label' beside one of role 'request', found only "
            f"{schema.request.name!r}.",
            "add the feature of role 'label', or leave this one out of the schema.",
        )
    if not schema.is_impression_log:
        return
    (label,) = schema.with_role(Role.LABEL)
    if label.dtype is DType.STRING:
        raise UserError(
            f"Expected dtype int64 or float32 for the label {label.name!r}, found string."
        )
    if schema.timestamp is None:
        raise UserError(
            "Expected a feature of role 'timestamp' in the schema of an impression log, found "
            "none: a history is what was clicked before a request."
        )
    defaults = {field.name: field.default for field in dataclasses.fields(BuildArguments)}
    for name, why in (
        ("negatives", "the candidates are those that were shown"),
        ("negative_sampling", "the candidates are those that were shown"),
        ("min_item_events", 'a candidate that was shown stays; "min_count" maps rare items to one'),
        ("core_filter", "it needs --min_item_events"),
    ):
        value = getattr(arguments, name)
        if value not in (defaults[name], 0):
            raise UserError(
                f"--{name}={value}: expected no such flag for an impression log: {why}."
            )


def _check_expiry(arguments: BuildArguments, schema: Schema) -> None:
    """Raises `UserError` if days are to be counted in a log that does not say what a day is."""
    time = schema.timestamp
    if arguments.expire_days and (
        time is None or (time.dtype is not DType.DATETIME and time.unit is None)
    ):
        raise UserError(
            "--expire_days: expected times of a known unit, found "
            f"{'none' if time is None else 'int64 without a unit'}.",
            f'name a schema whose timestamp has a "unit" ({", ".join(UNITS)}), from the first day '
            "on.",
        )


def check_columns(file: readers.InputFile, names: list[str], wanted: Sequence[str]) -> None:
    """Raises `UserError` unless a file has every wanted column once."""
    flag = file.dialect.other_delimiter(names)
    for column in wanted:
        if names.count(column) != 1:
            actual = "it twice" if column in names else f"only {', '.join(names)}"
            raise UserError(
                f"Expected the column {column!r} in {file.path}, found {actual}.",
                f"name what separates the columns: {flag}."
                if flag
                else 'name the column in the schema ("column"), or mend the file.',
            )
