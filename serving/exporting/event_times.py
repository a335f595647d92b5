"""Inside the graph: what features derive from the raw times of a request and its events.

The same functions as in the job (`preprocessing.features.derived`), on tensors. A time of -1 is
missing, and so is what derives from it. An event that is said to be later than its request, as
clocks of several machines may say, is 0 seconds old.

Shapes: B requests, L history length.
"""

from collections.abc import Mapping

from models.keras import tf
from preprocessing import time_units
from preprocessing.example_keys import TIMESTAMP, history_key
from preprocessing.features import derived
from preprocessing.features.derived import Derived
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema
from preprocessing.transforms import RawEncoder

_MISSING = -1


def with_request_features(
    schema: Schema, encoder: RawEncoder, features: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Adds the hour and the weekday of each request, where the schema has them.

    Args:
        schema: Schema of the model.
        encoder: Encoder of all features.
        features: Encoded features with the raw `timestamp` [B].
    """
    ticks = time_units.ticks_per_second(schema)
    added = dict(features)
    for feature in schema.user_features:
        if feature.derived is not None:
            time_B = features[TIMESTAMP]
            value_B = derived.of_request(feature.derived, time_B, ticks)
            value_B = tf.where(time_B == _MISSING, tf.constant(_MISSING, tf.int64), value_B)
            added[feature.name] = encoder.encode(feature.name, value_B, True)
    return added


def with_gaps(
    schema: Schema, encoder: RawEncoder, features: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Adds the gaps of each event, if there are raw times to compute them from.

    Args:
        schema: Schema of the model.
        encoder: Encoder of all features.
        features: Encoded features with padding on the right of histories; perhaps the raw
            `timestamp` [B] and `history/timestamp` [B, L].
    """
    if history_key(TIMESTAMP) not in features:
        return dict(features)
    ticks = time_units.ticks_per_second(schema)
    time_BL = features[history_key(TIMESTAMP)]
    is_event_BL = features[history_key(schema.item_key.name)] != PAD_ID
    added = dict(features)
    for feature in schema.event_features:
        if not feature.is_gap:
            continue
        if feature.derived is Derived.GAP_TO_REQUEST:
            earlier_BL, later_BL = time_BL, features[TIMESTAMP][:, None]
        else:
            before_BL = tf.pad(time_BL[:, :-1], [[0, 0], [1, 0]], constant_values=_MISSING)
            earlier_BL, later_BL = before_BL, time_BL
        gap_BL = tf.maximum(derived.gap(earlier_BL, later_BL, ticks), 0)
        is_missing_BL = (earlier_BL == _MISSING) | (later_BL == _MISSING)
        gap_BL = tf.where(is_missing_BL, tf.constant(_MISSING, tf.int64), gap_BL)
        ids_BL = encoder.encode(feature.name, gap_BL)
        added[history_key(feature.name)] = tf.where(is_event_BL, ids_BL, tf.zeros_like(ids_BL))
    return added
