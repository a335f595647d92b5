"""The schema of a build: loaded, given by a published log or inferred, and checked."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from pipeline import readers
from pipeline.arguments import BuildArguments
from pipeline.validation import columns_of
from preprocessing.errors import UserError
from preprocessing.schema import POSITION, DType, Role, Schema, infer_schema


def load_schema(arguments: BuildArguments, files: list[readers.InputFile]) -> Schema:
    """The schema that --schema names, that of a published log, or one inferred from the columns.

    Args:
        arguments: Of the build.
        files: The log.

    Raises:
        UserError: The schema does not fit the arguments or the columns of a file.
    """
    columns = [readers.column_names(file) for file in files]
    adapter = arguments.adapter
    if arguments.schema is not None:
        schema = Schema.load(arguments.schema)
    elif adapter is not None:
        schema = _said(adapter.schema(arguments.behaviours), f"Schema of {arguments.dataset}")
    else:
        _check_same_columns(files, columns)
        schema = _said(infer_schema(columns[0]), "Inferred schema")
    _check_impression_log(arguments, schema)
    if schema.timestamp is None and arguments.protocol == "time_split":
        raise UserError(
            "--protocol=time_split: expected a feature of role 'timestamp', found none.",
            "use --protocol=leave_last_out, which needs the order of rows only.",
        )
    is_inferred_position = arguments.schema is None and POSITION in columns[0]
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
    for file, names in zip(files, columns, strict=True):
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


def _check_same_columns(files: list[readers.InputFile], columns: list[list[str]]) -> None:
    """Raises `UserError` where a file has a column that the first lacks: nobody would read it."""
    for file, names in zip(files, columns, strict=True):
        more = [name for name in names if name not in columns[0]]
        if more:
            raise UserError(
                f"Expected the columns of {files[0].path} in {file.path}, found also "
                f"{', '.join(more)}.",
                "name a schema file with --schema, or give all files the same columns.",
            )


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
    for column in wanted:
        if names.count(column) != 1:
            found = "it twice" if column in names else f"only {', '.join(names)}"
            raise UserError(
                f"Expected the column {column!r} in {file.path}, found {found}.",
                'name the column in the schema ("column"), or mend the file.',
            )
