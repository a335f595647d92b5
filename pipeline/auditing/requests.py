"""Requests of a data set as NumPy arrays, for the auditor: everything that an example holds.

Shape suffixes: B requests, N candidates, L history length, M values of a set.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.example_keys import (
    LABEL,
    LABEL_WEIGHT,
    REQUEST_ID,
    REQUEST_INDEX,
    REQUEST_USER,
    TIMESTAMP,
    candidate_key,
    history_key,
    lengths_key,
)
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.schema import Schema, encoded_keys
from preprocessing.storage.tfrecord import read_records
from preprocessing.values.farmhash import fingerprint64

_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class Requests:
    """A batch of requests; padding is 0.

    Attributes:
        ids: Request ids, large_binary [B].
        users: Raw users, large_string [B].
        index_B: Index of the positive among the events of its user; -1 in impression logs.
        values: Encoded features by their key in the example: [B], [B,N] or [B,L], with an axis [M]
            more for features of many values; M is their `max` + 1, which shows sets too large.
        label_BN: Label of each candidate, 1 for the positive.
        is_candidate_BN: Whether each candidate is real; False for padding.
        weight_BN: Weight of each candidate, NaN if its request has not one per candidate; None if
            the schema has no weights.
        timestamp_B: Time of the positive.
        history_time_BL: Time of each history event.
        is_event_BL: Whether each history event is real; False for padding.
    """

    ids: pa.Array
    users: pa.Array
    index_B: np.ndarray
    values: dict[str, np.ndarray]
    label_BN: np.ndarray
    is_candidate_BN: np.ndarray
    weight_BN: np.ndarray | None
    timestamp_B: np.ndarray
    history_time_BL: np.ndarray
    is_event_BL: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths_B(self) -> np.ndarray:
        """Events per history."""
        return self.is_event_BL.sum(axis=1)

    @property
    def user_B(self) -> np.ndarray:
        """Fingerprints of the raw users, int64 [B]."""
        return fingerprint64(self.users).view(np.int64)

    def mask(self, key: str) -> np.ndarray:
        """Whether each request, candidate or event that a key belongs to is real."""
        if key.startswith(candidate_key("")):
            return self.is_candidate_BN
        return self.is_event_BL if key.startswith(history_key("")) else np.ones(len(self), bool)

    def real(self, key: str, mask: np.ndarray) -> np.ndarray:
        """The values of a key where a mask holds; those of sets one by one, 0 for an empty set.

        Args:
            key: Key of a feature in the example.
            mask: Mask in the shape of `self.mask(key)`.
        """
        values = self.values[key][mask]
        if values.ndim == 1:
            return values
        is_shown = values != PAD_ID
        is_shown[:, 0] |= ~is_shown.any(axis=1)
        return values[is_shown]

    def positives(self, feature: Feature) -> np.ndarray:
        """Values of an item feature of the positives, [B] or [B, M]."""
        return self.values[candidate_key(feature.name)][
            np.arange(len(self)), self.label_BN.argmax(axis=1)
        ]


def not_sets(values: np.ndarray, largest: int) -> np.ndarray:
    """Whether each entry is no set: too many ids, one that stands twice, or padding among them.

    Args:
        values: int64 [..., M] as `Requests.values` has them.
        largest: Largest number of ids.
    """
    in_order = np.sort(values, axis=-1)
    is_again = (in_order[..., 1:] == in_order[..., :-1]) & (in_order[..., 1:] != PAD_ID)
    has_gap = (values[..., 1:] != PAD_ID) & (values[..., :-1] == PAD_ID)
    return (values[..., largest:] != PAD_ID).any(-1) | is_again.any(-1) | has_gap.any(-1)


class Verdict(NamedTuple):
    """Requests that break a promise of `pipeline.audit.CHECKS`, and the reason.

    Attributes:
        check: Name of the promise.
        bad: Whether each request breaks the promise, or how often it does.
        why: Reason, for people.
    """

    check: str
    bad: np.ndarray
    why: str


def request_batches(data: DataDir, split: str) -> Iterator[Requests]:
    """Yields the requests of a split in the order of the shards; checksums are checked."""
    records = itertools.chain.from_iterable(read_records(path) for path in data.shards(split))
    while serialized := list(itertools.islice(records, _BATCH)):
        yield _parse(data.schema, serialized)


def _parse(schema: Schema, serialized: list[bytes]) -> Requests:
    keys = dict(encoded_keys(schema))
    candidates = {key for key in keys if key.startswith(candidate_key(""))} | {LABEL}
    histories = {key for key in keys if key.startswith(history_key(""))} | {history_key(TIMESTAMP)}
    context, sequences, lengths = tf.io.parse_sequence_example(
        serialized,
        context_features={
            REQUEST_ID: tf.io.FixedLenFeature([], tf.string),
            REQUEST_USER: tf.io.FixedLenFeature([], tf.string),
            REQUEST_INDEX: tf.io.FixedLenFeature([], tf.int64, -1),
            TIMESTAMP: tf.io.FixedLenFeature([], tf.int64),
            LABEL: tf.io.RaggedFeature(tf.int64),
            **({LABEL_WEIGHT: tf.io.RaggedFeature(tf.float32)} if schema.weight else {}),
            **{
                key: _spec(feature, key in candidates)
                for key, feature in keys.items()
                if key not in histories
            },
        },
        sequence_features={
            history_key(TIMESTAMP): tf.io.FixedLenSequenceFeature([], tf.int64),
            **{key: _step_spec(feature) for key, feature in keys.items() if key in histories},
        },
    )
    counts_B = context[LABEL].row_lengths().numpy()
    weights = context.pop(LABEL_WEIGHT, None)
    dense = {key: _dense(value, keys.get(key)) for key, value in {**context, **sequences}.items()}
    lengths_B = lengths[history_key(TIMESTAMP)].numpy()
    label_BN, time_BL = dense[LABEL], dense[history_key(TIMESTAMP)]
    return Requests(
        ids=pa.array(dense[REQUEST_ID].tolist(), pa.large_binary()),
        users=pa.array(dense[REQUEST_USER].tolist(), pa.large_binary()).cast(pa.large_string()),
        index_B=dense[REQUEST_INDEX],
        values={key: dense[key] for key in keys},
        label_BN=label_BN,
        is_candidate_BN=np.arange(label_BN.shape[1])[None] < counts_B[:, None],
        weight_BN=None if weights is None else _weights(weights, counts_B, label_BN.shape[1]),
        timestamp_B=dense[TIMESTAMP],
        history_time_BL=time_BL,
        is_event_BL=np.arange(time_BL.shape[1])[None] < lengths_B[:, None],
    )


def _spec(feature: Feature, of_candidates: bool) -> Any:
    """How to parse a feature of the user, the context or candidates."""
    dtype = tf.int64 if feature.is_categorical else tf.float32
    if not of_candidates and feature.many is None:
        return tf.io.FixedLenFeature([], dtype)
    if not of_candidates or feature.many is None:
        return tf.io.RaggedFeature(dtype)
    lengths = tf.io.RaggedFeature.RowLengths(lengths_key(feature.name))
    return tf.io.RaggedFeature(dtype, candidate_key(feature.name), [lengths])


def _step_spec(feature: Feature) -> Any:
    """How to parse a feature of the history."""
    dtype = tf.int64 if feature.is_categorical else tf.float32
    if feature.many is not None:
        return tf.io.RaggedFeature(dtype)
    return tf.io.FixedLenSequenceFeature([], dtype)


def _dense(values: Any, feature: Feature | None) -> np.ndarray:
    """Values as an array, see `Requests.values`."""
    if not isinstance(values, tf.RaggedTensor):
        return values.numpy()
    if feature is None or feature.many is None:
        return values.to_tensor().numpy()
    axes = values.shape.rank - 1
    return values.to_tensor(shape=[*([None] * axes), feature.many.max + 1]).numpy()


def _weights(weights: tf.RaggedTensor, counts_B: np.ndarray, width: int) -> np.ndarray:
    """Weights [B,N]; NaN for requests whose number of weights is not that of candidates."""
    weight_BN = weights.to_tensor(shape=[None, width]).numpy()
    weight_BN[weights.row_lengths().numpy() != counts_B] = np.nan
    return weight_BN
