"""Requests of a data set, read back as a client would send them.

Examples on disk hold ids; the signature takes raw values. Decoding the ids gives raw values that
encode to the same ids. So the scores of both signatures can be compared, and warm-up requests have
the shapes of real ones.

Shapes: B requests, N candidates, L history length, M values of a set.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from models.keras import tf
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.example_keys import TIMESTAMP, history_key
from preprocessing.features.feature import PAD_ID, DType
from preprocessing.schema import Schema
from preprocessing.storage.tfrecord import read_records
from serving.exporting.signatures import history_input, raw_inputs


@dataclasses.dataclass(frozen=True)
class RawBatch:
    """A batch of requests in the three forms in which a model takes them.

    Attributes:
        examples: Serialized SequenceExamples as objects of type bytes, [B].
        features: Encoded features, as `preprocessing.dataset.parse` returns them.
        raw: Inputs of `serving_default` by name; strings are objects of type bytes.
    """

    examples: np.ndarray
    features: dict[str, tf.Tensor]
    raw: dict[str, np.ndarray]


def batches(data: DataDir, split: str, batch_size: int, limit: int = 0) -> Iterator[RawBatch]:
    """Yields the requests of a split in the order of the shards.

    Args:
        data: Data set to read.
        split: Split to read: train, validation or test.
        batch_size: Number of requests B in a batch; the last batch may be smaller.
        limit: Number of requests to stop at; 0 for all.

    Raises:
        UserError: The data set has no such split, or a shard is damaged.
    """
    records = itertools.chain.from_iterable(read_records(path) for path in data.shards(split))
    limited = itertools.islice(records, limit or None)
    while chunk := list(itertools.islice(limited, batch_size)):
        yield decode(data, chunk)


def decode(data: DataDir, records: list[bytes]) -> RawBatch:
    """Parses serialized examples into a batch with their encoded and raw values."""
    examples = np.array(records, object)
    schema = data.schema
    inputs = raw_inputs(schema)
    time_key = history_key(TIMESTAMP)
    with_times = any(key == time_key for _, key in inputs.values())
    features = dataset.parse(schema, tf.constant(examples), with_event_times=with_times)
    # The model reads what derives from times of events, not the times.
    times_BL = features.pop(time_key).numpy() if with_times else np.zeros(0)
    raw = {}
    for name, (feature, key) in inputs.items():
        if key == time_key:
            is_event_BL = features[history_key(schema.item_key.name)].numpy() != PAD_ID
            raw[name] = np.where(is_event_BL, times_BL, feature.pad_value)
            continue
        if feature == schema.timestamp:
            raw[name] = features[key].numpy()
            continue
        values = data.encoders[feature.name].decode(features[key].numpy())
        if feature.dtype is DType.STRING:
            texts = [text.encode() for text in values.ravel()]
            encoded = np.empty(len(texts), object)
            encoded[:] = texts
            values = encoded.reshape(values.shape)
        raw[name] = values
    if any(feature.axes for feature in schema.event_fields):
        _keep_a_step(schema, raw)
    return RawBatch(examples, features, raw)


def _keep_a_step(schema: Schema, raw: dict[str, np.ndarray]) -> None:
    """Gives histories without any step one of padding: JSON cannot say how wide no steps are."""
    for feature in schema.event_fields:
        name = history_input(feature.name)
        values = raw[name]
        if not values.shape[1]:
            shape = (len(values), 1, *values.shape[2:])
            pad = feature.pad_value
            raw[name] = np.full(shape, pad.encode() if isinstance(pad, str) else pad, values.dtype)
