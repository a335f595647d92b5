"""What Keras hands to a step as features with labels: data, labels and weights in one mapping.

Shapes: B requests, N candidates.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from models.keras import keras, tf
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL
from preprocessing.schema import Schema, encoded_keys

SAMPLE_WEIGHT = "label/sample_weight"
"""Key of the weights of samples that a caller of `fit` gives beside the features."""


def unpacked(data: Any) -> dict[str, tf.Tensor]:
    """Features with labels and weights, from a batch in any form that Keras knows.

    Args:
        data: Features [B, ...] with `label` among them, or (features, labels) or (features, labels,
            weights) with labels [B, N] and weights [B] or [B, N].

    Raises:
        UserError: Labels or weights have another number of axes.

    Example:
        >>> batch = ({"candidate/item_id": tf.constant([[5, 6]])}, [[1, 0]], [2.0])
        >>> unpacked(batch)["label/sample_weight"].numpy().tolist()
        [[2.0]]
    """
    features, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(features, Mapping):
        raise UserError(
            f"Expected a mapping of features by name, found {type(features).__name__}.",
            "read batches with preprocessing.batches.",
        )
    content = dict(features)
    if labels is not None:
        content[LABEL] = _floats(labels, "labels [B, N]", (2,))
    if weights is not None:
        weights = _floats(weights, "sample weights [B] or [B, N]", (1, 2))
        content[SAMPLE_WEIGHT] = weights if weights.shape.rank == 2 else weights[:, None]
    return content


def require_features(schema: Schema, names: Iterable[str], labelled: bool) -> None:
    """Checks the names of features before a step is traced.

    Args:
        schema: Schema of the model.
        names: Names that the data has.
        labelled: Whether labels are needed.

    Raises:
        UserError: A name is missing.
    """
    needed = [key for key, _ in encoded_keys(schema)] + [LABEL] * labelled
    names = set(names)
    if missing := [name for name in needed if name not in names]:
        raise UserError(
            f"Expected the features {', '.join(needed)}, found no {', '.join(missing)}.",
            "read batches with preprocessing.batches, or encode them with the data set's encoders.",
        )


def class_weights(class_weight: Mapping[int, float] | None) -> tuple[float, float] | None:
    """The weights of labels 0 and 1 from a Keras `class_weight`; None for none.

    Raises:
        UserError: There is another class, or a weight is negative.
    """
    if not class_weight:
        return None
    if set(class_weight) - {0, 1} or min(class_weight.values()) < 0:
        raise UserError(
            f"Expected class_weight with weights of at least 0 for the labels 0 and 1, found "
            f"{dict(class_weight)}.",
            "write class_weight={0: 1.0, 1: 2.0}.",
        )
    return float(class_weight.get(0, 1.0)), float(class_weight.get(1, 1.0))


def weighted(features: Mapping[str, tf.Tensor], weights: tuple[float, float]) -> dict[str, Any]:
    """The features, with each sample's weight multiplied by that of its label."""
    of_label_BN = tf.where(features[LABEL] > 0, weights[1], weights[0])
    return {**features, SAMPLE_WEIGHT: features.get(SAMPLE_WEIGHT, 1.0) * of_label_BN}


def _floats(values: Any, described: str, ranks: tuple[int, ...]) -> tf.Tensor:
    values = tf.cast(values, tf.float32)
    if values.shape.rank not in ranks:
        raise UserError(f"Expected {described}, found a tensor of shape {values.shape}.")
    return values
