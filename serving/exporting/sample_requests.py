"""Requests of a data set as people write them: the inverse of `serving.client.request_format`."""

import math
from typing import Any

import numpy as np

from preprocessing.data_dir import DataDir
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import Feature
from preprocessing.known_items import are_unknown
from serving.client.request_format import CANDIDATES, HISTORY
from serving.exporting.raw_requests import RawBatch, batches
from serving.exporting.signatures import raw_inputs

_LOOKED_AT = 200
"""Number of requests among which the most familiar ones are found."""


def sample_requests(data: DataDir, split: str, count: int) -> list[dict[str, Any]]:
    """The first requests of a split, ready for `serving.score`.

    Args:
        data: Data set to read.
        split: Split to read: train, validation or test.
        count: Largest number of requests; a smaller split gives fewer.

    Raises:
        UserError: The data set has no such split, or a shard is damaged.
    """
    batch = next(batches(data, split, count, limit=count), None)
    return [] if batch is None else [to_request(data, batch, i) for i in range(len(batch.examples))]


def known_requests(data: DataDir, split: str, count: int) -> list[dict[str, Any]]:
    """Requests to show to people: those with the fewest unknown values among the first of a split.

    A data set holds ids. What stands for an unknown value is made up, and says nothing to whoever
    knows the log.

    Args:
        data: Data set to read.
        split: Split to read: train, validation or test.
        count: Largest number of requests; they stand in the order of the split.

    Raises:
        UserError: The conditions of `sample_requests`.
    """
    batch = next(batches(data, split, _LOOKED_AT, limit=_LOOKED_AT), None)
    if batch is None:
        return []
    unknown_B = np.zeros(len(batch.examples), int)
    for feature, key in raw_inputs(data.schema).values():
        if feature.is_categorical:
            ids = batch.features[key].numpy().reshape(len(unknown_B), -1)
            unknown_B += are_unknown(data.encoders[feature.name], ids).sum(axis=1)
    chosen = np.sort(np.argsort(unknown_B, kind="stable")[:count])
    return [to_request(data, batch, int(row)) for row in chosen]


def to_request(data: DataDir, batch: RawBatch, row: int) -> dict[str, Any]:
    """One request of a batch.

    Args:
        data: The data set that the batch was read from.
        batch: Decoded requests.
        row: Index of the request in the batch.
    """
    schema = data.schema
    named = {key: batch.raw[name][row] for name, (_, key) in raw_inputs(schema).items()}
    request = {f.name: _value(f, named[f.key_name]) for f in schema.request_fields}
    for part, features, key_of in (
        (HISTORY, schema.event_fields, history_key),
        (CANDIDATES, schema.item_features, candidate_key),
    ):
        request[part] = _records(features, [named[key_of(f.key_name)] for f in features])
    return request


def _records(features: tuple[Feature, ...], columns: list[np.ndarray]) -> list[dict[str, Any]]:
    """One record per event or candidate, without those whose item key (in front) is padding."""
    padding = _plain(features[0].pad_value)
    rows = (
        [_value(feature, value) for feature, value in zip(features, row, strict=True)]
        for row in zip(*columns, strict=True)
    )
    names = [feature.name for feature in features]
    return [dict(zip(names, row, strict=True)) for row in rows if row[0] != padding]


def _value(feature: Feature, value: Any) -> Any:
    """A value; the list of a set without padding; the list of the numbers of a vector."""
    if feature.is_vector:
        return [_plain(number) for number in value]
    if feature.many is None:
        return _plain(value)
    return [one for one in map(_plain, value) if one != feature.pad_value]


def _plain(value: Any) -> Any:
    """A value as a type that JSON has; a missing number is None."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.float32):
        value = float(str(value))  # 3.04; as float64 it would be 3.0399999618530273
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
