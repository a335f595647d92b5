"""How many files a split takes, from the size that its requests will have when they are compressed.

The size is estimated from counts of requests, steps and candidates, which are the same for any
number of workers, and from how many bits an id of each feature can hold. Protocol buffers repeat
their tags, of which compression leaves a part of a byte. It is meant to be right within a half.
"""

import math
from collections.abc import Mapping

import numpy as np

from pipeline.arguments import DEFAULT_SHARDS
from preprocessing import splits
from preprocessing.features.encoder_specs import Numeric, Vector
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema

SHARD_BYTES = 256 << 20

_REQUEST_BYTES = 80.0  # user, id, index and time of the request, its checksums
_TIME_BYTES = 4.5  # of a step
_TAG_BYTES = 0.5  # of a value


def count(split_R: np.ndarray, steps_R: np.ndarray, candidates_R: np.ndarray) -> dict[str, int]:
    """Counters of what the requests of a partition hold: `size/<split>/<what>`.

    Args:
        split_R: Split of each request, or NONE.
        steps_R: Number of steps in the history of each.
        candidates_R: Number of candidates of each.
    """
    counters = {}
    for split, name in enumerate(splits.SPLITS):
        is_of_split_R = split_R == split
        counters[f"size/{name}/requests"] = int(is_of_split_R.sum())
        counters[f"size/{name}/steps"] = int(steps_R[is_of_split_R].sum())
        counters[f"size/{name}/candidates"] = int(candidates_R[is_of_split_R].sum())
    return counters


def estimate(
    schema: Schema, counters: Mapping[str, int], cardinality: Mapping[str, int]
) -> dict[str, int]:
    """Compressed bytes of each split.

    Args:
        schema: Schema of the data set.
        counters: Sums of what `count` counts.
        cardinality: Number of ids of each feature.
    """
    size = {
        "requests": _REQUEST_BYTES,
        "steps": _TIME_BYTES if schema.timestamp is not None else _TAG_BYTES,
        "candidates": _TAG_BYTES,  # the label
    }
    for what, features in (
        ("requests", schema.user_features),
        ("steps", schema.step_features),
        ("candidates", schema.item_features),
    ):
        size[what] += sum(_value_bytes(one, cardinality[one.name]) for one in features)
    return {
        split: round(sum(counters[f"size/{split}/{what}"] * size[what] for what in size))
        for split in splits.SPLITS
    }


def num_shards(bytes_of_split: Mapping[str, int]) -> int:
    """Number of files of train, a quarter of which validation and test have, so that none is large.

    Args:
        bytes_of_split: Compressed bytes of each split.
    """
    train, *others = (math.ceil(bytes_of_split[split] / SHARD_BYTES) for split in splits.SPLITS)
    return max(DEFAULT_SHARDS, train, 4 * max(others))


def _value_bytes(feature: Feature, cardinality: int) -> float:
    """Bytes of a value of a feature in a compressed example."""
    if isinstance(feature.encoder, Vector):
        return float(feature.shape[0] * np.dtype(feature.encoder.storage).itemsize)
    if isinstance(feature.encoder, Numeric):
        return 4.0
    size = _TAG_BYTES + math.log2(max(2, cardinality)) / 8
    return size if feature.many is None else _TAG_BYTES + size * feature.many.max
