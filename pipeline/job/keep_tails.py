"""The last step of a build: the tails that a later build stands on, see `requests.tails`."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.job import vocabularies
from pipeline.job.beam import beam
from pipeline.job.buckets import WriteItems
from pipeline.job.merging import WriteTimeRanges
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.reading import ITEMS, TIMES
from pipeline.job.runner import mark_done
from pipeline.log import tables
from pipeline.log.row_checks import TIME
from pipeline.requests import counting, last_seen, tails
from pipeline.requests.event_order import Places
from pipeline.requests.events import Plan, every_row, in_log
from pipeline.requests.log_kind import AnyLog
from pipeline.requests.tails import Tail
from preprocessing import data_dir, splits
from preprocessing.features.encoder_specs import Hash
from preprocessing.json_checks import read_json
from preprocessing.storage import files
from preprocessing.storage.files import remove_tree

_LOG = "log"
_TAIL_ITEMS = "tail_items"

_Piece = list[tables.Reference | None]
"""References to the two tables of a tail."""


def missing(plan: Plan) -> str | None:
    """Why a data set keeps no tails, or None if it does."""
    if plan.schema.timestamp is None:
        return "its log has no times"
    for name in ("min_user_events", "min_item_events"):
        if getattr(plan.arguments, name) > 1:
            return f"it was built with --{name}, and what was filtered may count on a later day"
    return None


def write(plan: Plan, kind: AnyLog, stage: Callable[..., object], partitions: list[int]) -> None:
    """Writes the tails of a data set whose requests are written."""
    # What an attempt that was cut off has left, half-written files among it.
    remove_tree(plan.arguments.output_path / data_dir.TAILS)
    remove_tree(plan.work / "tails")
    construct = functools.partial(_keep, plan, kind, partitions)
    stage("Keeping tails", construct, watch=plan.work / "kept", total=len(partitions))
    key = plan.schema.item_key.name
    items = tables.read_buckets(plan.work / _TAIL_ITEMS, key)
    if plan.base is not None:
        items = tails.with_items_of_base(plan.base.items(), items, key)
    _write_file(plan, tails.ITEMS, tails.items_of_file(items))
    for feature in plan.schema.encoded_features:
        if not isinstance(feature.encoder, Hash) and not feature.is_gap:
            counts = vocabularies.counts_so_far(plan, kind, feature)
            _write_file(plan, f"{tails.COUNTS}/{feature.name}.arrow", counts)
    for feature in last_seen.features(plan.schema) if plan.arguments.expire_days else ():
        seen = last_seen.so_far(plan, feature)
        _write_file(plan, f"{tails.SEEN}/{feature.name}.arrow", seen)


def record(plan: Plan) -> dict[str, Any]:
    """What the manifest says of tails that are written: files with hashes, latest time."""
    fix = "build again without --resume."
    reports = files.children(plan.work / "tails", "*.json")
    hashes = [read_json(path, "the report of a file of tails", fix) for path in reports]
    times = read_json(plan.work / "counters" / "tail_times.json", "the times of the log", fix)
    latest = times[_LOG][1]
    return {
        "files": {report["file"]: report["sha256"] for report in hashes},
        "num_files": plan.num_tails,
        "watermark": latest if plan.base is None else max(latest, plan.base.watermark),
    }


def _keep(plan: Plan, kind: AnyLog, partitions: list[int], pipeline: beam.Pipeline) -> None:
    cut = (
        pipeline
        | "Partitions" >> Pieces(partitions)
        | "Cut" >> beam.ParDo(CutTail(plan, kind)).with_outputs(ITEMS, TIMES, main="pieces")
    )
    no_pieces = pipeline | "EveryTail" >> beam.Create([(n, None) for n in range(plan.num_tails)])
    pieces = (cut["pieces"], no_pieces) | "WithEmptyTails" >> beam.Flatten()
    _ = pieces | "Group" >> beam.GroupByKey() | "WriteTails" >> beam.ParDo(WriteTail(plan))
    key = plan.schema.item_key.name
    merge_items = functools.partial(counting.merge_items, key=key)
    write_items = WriteItems(plan.work / _TAIL_ITEMS, merge_items, key, plan.num_buckets)
    _ = cut[ITEMS] | "WriteItems" >> write_items
    write_times = WriteTimeRanges(plan.work / "counters" / "tail_times.json")
    _ = cut[TIMES] | "WriteTimes" >> write_times


@beam.typehints.with_output_types(tuple[int, _Piece], **{ITEMS: bytes, TIMES: dict[str, list[int]]})
class CutTail(beam.DoFn):
    """Cuts the tails of the users of a partition.

    Emits (number of a file, references to its part of them); tagged ITEMS: table of items; tagged
    TIMES: first and last time of the rows of the log.

    Args:
        plan: Arguments, schema and cut-offs.
        kind: Kind of the log, which says what is kept of it.
    """

    def __init__(self, plan: Plan, kind: AnyLog) -> None:
        self._plan = plan
        self._kind = kind

    def process(self, partition: int) -> Iterator[Any]:
        """Cuts one partition."""
        return piece_of_work("cut_tail", self._plan.work, lambda: self._cut(partition))

    def _cut(self, partition: int) -> Iterator[Any]:
        plan = self._plan
        for name, tail in self._tails(partition):
            for number, part in tails.deal(tail, plan.schema.user_key.name, plan.num_tails):
                yield (
                    number,
                    [
                        None
                        if table is None
                        else tables.write_parts(
                            plan.work / kind_of / f"{name}.{number:05d}.arrow", [table]
                        )[0]
                        for kind_of, table in zip(("cut_events", "cut_older"), part, strict=True)
                    ],
                )
        for rows in every_row(plan, partition):
            rows = rows.combine_chunks()
            rows = rows.filter(pa.array(in_log(rows)))
            yield beam.pvalue.TaggedOutput(ITEMS, tables.to_bytes(_items(plan, rows)))
            times = rows[TIME].to_numpy()
            ranges = {_LOG: [int(times.min()), int(times.max())]} if len(times) else {}
            yield beam.pvalue.TaggedOutput(TIMES, ranges)
        mark_done(plan.work / "kept", str(partition))

    def _tails(self, partition: int) -> Iterator[tuple[str, Tail]]:
        """Yields the tail of a partition, and counts of what was set aside of it, with names."""
        yield f"{partition:05d}", self._kind.tail(self._plan, partition)
        schema = self._plan.schema
        keys = [schema.user_key.name, schema.item_key.name]
        for number, rows in enumerate(tables.read_pieces(self._plan.excess(partition))):
            yield f"{partition:05d}-{number}", Tail(None, tails.count_older(rows, keys))


class WriteTail(beam.DoFn):
    """Writes (number, pieces of a tail or None) as the files of that number.

    What the base keeps of other users goes along; without any piece its files are copied.

    Args:
        plan: Arguments, schema and paths.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def process(self, element: tuple[int, Iterable[_Piece | None]]) -> Iterable[None]:
        """Writes one tail; emits nothing."""
        return piece_of_work("write_tail", self._plan.work, lambda: self._write(element))

    def _write(self, element: tuple[int, Iterable[_Piece | None]]) -> Iterable[None]:
        number, pieces = element
        plan, base = self._plan, self._plan.base
        user_key = plan.schema.user_key.name
        names = [
            tails.file_name(kind, number, plan.num_tails) for kind in (tails.EVENTS, tails.OLDER)
        ]
        parts = [_read(piece) for piece in pieces if piece is not None]
        if base is not None and not parts:
            for name in base.names.intersection(names):
                _write_bytes(plan, name, base.file(name).read_bytes())
            return ()
        if base is not None:
            events = [part.events[user_key] for part in parts if part.events is not None]
            users = pa.chunked_array([chunk for column in events for chunk in column.chunks])
            parts.append(tails.without(base.tail(number), users.unique(), user_key))
        for name, table in zip(names, tails.joined(parts, user_key), strict=True):
            if table is not None:
                _write_file(plan, name, table)
        return ()


def _items(plan: Plan, rows: pa.Table) -> pa.Table:
    """Items of all rows of the log, whether or not requests hold them."""
    use_E = np.full(rows.num_rows, splits.TRAIN, np.int8)
    no_candidates = np.zeros(rows.num_rows, bool)
    return counting.count_items(rows, use_E, no_candidates, plan.schema, Places.of(rows))


def _read(piece: _Piece) -> Tail:
    return Tail(*(None if part is None else tables.read_part(part) for part in piece))


def _write_file(plan: Plan, name: str, table: pa.Table) -> None:
    _write_bytes(plan, name, tails.to_bytes(table))


def _write_bytes(plan: Plan, name: str, content: bytes) -> None:
    """Writes a file of the tails, and a report with its hash."""
    files.write_bytes(plan.arguments.output_path / data_dir.TAILS / name, content)
    report = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    data_dir.write_json(plan.work / "tails" / f"{name.replace('/', '.')}.json", report)
