"""The stages of a build: from the files of a log to a complete data set."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.compute as pc
from tqdm import tqdm

from pipeline.arguments import AVAILABLE_POPULARITY, BuildArguments
from pipeline.datasets import item_history
from pipeline.job import (
    catalogues,
    core_filter,
    keep_tails,
    manifest,
    pipelines,
    ranking,
    time_cutoffs,
    value_statistics,
    vocabularies,
)
from pipeline.job.finished_steps import FinishedSteps, is_complete
from pipeline.job.log_schema import CheckedLog, check_columns, requests_from
from pipeline.job.output import REJECTED, prepare_output, remove_cut_files
from pipeline.job.reading import RejectedFile
from pipeline.job.runner import require_reachable, run_stage
from pipeline.job.worker_errors import explained_stage_errors, left
from pipeline.log import readers, tables
from pipeline.log.input_files import list_inputs
from pipeline.requests import appearances, counting, shard_sizes
from pipeline.requests.base import Base
from pipeline.requests.click_log import ClickLog
from pipeline.requests.events import Plan
from pipeline.requests.impression_log import ImpressionLog
from pipeline.requests.log_kind import AnyLog
from preprocessing import data_dir, splits
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.storage import files
from preprocessing.storage.files import remove_tree

_SHOWN_REASONS = 5
_PARTITION_BYTES = 32 << 20  # of raw log; a worker needs several times as much memory
_SMALL_PARTITION_BYTES = 4 << 20
_FEW_PARTITIONS = 8
_COMPRESSION = 4


def build(log: CheckedLog) -> bool:
    """Builds the data set of a log whose arguments, files and columns are checked.

    Returns:
        Whether there was anything to do: a build that is resumed may be complete.

    Raises:
        UserError: Too many bad rows, nothing left to train on, a full disk.
    """
    kind: AnyLog = (ImpressionLog if log.schema.is_impression_log else ClickLog)(log.schema)
    arguments = kind.settled(log.arguments)
    require_reachable(arguments.beam_options)
    output = arguments.output_path
    plan = _plan(arguments, log)
    steps = FinishedSteps(plan.work)
    with explained_write_errors("--output", output):
        if arguments.resume and is_complete(plan, log.files):
            return False
        is_resumed = arguments.resume and steps.is_begun()
        if is_resumed:
            steps.require_same(plan, log.files)
            remove_cut_files(output)
        else:
            prepare_output(arguments)
    with (
        explained_stage_errors(output),
        explained_write_errors("--output", output, left(output)),
    ):
        if not is_resumed:
            steps.begin(plan, log.files)
        try:
            _build(plan, kind, log, steps)
        except UserError:  # its cause lies in the arguments or the log, so nothing can be resumed
            remove_tree(plan.work)
            raise
        remove_tree(plan.work)
        remove_cut_files(output)  # of workers that died, whose work others did again
        data_dir.finish(output)
    return True


def _plan(arguments: BuildArguments, log: CheckedLog) -> Plan:
    num_partitions = _num_partitions(log.files)
    plan = Plan(
        arguments,
        log.schema,
        arguments.num_partitions or num_partitions,
        num_partitions,
        requests_from=requests_from(arguments, log.schema),
    )
    if arguments.base is None:
        return plan
    base = Base.open(arguments.base)
    return dataclasses.replace(
        plan,
        num_partitions=base.num_tails,
        num_tails=base.num_tails,
        base=base,
        requests_from=base.watermark,
    )


def _num_partitions(files: list[readers.InputFile]) -> int:
    """Number of partitions: small enough for a worker, and enough of them to keep workers busy."""
    compressed = (".gz", ".parquet")
    size = sum(
        file.size * (_COMPRESSION if file.path.endswith(compressed) else 1) for file in files
    )
    small_log_partitions = min(_FEW_PARTITIONS, 1 + size // _SMALL_PARTITION_BYTES)
    return max(small_log_partitions, 1 + size // _PARTITION_BYTES)


def _build(plan: Plan, kind: AnyLog, log: CheckedLog, steps: FinishedSteps) -> None:
    """Does the steps that are not finished; between them the driver decides how to go on."""
    arguments, schema, output = plan.arguments, plan.schema, plan.arguments.output_path
    stage = functools.partial(
        run_stage, beam_options=arguments.beam_options, parallelism=plan.num_partitions
    )
    item_counters = steps.once("read", lambda: _read(plan, kind, stage, log))
    counters = manifest.counters(plan, "ingest")
    _check_rejected(plan, counters)
    partitions = [i for i in range(plan.num_partitions) if plan.partition(i).exists()]
    if not partitions:
        raise UserError(
            f"Expected events in {arguments.input}, found none among {counters['read']} rows.",
            "check history.behaviours in the schema.",
        )
    rounds = steps.once("filter", lambda: _filter_items(plan, stage, partitions))
    if arguments.protocol in splits.BY_TIME:
        found = steps.once("time", lambda: _find_cutoffs(plan, kind, stage, partitions))
        plan = dataclasses.replace(plan, cutoffs=splits.Cutoffs(**found))
    counted = steps.once("fit", lambda: _count(plan, kind, stage, partitions))
    plan = dataclasses.replace(plan, is_scarce=counted["is_scarce"])
    counters |= manifest.counters(plan, "fit") | item_counters
    if rounds:
        for rule in ("min_item_events", "min_user_events"):
            counters.pop(f"filtered/{rule}", None)
        counters |= rounds
    ranked = steps.once("rank", lambda: ranking.rank(plan, kind, stage))
    fitted = vocabularies.fit(plan, kind, ranked)
    plan = _with_shards(plan, counters, fitted)
    vocab_dir = output / data_dir.VOCABULARIES
    counters |= vocabularies.num_expired(fitted)
    numbers = {name: one.numbers for name, one in fitted.items()}

    def write() -> dict[str, int]:
        construct = functools.partial(pipelines.write, plan, kind, vocab_dir, numbers, partitions)
        num_shards = sum(plan.arguments.shards(split) for split in splits.SPLITS)
        stage("Writing", construct, watch=plan.work / "shards", total=num_shards)
        return {}

    steps.once("write", write)
    counters |= manifest.counters(plan, "write")

    def keep() -> dict[str, Any]:
        if (why := keep_tails.missing(plan)) is not None:
            return {"none": why}
        keep_tails.write(plan, kind, stage, partitions)
        return keep_tails.record(plan)

    kept = steps.once("tails", keep)

    schema.save(output / data_dir.SCHEMA)
    value_statistics.derive(plan, kind, stage)
    described = value_statistics.describe(plan, kind, fitted)
    stats = manifest.stats(plan, counters, fitted, described)
    data_dir.write_json(output / data_dir.STATS, stats)
    data_dir.write_json(
        output / data_dir.MANIFEST, manifest.manifest(plan, log.files, counters, kept)
    )


def _with_shards(
    plan: Plan, counters: dict[str, int], fitted: Mapping[str, vocabularies.Fitted]
) -> Plan:
    """The plan with a number of shards: the one that was asked for, or one by size."""
    if plan.arguments.num_shards is not None:
        return plan
    cardinality = {name: one.cardinality for name, one in fitted.items()}
    size = shard_sizes.estimate(plan.schema, counters, cardinality)
    arguments = dataclasses.replace(plan.arguments, num_shards=shard_sizes.num_shards(size))
    return dataclasses.replace(plan, arguments=arguments)


def _read(
    plan: Plan, kind: AnyLog, stage: Callable[..., object], log: CheckedLog
) -> dict[str, int]:
    """Reads the log, and the files that describe items; returns the counters of the latter."""
    item_counters = _read_items(plan)
    parts = [part for file in log.columns for part in readers.ranges(file)]
    num_blocks = sum(readers.num_blocks(part) for part in parts)
    ingest = functools.partial(pipelines.ingest, plan, kind, parts)
    stage("Reading", ingest, watch=plan.work / "read", total=num_blocks)
    return item_counters


def _read_items(plan: Plan) -> dict[str, int]:
    """Reads the files that describe the items of a published log; returns their counters."""
    arguments, adapter = plan.arguments, plan.arguments.adapter
    if adapter is None or arguments.metadata is None:
        return {}
    files = list_inputs(arguments.metadata, "--metadata")
    if adapter.item_columns:
        columns = readers.columns_of_files(files)
        for file, names in columns.items():
            check_columns(file, names, adapter.item_columns)
        files = list(columns)
    batches = tqdm(
        adapter.read_items(files),
        desc="Reading items",
        unit=" blocks",
        total=sum(readers.num_blocks(part) for file in files for part in readers.ranges(file)),
        leave=False,
        disable=None,
    )
    with RejectedFile(arguments.output_path / REJECTED / "metadata.jsonl") as rejected:
        snapshots, counters = item_history.collect(batches, lambda r: rejected.write(r._asdict()))
    _check_rejected(plan, counters)
    if not counters.get("read"):
        raise UserError(f"--metadata: expected items in {arguments.metadata}, found none.")
    tables.write(plan.item_history, snapshots)
    return {f"metadata/{name}": count for name, count in counters.items()}


def _check_rejected(plan: Plan, counters: dict[str, int]) -> None:
    rejected = manifest.by_prefix(counters, "rejected/")
    count, read = sum(rejected.values()), counters.get("read", 0)
    if count > plan.arguments.max_bad_fraction * read:
        reasons = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
        shown_reasons = "; ".join(
            f"{number} x {reason}" for reason, number in reasons[:_SHOWN_REASONS]
        )
        raise UserError(
            f"Expected at most {plan.arguments.max_bad_fraction:.2%} bad rows, found {count} of "
            f"{read} ({shown_reasons}{'; ...' if len(reasons) > _SHOWN_REASONS else ''}).",
            f"see {plan.arguments.output_path / 'rejected'}; mend the log or raise "
            "--max_bad_fraction.",
        )


def _filter_items(
    plan: Plan, stage: Callable[..., object], partitions: list[int]
) -> dict[str, int]:
    """Writes the table of the items that are kept; returns the counters of the rounds it took."""
    arguments = plan.arguments
    if arguments.min_item_events > 1 and arguments.core_filter == "fixed_point":
        return core_filter.keep_core(plan, stage, partitions)
    if arguments.min_item_events > 1:
        buckets = map(tables.read, files.children(plan.every_item, "*.arrow"))
        is_frequent = pc.greater_equal(pc.field(counting.COUNT), arguments.min_item_events)
        tables.write_pieces(plan.kept_items, (items.filter(is_frequent) for items in buckets))
    return {}


def _find_cutoffs(
    plan: Plan, kind: AnyLog, stage: Callable[..., object], partitions: list[int]
) -> dict[str, int]:
    """Counts times; returns the cut-offs that follow, by name."""
    return dataclasses.asdict(time_cutoffs.find(plan, kind, stage, partitions))


def _count(
    plan: Plan, kind: AnyLog, stage: Callable[..., object], partitions: list[int]
) -> dict[str, bool]:
    """Counts values and items over the training data; returns whether the `Plan` is scarce.

    Requests that cannot get their negatives are left out. Other requests then cannot draw items
    that only those contain, and may lack negatives too, so counting is repeated until nothing
    changes. This is hardly ever needed more than once, and only if a user has nearly as many events
    as there are items, or if requests draw from items that had appeared by then, of which the first
    requests of a log have none.

    Raises:
        UserError: Nothing is left to train on.
    """
    arguments = plan.arguments
    drawn_from: list[catalogues.Catalogue] = []
    while True:
        # Of a count that is repeated, or was cut off; catalogues are what the next one draws from.
        for stale in ("values", "seen", "items", "candidates"):
            remove_tree(plan.work / stale)
        fit = functools.partial(pipelines.fit, plan, kind, partitions)
        stage("Counting values", fit, watch=plan.work / "fit", total=len(partitions))
        counters = manifest.counters(plan, "fit")
        if not counters["train/requests"]:
            filtered = f"rows filtered: {manifest.by_prefix(counters, 'filtered/')}"
            raise kind.nothing_to_train_on(arguments, counters, filtered)
        previous, drawn_from = drawn_from, catalogues.write(plan, stage)
        longest = max(map(int, manifest.by_prefix(counters, "longest/")))
        fewest = 0 if arguments.draws_available else min(items.num_items for items in drawn_from)
        has_enough = longest + arguments.negatives <= fewest
        if drawn_from == previous or (not previous and has_enough):
            break
        plan = dataclasses.replace(plan, is_scarce=True)
    if arguments.negative_sampling == AVAILABLE_POPULARITY:
        appearances.merge_runs(plan, partitions)
    return {"is_scarce": plan.is_scarce}
