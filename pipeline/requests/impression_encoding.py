"""From impressions to examples. R requests of a block, E rows of a partition."""

import collections
import functools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline.log.row_checks import REQUEST, TIME
from pipeline.requests.encoded_columns import (
    Encoded,
    encode,
    of_candidates,
    of_requests,
    of_steps,
)
from pipeline.requests.encoding import ShardPiece, count_unknown, encoded_gaps, shard_pieces
from pipeline.requests.event_times import count_gaps
from pipeline.requests.events import Plan
from pipeline.requests.impressions import Impressions
from pipeline.requests.partition_counts import Held, count_keys, count_periods
from pipeline.stats.statistics import shortest_period
from preprocessing import negatives, splits
from preprocessing.codec import Ragged, SerializedSteps, encode_examples
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.example_keys import (
    LABEL,
    LABEL_WEIGHT,
    REQUEST_ID,
    REQUEST_USER,
    TIMESTAMP,
    candidate_key,
    history_key,
)
from preprocessing.sequences import Windows, history_windows
from preprocessing.storage.arrow_buffers import from_buffers


class ImpressionEncoder:
    """Encodes the requests of a partition.

    Args:
        plan: Arguments and schema.
        encoders: Encoder of each feature.
    """

    def __init__(self, plan: Plan, encoders: Mapping[str, FittedEncoder]) -> None:
        self._plan = plan
        self._encoders = encoders

    def encode(
        self, impressions: Impressions, counters: collections.Counter[str]
    ) -> Iterator[list[ShardPiece]]:
        """Yields the requests of the partition in blocks, each in the order of shards.

        Args:
            impressions: Rows of the partition.
            counters: Counters to which requests, users, candidates, positives, unknown items,
                requests without a positive and history lengths per split are added.
        """
        encoded = {
            feature.name: encode(self._encoders[feature.name], impressions.column(feature.name))
            for feature in self._plan.schema.encoded_features
            if not feature.is_gap
        }
        names = impressions.column(REQUEST)
        for split, name in enumerate(splits.SPLITS):
            requests = np.flatnonzero(impressions.split == split)
            if len(requests):
                _count(impressions, requests, name, counters)
                shown = np.flatnonzero((impressions.split == split)[impressions.requests])
                count_unknown(
                    self._encoders,
                    self._plan.schema,
                    encoded[self._plan.schema.item_key.name][shown],
                    impressions.is_click[shown],
                    name,
                    counters,
                )
                ids = names.take(pa.array(impressions.starts[requests]))
                yield from shard_pieces(
                    split,
                    self._plan.arguments.shards(name),
                    requests,
                    ids.cast(pa.large_string()).cast(pa.large_binary()),
                    functools.partial(self._records, impressions, encoded),
                )

    def _records(
        self,
        impressions: Impressions,
        encoded: Mapping[str, Encoded],
        requests_R: np.ndarray,
        ids: pa.Array,
        keys_R: np.ndarray,
    ) -> pa.Array:
        """Serialised examples of some requests, large_binary [R]."""
        schema, table = self._plan.schema, impressions.table
        first_R = impressions.starts[requests_R]
        last_R = impressions.starts[requests_R + 1]
        in_order = history_windows(last_R, last_R - first_R, int((last_R - first_R).max()))
        shown = _shuffled(in_order, keys_R, self._plan.arguments.seed)
        context = {
            feature.name: of_requests(encoded[feature.name][first_R])
            for feature in schema.user_features
        }
        for feature in schema.item_features:
            values = encoded[feature.name][shown.rows]
            context |= of_candidates(feature.name, values, shown.row_splits)
        context[LABEL] = Ragged(impressions.is_click[shown.rows], shown.row_splits)
        if schema.weight is not None:
            context[LABEL_WEIGHT] = Ragged(impressions.weights[shown.rows], shown.row_splits)
        context[TIMESTAMP] = Ragged.single(impressions.timestamps[requests_R])
        context[REQUEST_ID] = Ragged.single(ids)
        users = impressions.column(schema.user_key.name).take(pa.array(first_R))
        context[REQUEST_USER] = Ragged.single(users.cast(pa.large_string()))
        windows = impressions.windows(requests_R)
        steps = {
            history_key(feature.name): of_steps(encoded[feature.name][windows.rows])
            for feature in schema.step_features
            if not feature.is_gap
        }
        steps[history_key(TIMESTAMP)] = SerializedSteps(table[TIME].to_numpy()[windows.rows])
        starts_R = windows.row_splits[:-1]
        history: dict[str, Ragged | pa.LargeBinaryArray] = {
            key: rows.rows(starts_R, windows.lengths) for key, rows in steps.items()
        }
        history |= encoded_gaps(self._encoders, schema, impressions, requests_R)
        return from_buffers(*encode_examples(context, history))


def _shuffled(shown: Windows, keys_R: np.ndarray, seed: int) -> Windows:
    """The rows of each request in a random order: the log's own may tell which were clicked."""
    sizes_R = shown.lengths
    request = np.repeat(np.arange(len(keys_R)), sizes_R)
    place = np.arange(len(request)) - np.repeat(shown.row_splits[:-1], sizes_R)
    bits = negatives.order_bits(seed, np.repeat(keys_R, sizes_R), place)
    return Windows(shown.rows[np.lexsort((place, bits, request))], shown.row_splits)


def _count(
    impressions: Impressions, requests: np.ndarray, name: str, counters: collections.Counter[str]
) -> None:
    """Adds the requests of a split to the counters."""
    clicks_R = np.add.reduceat(impressions.is_click, impressions.starts[:-1])[requests]
    sizes_R = np.diff(impressions.starts)[requests]
    counters[f"{name}/requests"] += len(requests)
    counters[f"{name}/users"] += len(np.unique(impressions.users[requests]))
    counters[f"{name}/candidates"] += int(sizes_R.sum())
    counters[f"{name}/positives"] += int(clicks_R.sum())
    counters[f"{name}/without_positive"] += int((clicks_R == 0).sum())
    max_length = impressions.plan.schema.history.max_length
    lengths, times = np.unique(
        np.minimum(impressions.history_sizes[requests], max_length), return_counts=True
    )
    for length, count in zip(lengths.tolist(), times.tolist(), strict=True):
        counters[f"{name}/history_length/{length}"] += count


class ImpressionCounts:
    """Counts the values and times in the requests of one partition, as `PartitionCounts` does.

    `candidate/...` are the values of all candidates.

    Args:
        impressions: Rows of the partition.
    """

    def __init__(self, impressions: Impressions) -> None:
        self._impressions = impressions

    def values(self) -> Iterator[tuple[str, pa.Table]]:
        """Yields what `partition_counts.count_keys` does."""
        rows = self._impressions
        yield from count_keys(rows.column, self._held())
        yield from count_gaps(rows, rows.plan.schema)

    def _held(self) -> Iterator[Held]:
        rows = self._impressions
        schema = rows.plan.schema
        shown = [rows.split[rows.requests] == split for split in range(len(splits.SPLITS))]
        is_first = np.zeros(rows.table.num_rows, bool)
        is_first[rows.starts[:-1]] = True
        once = [is_shown & is_first for is_shown in shown]
        for feature in schema.encoded_features:
            if feature in schema.user_features:
                yield feature.name, feature, once
            elif feature in schema.item_features:
                yield candidate_key(feature.name), feature, shown
            if feature in schema.step_features and not feature.is_gap:
                yield history_key(feature.name), feature, list(rows.history_counts)

    def periods(self) -> pa.Table:
        """Rows by period and first use; see `partition_counts.merge_periods`."""
        rows = self._impressions
        period = shortest_period(rows.plan.schema)
        return count_periods(rows.table[TIME].to_numpy(), rows.first_use, period)
