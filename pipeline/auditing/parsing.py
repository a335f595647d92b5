"""Examples parsed for the auditor by TensorFlow's own operations, not by the project's codec.

Shape suffixes: B requests, N candidates, L history length.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from pipeline.auditing.requests import Requests
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
from preprocessing.features.encoder_specs import Vector
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema, encoded_keys


def parse(schema: Schema, serialized: list[bytes]) -> Requests:
    """Parses a batch of examples.

    Args:
        schema: Schema of the data set.
        serialized: The examples.
    """
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
    dtype = _dtype(feature)
    if not of_candidates and feature.many is None:
        return tf.io.FixedLenFeature([], dtype)
    if not of_candidates or feature.many is None:
        return tf.io.RaggedFeature(dtype)
    lengths = tf.io.RaggedFeature.RowLengths(lengths_key(feature.name))
    return tf.io.RaggedFeature(dtype, candidate_key(feature.name), [lengths])


def _step_spec(feature: Feature) -> Any:
    """How to parse a feature of the history."""
    dtype = _dtype(feature)
    if feature.many is not None:
        return tf.io.RaggedFeature(dtype)
    return tf.io.FixedLenSequenceFeature([], dtype)


def _dtype(feature: Feature) -> tf.DType:
    if feature.is_vector:
        return tf.string
    return tf.int64 if feature.is_categorical else tf.float32


def _dense(values: Any, feature: Feature | None) -> np.ndarray:
    """Values as an array, see `Requests.values`."""
    if feature is not None and feature.is_vector:
        is_ragged = isinstance(values, tf.RaggedTensor)
        return _numbers(feature, (values.to_tensor() if is_ragged else values).numpy())
    if not isinstance(values, tf.RaggedTensor):
        return values.numpy()
    if feature is None or feature.many is None:
        return values.to_tensor().numpy()
    axes = values.shape.rank - 1
    return values.to_tensor(shape=[*([None] * axes), feature.many.max + 1]).numpy()


def _numbers(feature: Feature, stored: np.ndarray) -> np.ndarray:
    """The numbers of vectors [..., D]; NaN where bytes are not those of D numbers, or padding."""
    assert isinstance(feature.encoder, Vector)
    (size,), dtype = feature.shape, np.dtype(feature.encoder.storage).newbyteorder("<")
    none = np.full(size, np.nan, dtype).tobytes()
    flat = [one if len(one) == len(none) else none for one in stored.ravel().tolist()]
    numbers = np.frombuffer(b"".join(flat), dtype).astype(np.float32)
    return numbers.reshape(*stored.shape, size)


def _weights(weights: tf.RaggedTensor, counts_B: np.ndarray, width: int) -> np.ndarray:
    """Weights [B,N]; NaN for requests whose number of weights is not that of candidates."""
    weight_BN = weights.to_tensor(shape=[None, width]).numpy()
    weight_BN[weights.row_lengths().numpy() != counts_B] = np.nan
    return weight_BN
