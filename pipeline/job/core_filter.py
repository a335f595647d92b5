"""`--core_filter=fixed_point`: items and users filtered in turns until nothing changes.

What is left is the largest part of the log in which every item has `min_item_events` events and
every user `min_user_events`: the k-core, if both are k. It does not depend on the order of the
filters. A round only shrinks the table of kept items, which `pipeline.requests.events` filters by:
a user who fell out in an earlier round has no more events of the items that are kept now.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.beam import beam
from pipeline.job.runner import mark_done
from pipeline.log import tables
from pipeline.requests import counting
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.events import Plan


def keep_core(plan: Plan, stage: Callable[..., object], partitions: list[int]) -> dict[str, int]:
    """Writes the table of kept items.

    Args:
        plan: With the counts of items over the whole log in `items.arrow`.
        stage: Runs a pipeline, see `pipeline.job.runner.run_stage`.
        partitions: Those that have events.

    Returns:
        Rows that each round takes out: counters `filtered/<rule>/round_<number>`.
    """
    counted = tables.read(plan.work / "items.arrow")
    filtered: dict[str, int] = {}
    for number in itertools.count(1):
        enough = pc.greater_equal(counted[COUNT], plan.arguments.min_item_events)
        kept = counted.filter(enough)
        tables.write(plan.kept_items, kept)
        rare = _total(counted) - _total(kept)
        if number > 1 and not rare:
            return filtered
        watch = plan.work / f"core_{number:02d}"
        count = functools.partial(_count_items, plan, partitions, number)
        stage(f"Filtering, round {number}", count, watch=watch, total=len(partitions))
        counted = tables.read(plan.work / "core.arrow")
        filtered[f"filtered/min_item_events/round_{number:02d}"] = rare
        filtered[f"filtered/min_user_events/round_{number:02d}"] = _total(kept) - _total(counted)
    raise AssertionError("unreachable")


def _total(counted: pa.Table) -> int:
    return int(counted[COUNT].to_numpy().sum())


def _count_items(plan: Plan, partitions: list[int], number: int, pipeline: beam.Pipeline) -> None:
    """Items of the users who have enough events of kept items: `core.arrow`."""
    user_key, item_key = plan.schema.user_key.name, plan.schema.item_key.name

    def count(partition: int) -> bytes:
        events = tables.read(plan.partition(partition)).select([user_key, item_key])
        known = tables.read(plan.kept_items)[VALUE]
        events = events.filter(pc.is_in(events[item_key], value_set=known))
        lengths = np.diff(tables.group_starts(tables.one_array(events[user_key])))
        enough = np.repeat(lengths >= plan.arguments.min_user_events, lengths)
        counted = counting.count_values(tables.one_array(events[item_key]).filter(pa.array(enough)))
        mark_done(plan.work / f"core_{number:02d}", str(partition))
        return tables.to_bytes(counted)

    (
        pipeline
        | "Partitions" >> beam.Create(partitions, reshuffle=True)
        | "Count" >> beam.Map(count).with_output_types(bytes)
        | "Merge"
        >> beam.CombineGlobally(counting.MergeTables(counting.merge_counts)).without_defaults()
        | "Write" >> beam.Map(_write, plan)
    )


def _write(data: bytes, plan: Plan) -> None:
    tables.write(plan.work / "core.arrow", tables.from_bytes(data))
