"""Turns raw logs into a data set of sequence examples.

    python -m pipeline.build_examples --input='logs/*.parquet' --output=DATA
        [--schema=schema.json] [--protocol=leave_last_out|time_split] [--negatives=1] ...

Logs are CSV, JSON lines (both also .gz) or Parquet, one row per event. Without --schema the log
needs the columns user_id and item_id; its order is timestamp, or position (the place of an event
among those of its user), or else the order of rows; every further column describes the item. The
schema is then printed and written.

Bad rows go to DATA/rejected with file, line and reason; more than --max_bad_fraction of them fail
the build. The same log and the same flags give byte-identical shards for any number of workers.
Flags that are not listed below go to Beam, for example --runner=FlinkRunner or
--direct_num_workers=4 --direct_running_mode=multi_threading.
"""

import dataclasses
import functools
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from absl import flags
from tqdm import tqdm

from pipeline import counting, describe, jobs, readers, tables
from pipeline.arguments import NEGATIVE_SAMPLING, TRAIN_PREFIXES, BuildArguments
from pipeline.events import Plan
from pipeline.runner import check_options, run_stage
from pipeline.validation import columns_of
from preprocessing import cli, data_dir, encoders, splits
from preprocessing.data_dir import DataDir
from preprocessing.encoders import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.schema import POSITION, DType, Hash, Role, Schema, infer_schema

_PARTITION_BYTES = 32 << 20
_FILE = r"(train|validation|test)-\d+-of-\d+\.tfrecord\.gz|(schema|manifest|stats)\.json"
_OURS = re.compile(rf"_work|rejected|vocab|{_FILE}|\.({_FILE})\.\d+\.tmp")


def build_examples(arguments: BuildArguments) -> DataDir:
    """Builds a data set.

    Args:
        arguments: What to build from what.

    Returns:
        The data set, opened.

    Raises:
        UserError: Wrong arguments, an unreadable log, too many bad rows, nothing left to train on.
    """
    start = time.perf_counter()
    arguments.check()
    files = readers.list_inputs(arguments.input)
    schema = _load_schema(arguments, files)
    _prepare_output(arguments)
    num_partitions = 1 + sum(file.size for file in files) // _PARTITION_BYTES
    plan = Plan(arguments, schema, arguments.num_partitions or num_partitions)
    try:
        _build(plan, [part for file in files for part in readers.ranges(file)])
    finally:
        shutil.rmtree(plan.work, ignore_errors=True)
    data = DataDir.open(arguments.output_path, verify=False)
    tqdm.write(describe.summary(data, time.perf_counter() - start), file=sys.stderr)
    return data


def _build(plan: Plan, parts: list[readers.InputRange]) -> None:
    """The stages in order; between them the driver decides how to go on."""
    arguments, schema, output = plan.arguments, plan.schema, plan.arguments.output_path
    stage = functools.partial(run_stage, beam_options=arguments.beam_options)
    num_blocks = sum(readers.num_blocks(part) for part in parts)
    ingest = functools.partial(jobs.ingest, plan, parts)
    stage("Reading", ingest, watch=plan.work / "read", total=num_blocks)
    counters = describe.counters(plan, "ingest")
    _check_rejected(plan, counters)
    partitions = [i for i in range(plan.num_partitions) if plan.partition(i).exists()]
    if not partitions:
        raise UserError(
            f"Expected events in {arguments.input}, found none among {counters['read']} rows.",
            "check history.behaviours in the schema.",
        )
    if arguments.min_item_events > 1:
        items = tables.read(plan.work / "items.arrow")
        enough = pc.greater_equal(items[counting.COUNT], arguments.min_item_events)
        tables.write(plan.kept_items, items.filter(enough))

    if arguments.protocol == "time_split":
        count = functools.partial(jobs.count_times, plan, partitions)
        stage("Counting times", count, watch=plan.work / "time", total=len(partitions))
        plan = dataclasses.replace(plan, cutoffs=_cutoffs(plan))

    plan = _count(plan, stage, partitions)
    counters |= describe.counters(plan, "fit")
    fitted = _fit_encoders(plan)
    vocab_dir = output / data_dir.VOCABULARIES
    vocab_dir.mkdir(exist_ok=True)
    for encoder in fitted.values():
        encoders.save_vocabulary(encoder, vocab_dir)
    numbers = {name: encoder.numbers() for name, encoder in fitted.items()}

    write = functools.partial(jobs.write, plan, vocab_dir, numbers, partitions)
    num_shards = sum(arguments.shards(split) for split in splits.SPLITS)
    stage("Writing", write, watch=plan.work / "shards", total=num_shards)
    counters |= describe.counters(plan, "write")

    schema.save(output / data_dir.SCHEMA)
    data_dir.write_json(output / data_dir.STATS, describe.stats(plan, counters, fitted))
    data_dir.write_json(output / data_dir.MANIFEST, describe.manifest(plan, counters))
    data_dir.finish(output)


def _load_schema(arguments: BuildArguments, files: list[readers.InputFile]) -> Schema:
    """The schema, checked against the columns of every file."""
    columns = [readers.column_names(file) for file in files]
    if arguments.schema is not None:
        schema = Schema.load(arguments.schema)
    else:
        schema = infer_schema(columns[0])
        records = "".join(f"  {json.dumps(f.to_json())}\n" for f in schema.features)
        sys.stdout.write(f"Inferred schema:\n{records}")
    for role in (Role.REQUEST, Role.LABEL):
        for feature in schema.with_role(role):
            raise UserError(
                f"Expected a log of positive events, found the feature {feature.name!r} of role "
                f"{role.value!r} in the schema.",
                "leave it out: candidates other than the positive are sampled (--negatives).",
            )
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
    for file, names in zip(files, columns, strict=True):
        for column in columns_of(schema):
            if names.count(column) != 1:
                found = "it twice" if column in names else f"only {', '.join(names)}"
                raise UserError(
                    f"Expected the column {column!r} in {file.path}, found {found}.",
                    'name the column in the schema ("column"), or mend the file.',
                )
    return schema


def _prepare_output(arguments: BuildArguments) -> None:
    """Makes an empty output directory; what an earlier build left is removed, nothing else."""
    data_dir.require_local(arguments.output, "--output")
    output = arguments.output_path
    if output.is_file():
        raise UserError(f"--output: expected a directory, found a file at {output}.")
    output.mkdir(parents=True, exist_ok=True)
    completed = output / data_dir.COMPLETED
    if completed.exists() and not arguments.overwrite:
        raise UserError(
            f"--output: expected no data set in {output}, found a complete one.",
            "choose another directory, or replace it with --overwrite.",
        )
    entries = [path for path in output.iterdir() if path != completed]
    for path in entries:
        if not _OURS.fullmatch(path.name):
            raise UserError(
                f"--output: expected an empty directory or a data set, found {path}.",
                "choose another directory.",
            )
    completed.unlink(missing_ok=True)
    for path in entries:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_rejected(plan: Plan, counters: dict[str, int]) -> None:
    rejected = describe.by_prefix(counters, "rejected/")
    count, read = sum(rejected.values()), counters.get("read", 0)
    if count > plan.arguments.max_bad_fraction * read:
        reason = max(rejected, key=rejected.__getitem__)
        raise UserError(
            f"Expected at most {plan.arguments.max_bad_fraction:.2%} bad rows, found {count} of "
            f"{read}, most often ({rejected[reason]}) {reason}.",
            f"see {plan.arguments.output_path / 'rejected'}; mend the log or raise "
            "--max_bad_fraction.",
        )


def _cutoffs(plan: Plan) -> splits.Cutoffs:
    times = tables.read(plan.work / "times.arrow")
    if not times.num_rows:
        raise UserError("Expected events after filtering, found none.", "filter less.")
    return splits.fit_cutoffs(
        times[counting.VALUE].to_numpy(),
        times[counting.COUNT].to_numpy(),
        plan.arguments.split_fraction,
        plan.arguments.validation_fraction,
    )


def _count(plan: Plan, stage: Callable[..., object], partitions: list[int]) -> Plan:
    """Counts values and items over the training data; returns the plan of the requests to write.

    Requests that cannot get their negatives are left out. Items that only they contain are then not
    drawn by others either, which may need them, so that counting is repeated until nothing changes:
    hardly ever more than once, and only if a user has nearly as many events as there are items.

    Raises:
        UserError: Nothing is left to train on.
    """
    arguments = plan.arguments
    sizes: list[int] = []
    while True:
        fit = functools.partial(jobs.fit, plan, partitions)
        stage("Counting values", fit, watch=plan.work / "fit", total=len(partitions))
        counters = describe.counters(plan, "fit")
        if not counters["train/positives"]:
            raise UserError(
                f"Expected users with enough events for --protocol={arguments.protocol} who leave "
                f"--negatives={arguments.negatives} items of the training data untouched, found "
                f"none (rows filtered: {describe.by_prefix(counters, 'filtered/')}).",
                "lower --min_user_events, --min_item_events, --min_history or --negatives, or "
                "give a longer log.",
            )
        before, sizes = sizes, _write_catalogues(plan)
        longest = max(map(int, describe.by_prefix(counters, "longest/")))
        if sizes == before or (not before and longest + arguments.negatives <= min(sizes)):
            return plan
        plan = dataclasses.replace(plan, is_scarce=True)


def _fit_encoders(plan: Plan) -> dict[str, FittedEncoder]:
    fitted = {}
    trained = tables.read(plan.catalogue(splits.SPLITS[splits.TRAIN]))
    for feature in plan.schema.encoded_features:
        counted = tables.read(plan.work / "values" / f"{feature.name}.arrow")
        if feature in plan.schema.item_features and not isinstance(feature.encoder, Hash):
            candidates = counting.candidate_values(trained, feature.name)
            counted = counting.merge_counts(pa.concat_tables([counted, candidates]))
        values = tables.one_array(counted[counting.VALUE])
        fitted[feature.name] = encoders.fit(feature, values, counted[counting.COUNT].to_numpy())
    return fitted


def _write_catalogues(plan: Plan) -> list[int]:
    """Writes the items that each split draws from; returns how many."""
    sizes = []
    items = tables.read(plan.work / "items.arrow")
    for split, name in enumerate(splits.SPLITS):
        rows = counting.catalogue(items, plan.schema.item_key.name, split)
        tables.write(plan.catalogue(name), rows)
        sizes.append(rows.num_rows)
    return sizes


def define_log_flags() -> None:
    """Defines the flags that say what to build from what, all but --output."""
    default: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(BuildArguments)}

    def text(name: str, meaning: str) -> None:
        flags.DEFINE_string(name, None, meaning)

    def integer(name: str, meaning: str) -> None:
        flags.DEFINE_integer(name, default[name], meaning)

    def number(name: str, meaning: str) -> None:
        flags.DEFINE_float(name, default[name], meaning)

    def choice(name: str, choices: tuple[str, ...], meaning: str) -> None:
        flags.DEFINE_enum(name, default[name], choices, meaning)

    text("input", "Log files: paths and glob patterns, separated by commas.")
    text("schema", "schema.json; inferred for a canonical log if left out.")
    choice("protocol", splits.PROTOCOLS, "How events are split into train, validation and test.")
    number("split_fraction", "time_split: share of the rows in train and validation.")
    number("validation_fraction", "time_split: share of those rows in validation.")
    choice("train_prefixes", TRAIN_PREFIXES, "leave_last_out: train positives per user.")
    integer("min_history", "Events that must precede a positive.")
    integer("min_user_events", "Filter users with fewer events.")
    integer("min_item_events", "Filter events of items with fewer events.")
    integer("negatives", "Sampled candidates per request.")
    choice("negative_sampling", NEGATIVE_SAMPLING, "Weights of sampled candidates.")
    integer("seed", "Seed of negatives and candidate order.")
    integer("num_shards", "Files of train; validation and test get a quarter of it.")
    integer("max_user_events", "Keep this many most recent events of a user.")
    number("max_bad_fraction", "Share of bad rows above which the build fails.")
    flags.DEFINE_bool("overwrite", False, "Replace a complete data set in --output.")
    flags.DEFINE_multi_string("beam_options", [], "Filled with the flags that go to Beam.")
    flags.mark_flag_as_required("input")


def arguments_from_flags(output: str) -> BuildArguments:
    """What the flags of `define_log_flags` say.

    Args:
        output: The data directory to write.

    Raises:
        UserError: A flag that neither this command nor Beam knows.
    """
    values: dict[str, Any] = {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(BuildArguments)
        if field.name in flags.FLAGS
    }
    check_options(values["beam_options"], list(flags.FLAGS))
    values["beam_options"] = tuple(values["beam_options"])
    return BuildArguments(**{**values, "output": output})


def define_flags() -> None:
    """Defines the flags of this command."""
    define_log_flags()
    flags.DEFINE_string("output", None, "Data directory to write.", required=True)


def main() -> None:
    """Builds a data set as the flags say."""
    build_examples(arguments_from_flags(flags.FLAGS.output))


def console_main() -> None:
    """Entry point of `ctr-build-examples`."""
    define_flags()
    cli.run(main, __doc__, rest="beam_options")


if __name__ == "__main__":
    console_main()
