"""The cut-offs of protocols by time, from counts of times that stay small for any log.

Times are counted in bins (`pipeline.requests.time_bins`) while the log is read, or in a pass of
their own if it takes the whole log to tell which rows are kept. If bins are single times, as they
are for up to a million distinct ones, the cut-offs follow; else the one or two bins that the
cut-offs lie in are counted again, until they are found exactly.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipeline.job.beam import beam
from pipeline.job.merging import WriteMergedByName
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.log import tables
from pipeline.requests import time_bins
from pipeline.requests.events import Plan
from pipeline.requests.log_kind import AnyLog
from pipeline.requests.time_bins import Bins
from preprocessing import splits, time_units
from preprocessing.errors import UserError
from preprocessing.storage.files import AnyPath

Range = tuple[int, int]
"""First and last time of a range."""

ALL_TIMES: Range = (-(1 << 63), (1 << 63) - 1)


def are_counted_in_reading(plan: Plan) -> bool:
    """Whether reading counts the times: they are wanted, and a partition alone tells its rows."""
    return plan.arguments.protocol in splits.BY_TIME and plan.arguments.min_item_events <= 1


def find(
    plan: Plan, kind: AnyLog, stage: Callable[..., object], partitions: list[int]
) -> splits.Cutoffs:
    """Finds the cut-offs of a log, counting its times as far as reading has not done it.

    Args:
        plan: Plan of a build that has read and filtered its log.
        kind: Kind of the log, which says what the time of a row is.
        stage: Function that runs a pipeline, see `pipeline.job.runner.run_stage`.
        partitions: Indices of the partitions that have events.

    Raises:
        UserError: There are no events, or a part would be empty because too many share a time.
    """
    numbers = itertools.count(1)

    def count(ranges: Sequence[Range]) -> list[Bins]:
        number = next(numbers)
        title = "Counting times" if number == 1 else f"Counting times, pass {number}"
        construct = functools.partial(_count, plan, kind, ranges, number, partitions)
        stage(title, construct, watch=plan.work / f"time_{number}", total=len(partitions))
        return [Bins.of(tables.read(_file(plan, number, str(n)))) for n in range(len(ranges))]

    bins = Bins.of(tables.read(file_of_reading(plan))) if are_counted_in_reading(plan) else None
    if bins is None:
        (bins,) = count([ALL_TIMES])
    if not bins.num_rows:
        raise UserError("Expected events after filtering, found none.", "filter less.")
    arguments = plan.arguments
    is_day = arguments.protocol == "day"
    fractions = (1.0 if is_day else arguments.split_fraction, arguments.validation_fraction)
    while unknown := (cuts := time_bins.cut(bins, *fractions)).unknown:
        finer = count([(int(bins.first[place]), int(bins.last[place])) for place in unknown])
        for place, counted in sorted(zip(unknown, finer, strict=True), reverse=True):
            bins = bins.refined(place, counted)
    if not is_day and not (cuts.train_end < cuts.validation_end and cuts.num_later):
        shown = functools.partial(time_units.text, plan.schema)
        raise UserError(
            "time_split: expected distinct times for train, validation and test, found the cuts "
            f"at {shown(cuts.train_end)} and {shown(cuts.validation_end)}, with {cuts.num_later} "
            f"of {bins.num_rows} rows after both.",
            "change --split_fraction or --validation_fraction, or use --protocol=leave_last_out.",
        )
    return splits.Cutoffs(cuts.train_end, cuts.validation_end)


def file_of_reading(plan: Plan) -> AnyPath:
    """File with the merged count of all times that reading has counted."""
    return plan.work / "times" / "read.arrow"


def _file(plan: Plan, number: int, name: str) -> AnyPath:
    """File with the merged count of a range in a pass."""
    return plan.work / "times" / f"{number}.{name}.arrow"


def _count(
    plan: Plan,
    kind: AnyLog,
    ranges: Sequence[Range],
    number: int,
    partitions: list[int],
    pipeline: beam.Pipeline,
) -> None:
    """Counts the times in some ranges: `times/<number>.<place of the range>.arrow`."""
    path_of = functools.partial(_file, plan, number)
    _ = (
        pipeline
        | "Partitions" >> Pieces(partitions)
        | "CountTimes" >> CountTimes(plan, kind, ranges, plan.work / f"time_{number}")
        | "WriteTimes" >> WriteMergedByName(path_of, time_bins.merge)
    )


class CountTimes(beam.PTransform):
    """Partitions to counts of their rows' times in ranges: (place of the range, count as bytes).

    Args:
        plan: Arguments and schema.
        kind: Kind of the log, which says what the time of a row is.
        ranges: Ranges of times, each of which is counted by itself.
        watch: Directory that gets a file for each partition that is counted.
    """

    def __init__(self, plan: Plan, kind: AnyLog, ranges: Sequence[Range], watch: AnyPath) -> None:
        super().__init__()
        self._count = functools.partial(_count_times, plan, kind, ranges, watch)

    def expand(self, partitions: beam.PCollection[int]) -> beam.PCollection[tuple[str, bytes]]:
        """Counts the times of each partition."""
        return partitions | "Count" >> beam.FlatMap(self._count)


def _count_times(
    plan: Plan, kind: AnyLog, ranges: Sequence[Range], watch: AnyPath, partition: int
) -> Iterator[tuple[str, bytes]]:
    def count() -> Iterator[tuple[str, bytes]]:
        times_E = _times(plan, kind, partition)
        for place, (first, last) in enumerate(ranges):
            in_range_E = times_E
            if (first, last) != ALL_TIMES:
                in_range_E = times_E[(times_E >= first) & (times_E <= last)]
            yield str(place), tables.to_bytes(time_bins.count(in_range_E))
        mark_done(watch, str(partition))

    return piece_of_work("count_times", plan.work, count)


def counted(plan: Plan, kind: AnyLog, partition: int) -> bytes:
    """The count of all times of a partition that is sorted, as an element of a pipeline."""
    return tables.to_bytes(time_bins.count(_times(plan, kind, partition)))


def _times(plan: Plan, kind: AnyLog, partition: int) -> np.ndarray:
    """Times of the rows of a partition that can be requests."""
    rows = kind.load(plan, partition)
    return rows.column(kind.time_column).to_numpy()[rows.is_new]
