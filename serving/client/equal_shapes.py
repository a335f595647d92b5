"""Requests of equal shapes, for servers that batch: what differs in shape is not computed together.

A server that batches pads tensors with their first value, which would be one more event of a
history and one more value of a set.
"""

from collections.abc import Mapping
from typing import Any

from preprocessing.errors import UserError
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from serving.client.request_format import CANDIDATE_INPUT, HISTORY_INPUT, widened


def of_equal_shapes(inputs: Mapping[str, Any], schema: Schema, where: str) -> dict[str, list[Any]]:
    """The inputs of one request with histories of the schema's length, and sets of `max` values.

    Args:
        inputs: Inputs of `serving_default` as `RequestFormat.inputs` gives them.
        schema: Schema of the model.
        where: Name of the request in error messages.

    Raises:
        UserError: A set has more values than the `max` of its feature: which of them count, only
            the model knows.
    """
    equal = dict(inputs)
    for feature in schema.request_fields:
        equal[feature.name] = _sets(feature, equal[feature.name], where)
    for feature in schema.item_features:
        name = CANDIDATE_INPUT + feature.name
        equal[name] = [_sets(feature, equal[name][0], where)]
    length = schema.history.max_length
    for feature in schema.event_fields:
        name = HISTORY_INPUT + feature.name
        column = _sets(feature, equal[name][0], where)[-length:]
        pad: Any = feature.pad_value
        if feature.axes:
            pad = [pad] * feature.value_shape[0]
        equal[name] = [column + [pad] * (length - len(column))]
    return equal


def _sets(feature: Feature, column: list[Any], where: str) -> list[Any]:
    """The values of a column; sets are padded to the `max` of the feature."""
    if feature.many is None:
        return column
    largest = max(map(len, column))
    if largest > feature.many.max:
        raise UserError(
            f"{where}: expected at most {feature.many.max} values in {feature.name!r} for requests "
            f"of equal shapes, found {largest}.",
            "send the most frequent ones only.",
        )
    return widened(column, feature.many.max, feature.pad_value)
