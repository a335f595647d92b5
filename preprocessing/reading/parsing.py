"""Parses serialized examples as they are stored, on several cores at once if asked to.

Shape suffixes: B requests, R requests of a block, X values of a row.
"""

import itertools
from typing import Any

import tensorflow as tf

from preprocessing.example_keys import (
    LABEL,
    LABEL_WEIGHT,
    REQUEST_ID,
    REQUEST_USER,
    TIMESTAMP,
    candidate_key,
    history_key,
    lengths_key,
)
from preprocessing.features.feature import Feature
from preprocessing.reading.decoded import padded
from preprocessing.schema import Schema


def parse_stored(
    schema: Schema,
    serialized_B: tf.Tensor,
    with_users: bool = False,
    with_event_times: bool = False,
) -> dict[str, tf.Tensor]:
    """As `preprocessing.dataset.parse`, with vectors as bytes."""
    candidates = {candidate_key(f.name): f for f in schema.item_features}
    histories = {history_key(f.name): f for f in schema.step_features}
    context_spec: dict[str, Any] = {
        f.name: _spec(f, tf.io.FixedLenFeature) for f in schema.user_features
    }
    context_spec |= {key: _candidate_spec(feature) for key, feature in candidates.items()}
    context_spec[LABEL] = tf.io.RaggedFeature(tf.int64)
    if schema.weight is not None:
        context_spec[LABEL_WEIGHT] = tf.io.RaggedFeature(tf.float32)
    context_spec[TIMESTAMP] = tf.io.FixedLenFeature([], tf.int64, 0)
    context_spec[REQUEST_ID] = tf.io.FixedLenFeature([], tf.string, "")
    if with_users:
        context_spec[REQUEST_USER] = tf.io.FixedLenFeature([], tf.string)
    steps_spec = {
        key: _spec(feature, tf.io.FixedLenSequenceFeature) for key, feature in histories.items()
    }
    if with_event_times:
        steps_spec[history_key(TIMESTAMP)] = tf.io.FixedLenSequenceFeature([], tf.int64)
    context, sequences, _ = tf.io.parse_sequence_example(
        serialized_B, context_features=context_spec, sequence_features=steps_spec
    )
    features = {**context, **sequences}
    for feature in schema.user_features:
        if feature.many is not None:
            features[feature.name] = context[feature.name].to_tensor(shape=[None, feature.many.max])
    for key, feature in (candidates | histories).items():
        if isinstance(features[key], tf.RaggedTensor):
            shape = [None, None] if feature.is_vector else [None, None, *feature.value_shape]
            features[key] = features[key].to_tensor(shape=shape)
    shape = tf.shape(features[candidate_key(schema.item_key.name)])
    features[LABEL] = tf.cast(context[LABEL].to_tensor(shape=shape), tf.float32)
    if schema.weight is not None:
        features[LABEL_WEIGHT] = context[LABEL_WEIGHT].to_tensor(shape=shape)
    return features


def parse_in_pieces(
    schema: Schema, serialized_R: tf.Tensor, with_users: bool, pieces: int
) -> dict[str, tf.Tensor]:
    """What `parse_stored` returns, from as many parsing operations as there are pieces.

    One operation parses its examples one after another; several run at once. So the memory of a
    block does not grow with the number of cores that parse it.

    Args:
        schema: Schema of the examples.
        serialized_R: [R] strings, at least one.
        with_users: Whether to return `request/user` as well.
        pieces: Number of pieces.
    """
    if pieces == 1:
        return parse_stored(schema, serialized_R, with_users)
    requests = tf.size(serialized_R)
    # No operation parses nothing, so a few requests are parsed again until each piece has one.
    repeated_X = tf.repeat(serialized_R[:1], tf.maximum(pieces - requests, 0))
    serialized_X = tf.concat([serialized_R, repeated_X], 0)
    bounds = [tf.size(serialized_X) * piece // pieces for piece in range(pieces + 1)]
    parts = [
        parse_stored(schema, serialized_X[start:end], with_users)
        for start, end in itertools.pairwise(bounds)
    ]
    return {name: _joined([part[name] for part in parts])[:requests] for name in parts[0]}


def _joined(parts: list[tf.Tensor]) -> tf.Tensor:
    """Rows of all parts; rows [R, X] or [R, X, M] of unknown X padded to the longest."""
    if parts[0].shape.rank > 1 and parts[0].shape[1] is None:
        width = tf.reduce_max([tf.shape(part, tf.int64)[1] for part in parts])
        parts = [padded(part, width) for part in parts]
    return tf.concat(parts, 0)


def _spec(feature: Feature, single: Any) -> Any:
    """How to parse a feature: a list of ids if it has many values, else as a `single` value."""
    return single([], _dtype(feature)) if feature.many is None else tf.io.RaggedFeature(tf.int64)


def _candidate_spec(feature: Feature) -> Any:
    """How to parse an item feature of candidates; sets stand beside their lengths."""
    if feature.many is None:
        return tf.io.RaggedFeature(_dtype(feature))
    lengths = tf.io.RaggedFeature.RowLengths(lengths_key(feature.name))
    return tf.io.RaggedFeature(
        tf.int64, candidate_key(feature.name), [lengths], row_splits_dtype=tf.int64
    )


def _dtype(feature: Feature) -> tf.DType:
    if feature.is_vector:
        return tf.string
    return tf.int64 if feature.is_categorical else tf.float32
