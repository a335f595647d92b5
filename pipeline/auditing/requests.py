"""Requests of a data set as NumPy arrays, for the auditor: everything that an example holds.

Shape suffixes: B requests, N candidates, L history length, M values of a set.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from preprocessing.data_dir import DataDir
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import PAD_ID, Feature
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
            more for features of many values; M is their `max` + 1, which shows sets too large. One
            of vectors has an axis [D] more; padding and what is no such vector are NaN.
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
    from pipeline.auditing import parsing  # loads TensorFlow, for which a wrong path need not wait

    records = itertools.chain.from_iterable(read_records(path) for path in data.shards(split))
    while serialized := list(itertools.islice(records, _BATCH)):
        yield parsing.parse(data.schema, serialized)
