"""`--core_filter=fixed_point`: items and users filtered in turns until nothing changes.

The result is the largest part of the log in which every item has `min_item_events` events and
every user `min_user_events`: the k-core, if both are k. It does not depend on the order of the
filters. A round only shrinks the table of kept items, which `pipeline.requests.events` filters by:
a user who fell out in an earlier round has no more events of the items that are kept now.
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job.beam import beam
from pipeline.job.buckets import WriteItems
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.log import tables
from pipeline.requests import counting
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan
from preprocessing.storage.files import AnyPath


def keep_core(plan: Plan, stage: Callable[..., object], partitions: list[int]) -> dict[str, int]:
    """Filters items and users in turns, and writes the table of kept items.

    Args:
        plan: Plan of the build; `every_item` holds the counts of items over the whole log.
        stage: Function that runs a pipeline, see `pipeline.job.runner.run_stage`.
        partitions: Indices of the partitions that have events.

    Returns:
        Numbers of rows that each round takes out: counters `filtered/<rule>/round_<number>`.
    """
    item_counts = counting.read(plan.every_item)
    filtered: dict[str, int] = {}
    for round_number in itertools.count(1):
        is_frequent = pc.greater_equal(item_counts[COUNT], plan.arguments.min_item_events)
        kept_counts = item_counts.filter(is_frequent)
        tables.write(plan.kept_items, kept_counts)
        num_rare_events = _total(item_counts) - _total(kept_counts)
        if round_number > 1 and not num_rare_events:
            return filtered
        watch = plan.work / f"core_{round_number:02d}"
        count = functools.partial(_count_items, plan, partitions, round_number)
        stage(f"Filtering, round {round_number}", count, watch=watch, total=len(partitions))
        item_counts = counting.read(_items_of_round(plan, round_number))
        filtered[f"filtered/min_item_events/round_{round_number:02d}"] = num_rare_events
        filtered[f"filtered/min_user_events/round_{round_number:02d}"] = _total(
            kept_counts
        ) - _total(item_counts)
    raise AssertionError("unreachable")


def _total(item_counts: pa.Table) -> int:
    return int(item_counts[COUNT].to_numpy().sum())


def _items_of_round(plan: Plan, round_number: int) -> AnyPath:
    """Buckets of the items that are left after a round, with their counts."""
    return plan.work / "core_items" / f"{round_number:02d}"


def _count_items(
    plan: Plan, partitions: list[int], round_number: int, pipeline: beam.Pipeline
) -> None:
    """Counts the items of the users who have enough events of kept items."""
    directory = _items_of_round(plan, round_number)
    write_items = WriteItems(directory, counting.merge_counts, VALUE, plan.num_buckets)
    _ = (
        pipeline
        | "Partitions" >> Pieces(partitions)
        | "CountKeptItems" >> CountKeptItems(plan, round_number)
        | "WriteItems" >> write_items
    )


class CountKeptItems(beam.PTransform):
    """Partitions to counts of the items of their users who have enough events of kept items.

    Args:
        plan: Plan of the build, which has the table of kept items.
        round_number: Number of the round.
    """

    def __init__(self, plan: Plan, round_number: int) -> None:
        super().__init__()
        self._plan = plan
        self._round_number = round_number

    def expand(self, partitions: beam.PCollection[int]) -> beam.PCollection[bytes]:
        """Counts the items of each partition, in a table (as bytes)."""
        count = functools.partial(_count_kept, self._plan, self._round_number)
        return partitions | "Count" >> beam.FlatMap(count)


def _count_kept(plan: Plan, round_number: int, partition: int) -> Iterator[bytes]:
    return piece_of_work("filter", plan.work, lambda: _kept_items(plan, round_number, partition))


def _kept_items(plan: Plan, round_number: int, partition: int) -> Iterator[bytes]:
    user_key, item_key = plan.schema.user_key.name, plan.schema.item_key.name
    events = tables.read(plan.partition(partition)).select([user_key, item_key])
    kept_items = tables.read(plan.kept_items)[VALUE]
    events = events.filter(pc.is_in(events[item_key], value_set=kept_items))
    lengths = np.diff(tables.group_starts(tables.one_array(events[user_key])))
    has_enough_E = np.repeat(lengths >= plan.arguments.min_user_events, lengths)
    item_counts = counting.count_values(
        tables.one_array(events[item_key]).filter(pa.array(has_enough_E))
    )
    mark_done(plan.work / f"core_{round_number:02d}", str(partition))
    yield tables.to_bytes(item_counts)
