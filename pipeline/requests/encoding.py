"""From events to requests: negatives, candidate order, windows, encoding. R requests of a block.

The item features of all candidates, the positive and the negatives, are those of the split's
catalogue: as of the last event of the item that the split or an earlier one contains. If those of
the positive were as of its own event, a feature that changes over time would tell which candidate
it is. History events keep the features that they had.

A positive has the weight of its event, and sampled negatives weigh 1: the odds of a model then
grow with the mean weight of a click, such as its watch time (after Covington et al., 2016).
"""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.arguments import AVAILABLE_POPULARITY
from pipeline.log import tables
from pipeline.requests import appearances
from pipeline.requests.counting import COUNT
from pipeline.requests.encoded_columns import (
    Encoded,
    encode,
    of_candidates,
    of_requests,
    of_steps,
)
from pipeline.requests.event_times import Timed, gaps
from pipeline.requests.events import Events, Plan, appeared, event_ids
from preprocessing import known_items, negatives, splits
from preprocessing.codec import Ragged, SerializedSteps, encode_examples
from preprocessing.encoders import encoder_files
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.example_keys import (
    LABEL,
    LABEL_WEIGHT,
    REQUEST_ID,
    REQUEST_INDEX,
    REQUEST_USER,
    TIMESTAMP,
    history_key,
)
from preprocessing.schema import Schema
from preprocessing.storage.arrow_buffers import from_buffers
from preprocessing.values.farmhash import fingerprint64
from preprocessing.values.value_places import ValuePlaces

KEY, RECORD = "key", "record"
"""Columns of encoded requests: fingerprint of the request id, serialised example."""

BLOCK_REQUESTS = 8192
"""Requests of a partition that are encoded at once."""


class ShardPiece(NamedTuple):
    """Requests of one partition for one shard."""

    split: int
    shard: int
    records: pa.Table


class ItemCatalogue:
    """Items that the requests of one split draw negatives from, encoded.

    Args:
        plan: Arguments and schema.
        split: Name of the split.
        items: One row per item: item features and COUNT, see `counting.catalogue`.
        universe: All items of the data set in the order of their numbers.
        encoders: Encoder of each item feature.
    """

    def __init__(
        self,
        plan: Plan,
        split: str,
        items: pa.Table,
        universe: ValuePlaces,
        encoders: Mapping[str, FittedEncoder],
    ) -> None:
        schema, arguments = plan.schema, plan.arguments
        keys = tables.one_array(items[schema.item_key.name])
        numbers_K = universe.find(keys)
        self.draws = negatives.Catalogue(numbers_K)
        self._places = appeared(items) if arguments.draws_available else None
        if arguments.negative_sampling == "popularity":
            cumulative_K = np.cumsum(items[COUNT].to_numpy(), dtype=np.int64)
            self.draws = negatives.Catalogue(numbers_K, cumulative_K)
        elif arguments.negative_sampling == AVAILABLE_POPULARITY:
            self._places, drawn_items = appearances.read(plan, split)
            self.draws = negatives.Catalogue(drawn_items)
        self._row_of_item = np.zeros(len(universe), np.int32)
        self._row_of_item[numbers_K] = np.arange(items.num_rows)
        self._encoded = {
            feature.name: encode(encoders[feature.name], tables.one_array(items[feature.name]))
            for feature in schema.item_features
        }

    def tickets(self, events: Events, rows: np.ndarray) -> np.ndarray | None:
        """Number of the first `draws` that each request may draw from; None for all of them.

        Args:
            events: Events of a partition.
            rows: Rows of the events that are the positives of the requests.
        """
        return None if self._places is None else self._places.up_to(events.places.take(rows))

    def encoded(self, name: str, items_C: np.ndarray) -> Encoded:
        """An encoded feature of items given by number."""
        return self._encoded[name][self._row_of_item[items_C]]


def load_encoders(
    schema: Schema, vocab_dir: Any, numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, FittedEncoder]:
    """The encoder of each feature from what `build_examples` saved."""
    return {
        feature.name: encoder_files.load(feature, vocab_dir, numbers[feature.name])
        for feature in schema.encoded_features
    }


class RequestEncoder:
    """Encodes the requests of a partition.

    Args:
        plan: Arguments and schema.
        encoders: Encoder of each feature.
        catalogues: Items of each split, see `counting.catalogue`; the last one holds all items.
    """

    def __init__(
        self, plan: Plan, encoders: Mapping[str, FittedEncoder], catalogues: list[pa.Table]
    ) -> None:
        self._plan = plan
        self._encoders = encoders
        self._universe = ValuePlaces(tables.one_array(catalogues[-1][plan.schema.item_key.name]))
        self._catalogues = [
            ItemCatalogue(plan, split, items, self._universe, encoders)
            for split, items in zip(splits.SPLITS, catalogues, strict=True)
        ]

    def encode(
        self, events: Events, counters: collections.Counter[str]
    ) -> Iterator[list[ShardPiece]]:
        """Yields the requests of the partition in blocks, each in the order of shards.

        Args:
            events: Events of the partition.
            counters: Counters to which requests, users, unknown items and history lengths per split
                are added.
        """
        partition = _Partition(self._plan, self._encoders, self._universe, events)
        for split, name in enumerate(splits.SPLITS):
            rows = np.flatnonzero(events.split == split)
            if not len(rows):
                continue
            partition.count(split, rows, counters)
            yield from shard_pieces(
                split,
                self._plan.arguments.shards(name),
                rows,
                partition.request_ids(rows),
                functools.partial(partition.records, self._catalogues[split], name, counters),
            )


def shard_pieces(
    split: int,
    num_shards: int,
    requests: np.ndarray,
    ids: pa.Array,
    records: Callable[[np.ndarray, pa.Array, np.ndarray], pa.Array],
) -> Iterator[list[ShardPiece]]:
    """Yields requests in blocks, each in the order of shards.

    Args:
        split: The split of all requests.
        num_shards: Number of files of the split.
        requests: Numbers by which `records` knows the requests, int64.
        ids: Ids of the requests, large_binary.
        records: Function that encodes requests, given by number, id and fingerprint of the id.
    """
    keys = fingerprint64(ids)
    order = np.lexsort((keys, keys % np.uint64(num_shards)))
    requests, ids, keys = requests[order], ids.take(pa.array(order)), keys[order]
    for start in range(0, len(requests), BLOCK_REQUESTS):
        block = slice(start, start + BLOCK_REQUESTS)
        encoded = records(requests[block], ids[block], keys[block])
        table = pa.table({KEY: keys[block], RECORD: encoded})
        shards = (keys[block] % np.uint64(num_shards)).astype(np.int64)
        bounds = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        yield [
            ShardPiece(split, int(shards[first]), table.slice(first, end - first))
            for first, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]


def encoded_gaps(
    encoders: Mapping[str, FittedEncoder], schema: Schema, rows: Timed, requests: np.ndarray
) -> dict[str, Ragged]:
    """The gaps of the steps of some requests, by key of the example; see `event_times.gaps`."""
    columns = gaps(rows, schema, requests)
    if not columns:
        return {}
    splits_R = rows.windows(requests).row_splits
    return {
        history_key(name): Ragged(encoders[name].encode(column), splits_R)
        for name, column in columns.items()
    }


def count_unknown(
    encoders: Mapping[str, FittedEncoder],
    schema: Schema,
    item_C: Encoded,
    label_C: np.ndarray,
    split: str,
    counters: collections.Counter[str],
) -> None:
    """Adds the unknown items among candidates of a split to its counters.

    Args:
        encoders: Encoder of each feature.
        schema: Schema that names the item key.
        item_C: Encoded item keys of the candidates.
        label_C: Labels of the candidates.
        split: Name of the split.
        counters: Counters to add to.
    """
    assert isinstance(item_C, np.ndarray)  # keys have one value
    is_unknown_C = known_items.are_unknown(encoders[schema.item_key.name], item_C)
    unknown_items = known_items.UnknownItems.of(is_unknown_C, label_C)
    counters[f"{split}/unknown_positives"] += unknown_items.unknown_positives
    counters[f"{split}/unknown_negatives"] += unknown_items.unknown_negatives


class _Partition:
    """Events of a partition with every feature encoded once, from which requests are gathered."""

    def __init__(
        self,
        plan: Plan,
        encoders: Mapping[str, FittedEncoder],
        universe: ValuePlaces,
        events: Events,
    ) -> None:
        self._arguments = plan.arguments
        self._schema = plan.schema
        self._encoders = encoders
        self._events = events
        self._encoded = {
            feature.name: encode(encoders[feature.name], events.column(feature.name))
            for feature in plan.schema.encoded_features
            if not feature.is_gap
        }
        self._steps = {
            history_key(feature.name): of_steps(self._encoded[feature.name])
            for feature in plan.schema.step_features
            if not feature.is_gap
        }
        self._steps[history_key(TIMESTAMP)] = SerializedSteps(events.timestamps)
        self._items = events.items(universe)
        self._own = events.own_items(universe)

    @functools.cached_property
    def _user_texts(self) -> pa.Array:
        return self._events.column(self._schema.user_key.name).cast(pa.large_string())

    def request_ids(self, rows: np.ndarray) -> pa.Array:
        """The ids of the positives, large_binary.

        The ids are for people: code that needs the user or the index reads their own columns.
        """
        return event_ids(self._user_texts.take(pa.array(rows)), self._events.index[rows])

    def records(
        self,
        catalogue: ItemCatalogue,
        split: str,
        counters: collections.Counter[str],
        rows: np.ndarray,
        ids: pa.Array,
        keys: np.ndarray,
    ) -> pa.Array:
        """Serialised examples of the requests whose positives are `rows`, large_binary.

        The unknown items among their candidates are counted.
        """
        arguments, schema, events = self._arguments, self._schema, self._events
        drawn_RN = negatives.sample(
            catalogue.draws,
            self._own,
            events.users[rows],
            keys,
            arguments.negatives,
            arguments.seed,
            catalogue.tickets(events, rows),
        )
        order_RN = negatives.candidate_order(keys, 1 + arguments.negatives, arguments.seed)
        items_RN = np.hstack([self._items[rows][:, None], drawn_RN])
        items_RN = np.take_along_axis(items_RN, order_RN, axis=1)
        splits_R = np.arange(len(rows) + 1, dtype=np.int64) * order_RN.shape[1]

        context = {
            feature.name: of_requests(self._encoded[feature.name][rows])
            for feature in schema.user_features
        }
        encoded = {
            feature.name: catalogue.encoded(feature.name, items_RN.reshape(-1))
            for feature in schema.item_features
        }
        for name, values in encoded.items():
            context |= of_candidates(name, values, splits_R)
        labels = (order_RN == 0).astype(np.int64).reshape(-1)
        context[LABEL] = Ragged(labels, splits_R)
        if schema.weight is not None:
            weights_RN = np.where(order_RN == 0, events.weights[rows][:, None], np.float32(1.0))
            context[LABEL_WEIGHT] = Ragged(weights_RN.reshape(-1), splits_R)
        item_C = encoded[schema.item_key.name]
        count_unknown(self._encoders, schema, item_C, labels, split, counters)
        context[TIMESTAMP] = Ragged.single(events.timestamps[rows])
        context[REQUEST_ID] = Ragged.single(ids)
        context[REQUEST_USER] = Ragged.single(self._user_texts.take(pa.array(rows)))
        context[REQUEST_INDEX] = Ragged.single(events.index[rows].astype(np.int64))

        lengths_R = self._history_lengths(rows)
        history: dict[str, Ragged | pa.LargeBinaryArray] = {
            key: steps.rows(rows - lengths_R, lengths_R) for key, steps in self._steps.items()
        }
        history |= encoded_gaps(self._encoders, schema, events, rows)
        return from_buffers(*encode_examples(context, history))

    def count(self, split: int, rows: np.ndarray, counters: collections.Counter[str]) -> None:
        """Adds the requests of a split, whose positives are `rows`, to the counters."""
        name = splits.SPLITS[split]
        counters[f"{name}/requests"] += len(rows)
        counters[f"{name}/positives"] += len(rows)
        counters[f"{name}/candidates"] += len(rows) * (1 + self._arguments.negatives)
        counters[f"{name}/users"] += len(np.unique(self._events.users[rows]))
        lengths, times = np.unique(self._history_lengths(rows), return_counts=True)
        for length, count in zip(lengths.tolist(), times.tolist(), strict=True):
            counters[f"{name}/history_length/{length}"] += count

    def _history_lengths(self, rows: np.ndarray) -> np.ndarray:
        """Events in the history of each positive; they are the rows just before it."""
        return np.minimum(self._events.positions[rows], self._schema.history.max_length)
