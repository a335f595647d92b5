"""The schema of a build: loaded, given by a published log or inferred, and checked."""

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence

from pipeline import readers
from pipeline.arguments import BuildArguments
from pipeline.validation import columns_of
from preprocessing.errors import UserError, shown
from preprocessing.schema import POSITION, DType, Role, Schema, infer_schema

_ROW_NUMBERS = re.compile(r"(Unnamed: \d+(\.\d+)*|__index_level_\d+__)?")
"""Names of columns that pandas and R write for the index of a table."""


def load_schema(
    arguments: BuildArguments, columns: Mapping[readers.InputFile, list[str]]
) -> Schema:
    """The schema that --schema names, that of a published log, or one inferred from the columns.

    Args:
        arguments: Of the build.
        columns: Columns of each file of the log that has rows.

    Raises:
        UserError: The schema does not fit the arguments or the columns of a file.
    """
    adapter = arguments.adapter
    if arguments.schema is not None:
        schema = Schema.load(arguments.schema)
    elif adapter is not None:
        schema = _said(adapter.schema(arguments.behaviours), f"Schema of {arguments.dataset}")
    else:
        schema = _said(_inferred(*next(iter(columns.items()))), "Inferred schema")
    _check_impression_log(arguments, schema)
    if schema.timestamp is None and arguments.protocol == "time_split":
        raise UserError(
            "--protocol=time_split: expected a feature of role 'timestamp', found none.",
            "use --protocol=leave_last_out, which needs the order of rows only.",
        )
    is_inferred_position = arguments.schema is None and POSITION in next(iter(columns.values()))
    if is_inferred_position and arguments.protocol == "time_split":
        raise UserError(
            f"--protocol=time_split: expected times that users share, found {POSITION}, which "
            "orders the events of each user only.",
            "use --protocol=leave_last_out.",
        )
    if schema.timestamp is not None and schema.timestamp.dtype is not DType.INT64:
        raise UserError(
            f"Expected dtype int64 for the timestamp {schema.timestamp.name!r}, found "
            f"{schema.timestamp.dtype.value}."
        )
    wanted = columns_of(schema) if adapter is None else adapter.raw_columns
    for file, names in columns.items():
        check_columns(file, names, wanted)
    if adapter is not None:
        given = [*adapter.columns, *filter(None, [adapter.behaviour_column])]
        for column in columns_of(schema):
            if column not in given:
                raise UserError(
                    f"{arguments.schema}: expected columns that --dataset={arguments.dataset} has "
                    f"({', '.join(given)}), found {column!r}."
                )
    return schema


def _inferred(file: readers.InputFile, names: list[str]) -> Schema:
    """The schema of a canonical log with these columns in its first file."""
    if flag := file.dialect.other_delimiter(names):
        raise UserError(
            f"Expected the columns user_id and item_id in {file.path}, found only {names[0]!r}.",
            f"name what separates them: {flag}.",
        )
    indices = [name for name in names if _ROW_NUMBERS.fullmatch(name)]
    if indices:
        sys.stdout.write(
            f"Left out, as numbers of rows: {', '.join(repr(shown(name)) for name in indices)}\n"
        )
    return infer_schema([name for name in names if name not in indices])


def _said(schema: Schema, title: str) -> Schema:
    records = "".join(f"  {json.dumps(f.to_json())}\n" for f in schema.features)
    sys.stdout.write(f"{title}:\n{records}")
    return schema


def _check_impression_log(arguments: BuildArguments, schema: Schema) -> None:
    """Refuses a schema with half of what an impression log needs, and flags it has no use for."""
    roles = (Role.REQUEST, Role.LABEL)
    given = schema.with_role(*roles)
    if not given:
        return
    if len(given) < len(roles):
        missing = next(role.value for role in roles if role is not given[0].role)
        raise UserError(
            f"Expected features of both roles 'request' and 'label' (an impression log) or of "
            f"neither (a log of clicks), found {given[0].name!r} of role {given[0].role.value!r}.",
            f"add the feature of role {missing!r}, or leave this one out.",
        )
    for feature in given:
        if feature.role is Role.LABEL and feature.dtype is DType.STRING:
            raise UserError(
                f"Expected dtype int64 or float32 for the label {feature.name!r}, found string."
            )
    if schema.timestamp is None:
        raise UserError(
            "Expected a feature of role 'timestamp' in the schema of an impression log, found "
            "none: a history is what was clicked before a request."
        )
    default = {field.name: field.default for field in dataclasses.fields(BuildArguments)}
    for name, why in (
        ("negatives", "the candidates are those that were shown"),
        ("negative_sampling", "the candidates are those that were shown"),
        ("min_item_events", 'a candidate that was shown stays; "min_count" maps rare items to one'),
        ("core_filter", "it needs --min_item_events"),
    ):
        value = getattr(arguments, name)
        if value not in (default[name], 0):
            raise UserError(
                f"--{name}={value}: expected no such flag for an impression log: {why}."
            )


def check_columns(file: readers.InputFile, names: list[str], wanted: Sequence[str]) -> None:
    """Raises `UserError` unless a file has every wanted column once."""
    flag = file.dialect.other_delimiter(names)
    for column in wanted:
        if names.count(column) != 1:
            found = "it twice" if column in names else f"only {', '.join(names)}"
            raise UserError(
                f"Expected the column {column!r} in {file.path}, found {found}.",
                f"name what separates the columns: {flag}."
                if flag
                else 'name the column in the schema ("column"), or mend the file.',
            )
