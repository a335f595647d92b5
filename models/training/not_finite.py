"""Finds the loss terms and tensors of a failed step that are not finite."""

from collections.abc import Mapping

from models.core.base import CTRModel, share
from models.core.embeddings import Features
from models.keras import tf

_SHOWN = 5


def culprits(model: CTRModel, features: Features, ssl: bool) -> str:
    """Repeats the forward and backward pass of a step and names the tensors that are not finite.

    Args:
        model: Model with the weights from before the step.
        features: Batch of the step, over all replicas.
        ssl: Whether the step is one of the self-supervised loss alone.

    Returns:
        Loss terms, weights and gradients that are not finite; "" if all are.
    """
    with tf.GradientTape() as tape:
        terms = model.next_terms(features, ssl)
        shares = {name: share(term) for name, term in terms.items()}
        total = tf.add_n([terms[name].weight * value for name, value in shares.items()])
    weights = model.trainable_variables
    gradients = tape.gradient(total, weights)
    descriptions = [
        *_named("loss term", shares),
        *_named("weight", {weight.name: weight for weight in weights}),
        *_named(
            "gradient of",
            {
                weight.name: tf.convert_to_tensor(
                    gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
                )
                for weight, gradient in zip(weights, gradients, strict=True)
                if gradient is not None
            },
        ),
    ]
    return ", ".join(descriptions[:_SHOWN]) + (
        f" and {len(descriptions) - _SHOWN} more" if len(descriptions) > _SHOWN else ""
    )


def _named(kind: str, tensors: Mapping[str, tf.Tensor]) -> list[str]:
    """Descriptions of the tensors that hold anything but finite numbers."""
    described = []
    for name, tensor in tensors.items():
        wrong = ~tf.math.is_finite(tf.convert_to_tensor(tensor))
        if tf.reduce_any(wrong):
            count, size = int(tf.reduce_sum(tf.cast(wrong, tf.int64))), int(tf.size(wrong))
            extent = "" if size == 1 else f" ({count:,} of {size:,} values)"
            described.append(f"{kind} {name}{extent}")
    return described
