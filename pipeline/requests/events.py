"""The events of one partition of users: sorted, filtered, and assigned to splits.

Every stage that needs events loads them through `Events.load`, which applies the same rules to the
same sorted file: no stage can see other events than another.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arguments import BuildArguments
from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME, WEIGHT
from pipeline.requests import tails
from pipeline.requests.base import Base
from pipeline.requests.counting import FIRST_ROW, FIRST_TIME, VALUE
from pipeline.requests.event_order import EARLIER, Places
from pipeline.requests.event_times import with_request_features
from preprocessing import splits
from preprocessing.negatives import OwnItems
from preprocessing.schema import Schema
from preprocessing.sequences import Windows, event_order, history_windows, positions
from preprocessing.storage.files import AnyPath
from preprocessing.values.value_places import ValuePlaces

PARTITIONS_PER_BUCKET = 16
"""Partitions whose counts of values are merged in one bucket: half a GiB of raw log."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The input of all stages: arguments, schema, paths of intermediate files, and cut-offs.

    Attributes:
        arguments: Arguments of the build.
        schema: The data contract.
        num_partitions: Number of partitions by user; that of the base's tails if there is a base.
        num_tails: Number of files that keep the last events of users.
        base: The data set that the log continues, or None.
        requests_from: Time from which on events can be requests, or None for all events.
        cutoffs: Time points of protocols by time; None until known, and for other protocols.
        is_scarce: Whether some requests may lack negatives, as their user has nearly all items to
            draw from, or few items had appeared by then; see `Events.split`.
    """

    arguments: BuildArguments
    schema: Schema
    num_partitions: int
    num_tails: int = 1
    base: Base | None = None
    requests_from: int | None = None
    cutoffs: splits.Cutoffs | None = None
    is_scarce: bool = False

    @property
    def work(self) -> AnyPath:
        """Directory of intermediate files, on a file system that all workers share."""
        return self.arguments.work_path

    @property
    def num_buckets(self) -> int:
        """Number of buckets in which counts of values are merged."""
        return 1 + (self.num_partitions - 1) // PARTITIONS_PER_BUCKET

    @property
    def items(self) -> AnyPath:
        """Buckets of the items of the training data and of later splits, with their counts."""
        return self.work / "items"

    @property
    def every_item(self) -> AnyPath:
        """Buckets of all items of the log with their counts, if rare ones are filtered."""
        return self.work / "every_item"

    @property
    def kept_items(self) -> AnyPath:
        """Table of the items with at least `min_item_events` events, if that is more than one."""
        return self.work / "kept_items.arrow"

    @property
    def item_history(self) -> AnyPath:
        """Table of what the item files of a published log say, if it has any."""
        return self.work / "item_history.arrow"

    def catalogue(self, split: str) -> AnyPath:
        """Table of the items that the requests of a split draw negatives from."""
        return self.work / "catalogues" / f"{split}.arrow"

    def partition(self, index: int) -> AnyPath:
        """File with the sorted events of a partition."""
        return self.work / "events" / f"{index:05d}.arrow"

    def excess(self, index: int) -> AnyPath:
        """File with the events of a partition that `long_histories` set aside, if there are any."""
        return self.work / "excess" / f"{index:05d}.arrow"

    def values(self, feature: str) -> AnyPath:
        """Buckets of the values of a feature in the training data, and how often each occurs."""
        return self.work / "values" / feature

    def new_values(self, feature: str) -> AnyPath:
        """Those of the values that the base has not counted yet."""
        return self.values(f"new/{feature}")

    def seen(self, feature: str) -> AnyPath:
        """Buckets of the values of a feature in the log, and when each was last seen."""
        return self.work / "seen" / feature

    def key_counts(self, name: str) -> AnyPath:
        """Buckets of the values in the requests, and how often each split holds each.

        Args:
            name: Key of an example, or `partition_counts.defaulted_key` of it.
        """
        return self.work / "statistics" / name

    def older(self, index: int) -> AnyPath:
        """File with the counts of the rows of a partition's users that the base keeps no more."""
        return self.work / "older" / f"{index:05d}.arrow"

    def run(self, index: int) -> AnyPath:
        """File with the events of a partition in the order of the log."""
        return self.work / "runs" / f"{index:05d}.arrow"

    def appearances(self, split: str, name: str) -> AnyPath:
        """File with some numbers of all events that a split draws from."""
        return self.work / "appearances" / f"{split}.{name}"


def event_ids(users: pa.Array, positions_E: np.ndarray) -> pa.Array:
    """Ids of events, large_binary [E]: `<user>:<position>`, which no other event has.

    Args:
        users: Key of the user of each event, [E].
        positions_E: Place of the event among those of its user.
    """
    index = pa.array(positions_E).cast(pa.large_string())
    colon = pa.scalar(":", pa.large_string())
    joined = pc.binary_join_element_wise(users.cast(pa.large_string()), index, colon)
    return joined.cast(pa.large_binary())


def sort_events(rows: pa.Table, user_key: str) -> pa.Table:
    """The rows of one partition, sorted by (user, time, row order).

    Texts become dictionary arrays: later stages look at each distinct text, not at each row.

    Args:
        rows: The events, in any order.
        user_key: Name of the feature by which events are grouped.
    """
    events = tables.with_dictionaries(rows)
    time, file, line = (events[name].to_numpy() for name in (TIME, FILE, LINE))
    return events.take(pa.array(event_order(tables.codes(events[user_key]), time, file, line)))


def in_log(table: pa.Table) -> np.ndarray:
    """Whether each row is one of the log, rather than an event that the base keeps: bool."""
    return table[FILE].to_numpy() != EARLIER


def every_row(plan: Plan, partition: int) -> Iterator[pa.Table]:
    """Yields the sorted rows of a partition, then those that were set aside, piece by piece."""
    yield tables.read(plan.partition(partition))
    yield from tables.read_pieces(plan.excess(partition))


def appeared(catalogue: pa.Table) -> Places:
    """Places at which the items of a catalogue first appeared; it is sorted by them."""
    return Places(catalogue[FIRST_TIME].to_numpy(), catalogue[FIRST_ROW].to_numpy())


@dataclasses.dataclass(frozen=True)
class Events:
    """Events of whole users, sorted by (user, time, row order). E events, U users.

    Attributes:
        plan: Arguments and schema.
        table: The events that survive the filters, each column one chunk. With a base they begin
            with the last events of each user that it keeps.
        starts: int64 [U + 1], first row of each user, then E.
        filtered: Rows of the log taken out, by rule.
        older: Counts of the items of events before these, see `tails.Tail`; None if there are none.
    """

    plan: Plan
    table: pa.Table
    starts: np.ndarray
    filtered: collections.Counter[str]
    older: pa.Table | None = None

    @classmethod
    def load(cls, plan: Plan, partition: int) -> "Events":
        """Reads a partition and applies the filters: items, then users, then the cap per user."""
        arguments = plan.arguments
        filtered: collections.Counter[str] = collections.Counter()
        path = plan.partition(partition)
        table = tables.read(path)
        if arguments.min_item_events > 1:
            kept_items = tables.read(plan.kept_items)[VALUE]
            keep = pc.is_in(table[plan.schema.item_key.name], value_set=kept_items)
            filtered["min_item_events"] = table.num_rows - pc.sum(keep).as_py()
            table = table.filter(keep)
        table = table.combine_chunks()
        starts = tables.group_starts(tables.one_array(table[plan.schema.user_key.name]))
        lengths = np.diff(starts)

        enough_U = lengths >= arguments.min_user_events
        filtered["min_user_events"] = int(lengths[~enough_U].sum())
        excess_U = np.where(enough_U, np.maximum(lengths - arguments.max_user_events, 0), 0)
        is_excess_E = positions(starts) < np.repeat(excess_U, lengths)
        filtered["max_user_events"] = int((is_excess_E & in_log(table)).sum())
        keep_E = np.repeat(enough_U, lengths) & ~is_excess_E
        if not keep_E.all():
            table = table.filter(pa.array(keep_E)).combine_chunks()
            kept_U = (lengths - excess_U)[enough_U]
            starts = np.concatenate([[0], np.cumsum(kept_U)]).astype(np.int64)
        older = None
        if plan.older(partition).exists():
            older = tables.read(plan.older(partition))
        table = with_request_features(table, plan.schema, table[TIME].to_numpy())
        return cls(plan, table, starts, +filtered, older)

    def column(self, name: str) -> pa.Array:
        """One column as one array, of texts a dictionary array."""
        return tables.one_array(self.table[name])

    @functools.cached_property
    def timestamps(self) -> np.ndarray:
        """Time of each event, int64 [E]; its index within its user if the log has no time."""
        if self.plan.schema.timestamp is None:
            return self.positions
        return self.table[TIME].to_numpy()

    @property
    def event_times(self) -> np.ndarray:
        """Time of each event, int64 [E]: every event can be a request."""
        return self.timestamps

    def windows(self, rows: np.ndarray) -> Windows:
        """The histories of the requests whose positives are `rows`, as rows of the table."""
        return history_windows(rows, self.positions[rows], self.plan.schema.history.max_length)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Weight of each event as a sample, float32 [E]; only if the schema has weights."""
        return self.table[WEIGHT].to_numpy()

    @functools.cached_property
    def positions(self) -> np.ndarray:
        """Number of events of its user before each event in the table, int64 [E]."""
        return positions(self.starts)

    @functools.cached_property
    def index(self) -> np.ndarray:
        """Index of each event within its user's events, those before the table too: int64 [E]."""
        if self.older is None:
            return self.positions
        return self.positions + tails.counts_by_user(self.older, self._user_keys)[self.users]

    @functools.cached_property
    def in_log(self) -> np.ndarray:
        """Whether each event is a row of the log, rather than one that the base keeps: bool [E]."""
        return in_log(self.table)

    @functools.cached_property
    def is_new(self) -> np.ndarray:
        """Whether each event can be a request, bool [E]; the others join histories only."""
        if self.plan.requests_from is None:
            return self.in_log
        return self.in_log & (self.timestamps >= self.plan.requests_from)

    @functools.cached_property
    def _users_of_older(self) -> np.ndarray:
        """Number of the user of each row of `older`, int64."""
        assert self.older is not None
        places = pc.index_in(self.older.column(0), value_set=self._user_keys)
        return places.to_numpy().astype(np.int64)

    @functools.cached_property
    def _user_keys(self) -> pa.Array:
        """Key of each user, [U]."""
        keys = self.column(self.plan.schema.user_key.name)
        return tables.decoded(keys.take(pa.array(self.starts[:-1])))

    def own_items(self, universe: ValuePlaces) -> OwnItems:
        """The items that each user has ever touched, by their places in an array of keys."""
        users, items = self.users, self.items(universe)
        if self.older is not None:
            keys = self.older[self.plan.schema.item_key.name]
            users = np.concatenate([users, self._users_of_older])
            items = np.concatenate([items, universe.find(keys)])
        return OwnItems(users, items, len(universe))

    @functools.cached_property
    def users(self) -> np.ndarray:
        """Number of the user of each event, int64 [E]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @functools.cached_property
    def split(self) -> np.ndarray:
        """Split of which each event is the positive, int8 [E], or NONE.

        The protocol assigns it. If `plan.is_scarce`, a positive is left out (NONE) where fewer than
        `negatives` of the items that its request may draw from the split's catalogue have no event
        of its user.
        """
        split_E = self._protocol_split.copy()
        if self.plan.is_scarce:
            for split, name in enumerate(splits.SPLITS):
                catalogue = tables.read(self.plan.catalogue(name))
                rows = np.flatnonzero(split_E == split)
                drawable_R = np.full(len(rows), catalogue.num_rows)
                if self.plan.arguments.draws_available:
                    drawable_R = appeared(catalogue).up_to(self.places.take(rows))
                universe = tables.one_array(catalogue[self.plan.schema.item_key.name])
                own_items = self.own_items(ValuePlaces(universe))
                free_R = drawable_R - own_items.count_below(self.users[rows], drawable_R)
                split_E[rows[free_R < self.plan.arguments.negatives]] = splits.NONE
        return split_E

    @functools.cached_property
    def places(self) -> Places:
        """Places of the events in the order of the log."""
        return Places.of(self.table)

    def items(self, universe: ValuePlaces) -> np.ndarray:
        """Place of each event's item key in an array of keys, int64 [E], -1 if it is not there."""
        values, codes = tables.distinct(self.column(self.plan.schema.item_key.name))
        return universe.find(values)[codes]

    @functools.cached_property
    def _protocol_split(self) -> np.ndarray:
        arguments = self.plan.arguments
        if arguments.protocol == "leave_last_out":
            return splits.leave_last_out(
                self.starts, arguments.train_prefixes, arguments.min_history
            )
        if self.plan.cutoffs is None:
            raise ValueError("protocols by time need cut-offs")
        split_E = splits.time_split(
            self.timestamps, self.index, self.plan.cutoffs, arguments.min_history
        )
        return np.where(self.is_new, split_E, np.int8(splits.NONE))

    @functools.cached_property
    def first_use(self) -> np.ndarray:
        """First split whose requests contain each event, int8 [E], or NONE."""
        return self._first_use(self.split)

    def _first_use(self, split_E: np.ndarray) -> np.ndarray:
        return splits.first_use(split_E, self.starts, self.plan.schema.history.max_length)

    @functools.cached_property
    def catalogue_use(self) -> np.ndarray:
        """First split that draws from each event's item, int8 [E], or NONE.

        It is the first use; if requests begin in the midst of a log, it is the split that ends
        after the event, whether or not a request holds it: the items of the past are known.
        """
        if self.plan.requests_from is None:
            return self.first_use
        assert self.plan.cutoffs is not None
        use_E = splits.split_of(self.timestamps, self.plan.cutoffs)
        return np.where(self.in_log, use_E, np.int8(splits.NONE))

    @functools.cached_property
    def in_training_history(self) -> np.ndarray:
        """Whether each event is in the history of a training request, bool [E]."""
        max_length = self.plan.schema.history.max_length
        return splits.in_history(self.split, splits.TRAIN, self.starts, max_length)

    def left_out(self) -> dict[str, int]:
        """Requests of the protocol, by split, that cannot get their negatives."""
        missing_E = self._protocol_split[self.split == splits.NONE]
        return {name: int((missing_E == split).sum()) for split, name in enumerate(splits.SPLITS)}

    def unused(self) -> collections.Counter[str]:
        """Rows of the log that no request contains, by rule.

        `too_few_events`: their user has no positive. `max_length`: they lie before the histories
        of all positives of their user. `too_few_negatives`: only requests that cannot get their
        negatives would contain them.
        """
        unused_E = self.in_log & (self.first_use == splits.NONE)
        protocol_unused_E = self.in_log & (self._first_use(self._protocol_split) == splits.NONE)
        has_positive_U = np.zeros(len(self.starts) - 1, bool)
        has_positive_U[self.users[self._protocol_split != splits.NONE]] = True
        short_E = ~has_positive_U[self.users]
        return +collections.Counter(
            too_few_events=int((protocol_unused_E & short_E).sum()),
            max_length=int((protocol_unused_E & ~short_E).sum()),
            too_few_negatives=int((unused_E & ~protocol_unused_E).sum()),
        )
