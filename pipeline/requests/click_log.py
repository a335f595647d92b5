"""Click logs: every row is a positive event, and its negatives are sampled.

A request is an event with the events of its user before it. Item features of candidates come from
catalogues, so the counts of these are derived from the counts of items.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arguments import AVAILABLE_POPULARITY, BuildArguments
from pipeline.log import file_accounts, tables
from pipeline.log.row_checks import FILE, TIME
from pipeline.requests import appearances, by_bucket, counting, shard_sizes, tails
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.counting import VALUE
from pipeline.requests.encoding import RequestEncoder
from pipeline.requests.event_order import Sorted, as_is, without_repeats
from pipeline.requests.events import Events, Plan, sort_events
from pipeline.requests.log_kind import LogKind, TrainingCounts
from pipeline.requests.partition_counts import PartitionCounts, counted_columns, merge_values
from pipeline.requests.tails import Tail
from preprocessing import splits
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key
from preprocessing.features.encoder_specs import Hash
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from preprocessing.sequences import positions


class ClickLog(LogKind[Events]):
    """A log of positive events."""

    time_column = TIME

    @property
    def deal_key(self) -> str:
        """The user key: events belong to no request before they have a history."""
        return self._schema.user_key.name

    def settled(self, arguments: BuildArguments) -> BuildArguments:
        """The arguments as they are; without times a second click looks like a repetition."""
        if arguments.deduplicate and self._schema.timestamp is None:
            raise UserError(
                "--deduplicate: expected a log with a timestamp or a position, found neither.",
                "name the column in the schema, or leave the flag out.",
            )
        return arguments

    def most_events(self, plan: Plan) -> int | None:
        """As many as a user keeps, is counted to, and leaves to a later build.

        Rare items and repetitions are filtered before users are cut, so with these filters it takes
        all events to tell which ones are the most recent.
        """
        arguments = plan.arguments
        if arguments.deduplicate or arguments.min_item_events > 1:
            return None
        max_length = plan.schema.history.max_length
        return max(arguments.max_user_events, arguments.min_user_events, max_length)

    def sort(self, rows: pa.Table, deduplicate: bool, older: pa.Table | None = None) -> Sorted:
        """The events by user, time and row; the same user, item and time are one event."""
        user, item = self._schema.user_key.name, self._schema.item_key.name
        events = sort_events(rows, user)
        return without_repeats(events, [user, item, TIME]) if deduplicate else as_is(events)

    def load(self, plan: Plan, partition: int) -> Events:
        """The events of a partition."""
        return Events.load(plan, partition)

    def count_training(self, plan: Plan, partition: int) -> TrainingCounts:
        """Counts; draws of `available_popularity` also need the events, which it writes."""
        schema = plan.schema
        events = Events.load(plan, partition)
        is_positive = events.split == splits.TRAIN
        in_history = events.in_training_history
        histories = pa.array(np.flatnonzero(in_history))
        positives = pa.array(np.flatnonzero(is_positive))
        value_counts = {}
        for feature in schema.encoded_features:
            if feature.is_gap:
                continue  # nothing to learn
            # Requests carry the user's side once, as it was at the positive. Item features of the
            # positive are those of the catalogue: `counting.candidate_values` adds them.
            rows = positives if feature in schema.user_features else histories
            if isinstance(feature.encoder, Hash):
                rows = rows[:0]  # nothing to learn
            column = events.column(feature.name)
            value_counts[feature.name] = counting.count_feature(feature, column.take(rows))
            if plan.base is not None:
                was_counted_E = tails.was_counted(events.table, tails.counted_column(feature))
                new_rows = rows.filter(pa.array(~was_counted_E[rows.to_numpy()]))
                value_counts[f"new/{feature.name}"] = counting.count_feature(
                    feature, column.take(new_rows)
                )
        places = events.places if plan.arguments.draws_available else None
        only_candidates = is_positive & ~in_history
        items = counting.count_items(
            events.table, events.catalogue_use, only_candidates, schema, places
        )
        if plan.arguments.negative_sampling == AVAILABLE_POPULARITY:
            appearances.write_run(plan, partition, events)
        counters = {f"filtered/{rule}": n for rule, n in events.filtered.items()}
        counters |= {f"filtered/{rule}": n for rule, n in events.unused().items()}
        counters |= {f"{name}/left_out": n for name, n in events.left_out().items()}
        counters["train/requests"] = len(positives)
        steps_E = np.minimum(events.positions, schema.history.max_length)
        candidates_E = np.full(len(steps_E), 1 + plan.arguments.negatives)
        counters |= shard_sizes.count(events.split, steps_E, candidates_E)
        counters[f"longest/{events.index.max(initial=-1) + 1}"] = 1
        is_used = (events.first_use != splits.NONE) & events.in_log
        counters["used"] = int(is_used.sum())
        counters |= file_accounts.by_file("used", events.table[FILE].to_numpy()[is_used])
        counters["users"] = len(np.unique(events.users[is_used]))
        return TrainingCounts(value_counts, items, counters)

    def tail(self, plan: Plan, partition: int) -> Tail:
        """The last events of each user; training counts those that its requests hold."""
        rows = tables.read(plan.partition(partition)).combine_chunks()
        starts = tables.group_starts(tables.one_array(rows[plan.schema.user_key.name]))
        events = Events.load(plan, partition)
        excess_U = np.diff(starts) - np.diff(events.starts)  # the cap takes the oldest events
        is_in_events_E = positions(starts) >= np.repeat(excess_U, np.diff(starts))
        in_history_E = events.in_training_history
        now = {
            tails.COUNTED: in_history_E | (events.split == splits.TRAIN),
            tails.COUNTED_STEP: in_history_E,
        }
        counted = {name: np.zeros(rows.num_rows, bool) for name in now}
        for name, is_counted_E in now.items():
            before_E = tails.was_counted(events.table, name)
            counted[name][is_in_events_E] = before_E | is_counted_E
        item_key = plan.schema.item_key.name
        every_row = np.arange(rows.num_rows)
        return tails.cut(rows, every_row, counted, plan.schema, (), [item_key])

    def training_values(self, plan: Plan, feature: Feature, bucket: Bucket = None) -> pa.Table:
        """The values counted, and those that the training catalogue gives to positives."""
        counts = counting.read(plan.values(feature.name), bucket)
        return self._with_candidates(plan, feature, counts, bucket)

    def new_values(self, plan: Plan, feature: Feature) -> pa.Table:
        """Those of them that the base has not counted; candidates are events of the log."""
        counts = counting.read(plan.new_values(feature.name))
        return self._with_candidates(plan, feature, counts, None)

    def _with_candidates(
        self, plan: Plan, feature: Feature, value_counts: pa.Table, bucket: Bucket
    ) -> pa.Table:
        if feature not in plan.schema.item_features or isinstance(feature.encoder, Hash):
            return value_counts
        if bucket is None:
            training_items = tables.read(plan.catalogue(splits.SPLITS[splits.TRAIN]))
            candidates = counting.candidate_values(training_items, feature)
        else:
            candidates = counting.read(by_bucket.candidates(plan, feature.name), bucket)
        return counting.merge_counts(pa.concat_tables([value_counts, candidates]))

    def nothing_to_train_on(
        self, arguments: BuildArguments, counters: Mapping[str, int], filtered: str
    ) -> UserError:
        """The error of a log whose users have too few events, or too many of all items."""
        return UserError(
            f"Expected users with enough events for --protocol={arguments.protocol} who leave "
            f"--negatives={arguments.negatives} items of the training data "
            f"{'that had appeared by then ' if arguments.draws_available else ''}untouched, found "
            f"none ({filtered}).",
            "lower --min_user_events, --min_item_events, --min_history or --negatives, or give a "
            "longer log.",
        )

    def encoder(self, plan: Plan, encoders: Mapping[str, FittedEncoder]) -> RequestEncoder:
        """The encoder that draws negatives from the catalogues."""
        catalogues = [tables.read(plan.catalogue(name)) for name in splits.SPLITS]
        return RequestEncoder(plan, encoders, catalogues)

    def counts(self, rows: Events) -> PartitionCounts:
        """Counts of histories, of the user's side and of the items of positives."""
        return PartitionCounts(rows)

    def derived_counts(self, plan: Plan, bucket: Bucket) -> Iterator[tuple[str, pa.Table]]:
        """Yields the counts of candidates' features: these follow from items and catalogues."""
        schema = plan.schema
        item_key = candidate_key(schema.item_key.name)
        items = counting.read(plan.key_counts(item_key), bucket)
        catalogues = [
            tables.read(by_bucket.catalogue(plan, name, bucket)) for name in splits.SPLITS
        ]
        for key, name, column in counted_columns(schema):
            if key.startswith(candidate_key("")) and key != item_key:
                values = [_counted(schema, catalogue, column) for catalogue in catalogues]
                yield name, _candidate_counts(items, catalogues, schema.item_key.name, values)


def _counted(schema: Schema, catalogue: pa.Table, column: str) -> pa.Array:
    """What is counted of a column of a catalogue: an item feature, or whether it is a default."""
    values = tables.one_array(catalogue[column])
    named = [feature for feature in schema.item_features if feature.name == column]
    return counting.countable(named[0], values) if named else values


def _candidate_counts(
    items: pa.Table,
    catalogues: Sequence[pa.Table],
    item_key: str,
    values: Sequence[pa.Array],
) -> pa.Table:
    """Counts of a column of positives, which the split's catalogue gives each item.

    Args:
        items: Counts of the item key.
        catalogues: Items of each split with their features.
        item_key: Name of the item key.
        values: What is counted of each catalogue, a value per item.
    """
    zeros = pa.array(np.zeros(items.num_rows, np.int64))
    parts = []
    for split, catalogue, of_items in zip(splits.SPLITS, catalogues, values, strict=True):
        rows = pc.index_in(items[VALUE], value_set=tables.one_array(catalogue[item_key]))
        counts = {column: items[split] if column == split else zeros for column in splits.SPLITS}
        parts.append(pa.table({VALUE: of_items.take(rows), **counts}))
    return merge_values(pa.concat_tables(parts))
