"""Impression logs as one kind of log: every row is a labelled candidate, see `impressions`."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline.arguments import BuildArguments
from pipeline.log import file_accounts
from pipeline.log.row_checks import FILE, LABEL, REQUEST, TIME
from pipeline.requests import counting, impressions, shard_sizes, tails
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.event_order import Sorted, as_is, without_repeats
from pipeline.requests.events import Plan, sort_events
from pipeline.requests.impression_encoding import ImpressionCounts, ImpressionEncoder
from pipeline.requests.impressions import REQUEST_TIME, Impressions
from pipeline.requests.log_kind import LogKind, TrainingCounts
from pipeline.requests.tails import Tail
from preprocessing import splits
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Hash
from preprocessing.features.feature import Feature, Role


class ImpressionLog(LogKind[Impressions]):
    """A log of labelled candidates, in requests or each a request of its own."""

    time_column = REQUEST_TIME

    @property
    def deal_key(self) -> str:
        """The request that rows name, which may lie in several files; else the user key."""
        return self._schema.user_key.name if self._schema.request is None else REQUEST

    def settled(self, arguments: BuildArguments) -> BuildArguments:
        """The arguments without negatives: the candidates are those that were shown."""
        max_length = self._schema.history.max_length
        if arguments.base is not None and arguments.min_history > max_length:
            raise UserError(
                f"--min_history: expected at most {max_length} beside --base, the max_length of "
                f"histories, found {arguments.min_history}: tails keep no more clicks.",
                "lower it.",
            )
        return dataclasses.replace(arguments, negatives=0)

    def most_events(self, plan: Plan) -> int | None:
        """None: users are cut by their requests, which rows make up together."""
        return None

    def sort(self, rows: pa.Table, deduplicate: bool, older: pa.Table | None = None) -> Sorted:
        """The rows by user and request; the same request, item, time and label are one row."""
        user, item = self._schema.user_key.name, self._schema.item_key.name
        rows = impressions.as_clicks(rows)
        if self._schema.request is not None:
            rows = impressions.sort_impressions(rows, user)
            columns = [user, impressions.said_column(rows), item, TIME, LABEL]
            return without_repeats(rows, columns) if deduplicate else as_is(rows)
        rows = sort_events(rows, user)
        columns = [user, item, TIME, LABEL]
        kept = without_repeats(rows, columns) if deduplicate else as_is(rows)
        return Sorted(impressions.as_requests(kept.rows, user, older), kept.repeats)

    def load(self, plan: Plan, partition: int) -> Impressions:
        """The requests of a partition."""
        return Impressions.load(plan, partition)

    def count_training(self, plan: Plan, partition: int) -> TrainingCounts:
        """Counts; there is no item that candidates alone would add."""
        rows = Impressions.load(plan, partition)
        schema = plan.schema
        is_train_R, is_train_E = rows.split == splits.TRAIN, rows.in_training
        values = {}
        for feature in schema.encoded_features:
            if feature.is_gap:
                continue  # nothing to learn
            held_rows = np.flatnonzero(is_train_E)
            if feature in schema.user_features:
                held_rows = rows.starts[:-1][is_train_R]
            elif feature in schema.event_features:
                held_rows = np.flatnonzero(rows.in_training_history)
            if isinstance(feature.encoder, Hash):
                held_rows = held_rows[:0]  # nothing to learn
            column = rows.column(feature.name)
            values[feature.name] = counting.count_feature(feature, column.take(pa.array(held_rows)))
            if plan.base is not None:
                was_counted_E = tails.was_counted(rows.table, tails.counted_column(feature))
                new_rows = pa.array(held_rows[~was_counted_E[held_rows]])
                values[f"new/{feature.name}"] = counting.count_feature(
                    feature, column.take(new_rows)
                )
        no_candidates = np.zeros(len(is_train_E), bool)
        items = counting.count_items(rows.table, rows.catalogue_use, no_candidates, schema)
        used_E = rows.in_log & (rows.first_use != splits.NONE)
        counters = {f"filtered/{rule}": n for rule, n in (rows.filtered + rows.unused()).items()}
        counters["train/requests"] = int(is_train_R.sum())
        steps_R = np.minimum(rows.history_sizes, schema.history.max_length)
        counters |= shard_sizes.count(rows.split, steps_R, np.diff(rows.starts))
        counters["clicks"] = int(rows.is_click[rows.in_log].sum())
        counters["used"] = int(used_E.sum())
        counters |= file_accounts.by_file("used", rows.table[FILE].to_numpy()[used_E])
        counters["users"] = len(np.unique(rows.users[rows.requests[used_E]]))
        counters["longest/0"] = 1  # no request needs negatives
        return TrainingCounts(values, items, counters)

    def training_values(self, plan: Plan, feature: Feature, bucket: Bucket = None) -> pa.Table:
        """The values counted: candidates are rows too."""
        return counting.read(plan.values(feature.name), bucket)

    def new_values(self, plan: Plan, feature: Feature) -> pa.Table:
        """The values counted that the base has not counted."""
        return counting.read(plan.new_values(feature.name))

    def tail(self, plan: Plan, partition: int) -> Tail:
        """The last clicks of each user; of logs without request ids, how many other rows it has."""
        every, rows = Impressions.whole(plan, partition), Impressions.load(plan, partition)
        now = {
            tails.COUNTED: rows.in_training,
            tails.COUNTED_STEP: rows.in_training_history,
        }
        counted = {name: np.zeros(every.table.num_rows, bool) for name in now}
        for name, is_counted_E in now.items():
            before_E = tails.was_counted(rows.table, name)
            counted[name][every.recent()[0]] = before_E | is_counted_E
        if self._schema.request is None:
            return tails.cut(every.table, every.clicks, counted, plan.schema, (), [])
        table = impressions.as_said(every.table)
        return tails.cut(table, every.clicks, counted, plan.schema, [REQUEST], None)

    def nothing_to_train_on(
        self, arguments: BuildArguments, counters: Mapping[str, int], filtered: str
    ) -> UserError:
        """The error of a log whose users have too few requests, or of a label that never holds."""
        (label,) = self._schema.with_role(Role.LABEL)
        return UserError(
            f"Expected users with enough requests for --protocol={arguments.protocol} and at least "
            f"--min_history={arguments.min_history} positives before them, found none in a log "
            f"with {counters['clicks']} positives ({filtered}).",
            f"lower --min_user_events or --min_history, check the label {label.name!r} (its "
            '"positive" in the schema), or give a longer log.',
        )

    def encoder(self, plan: Plan, encoders: Mapping[str, FittedEncoder]) -> ImpressionEncoder:
        """The encoder of requests as they were shown."""
        return ImpressionEncoder(plan, encoders)

    def counts(self, rows: Impressions) -> ImpressionCounts:
        """Counts of histories, of the user's side and of all candidates."""
        return ImpressionCounts(rows)

    def derived_counts(self, plan: Plan, bucket: Bucket) -> Iterator[tuple[str, pa.Table]]:
        """Yields nothing: all that requests hold is counted."""
        return iter(())
