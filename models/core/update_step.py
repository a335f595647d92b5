"""The update of the weights from a loss: scaled, clipped, and only if all numbers are finite."""

from collections.abc import Sequence
from typing import Any

from models.keras import keras, tf
from models.ops import replicas
from models.ops.optimizers import sum_duplicates
from models.ops.precision import LossScale

Gradients = list[Any]
"""Tensors, `IndexedSlices` of the rows that a step touched, or None where there is no gradient."""


def update(
    total: tf.Tensor,
    tape: tf.GradientTape,
    weights: tuple[list[tf.Variable], list[tf.Variable]],
    optimizers: tuple[keras.optimizers.Optimizer, keras.optimizers.Optimizer],
    *,
    clip_norm: float = 0.0,
    table_clip_norm: float = 0.0,
    loss_scale: LossScale | None = None,
) -> dict[str, tf.Tensor]:
    """Updates tables and dense weights, each with its own optimiser.

    With a loss scale, a gradient that is not finite changes the scale instead of the weights.

    Args:
        total: This replica's share of the loss.
        tape: Tape that recorded the loss.
        weights: The tables and the dense weights.
        optimizers: Optimiser of the tables and that of the dense weights.
        clip_norm: Bound on the global norm of all gradients; 0 for none.
        table_clip_norm: Bound on the global norm of the tables' gradients; `clip_norm` then bounds
            those of the dense weights alone. 0 for one bound on all gradients.
        loss_scale: Factor of the loss in half precision, which the gradients are divided by.

    Returns:
        The gradient norms of the global batch before clipping: over all weights, over the tables
        and over the dense weights.

    Raises:
        tf.errors.InvalidArgumentError: The loss or, without a loss scale, the gradient is not
            finite; no weight has changed.
    """
    tf.debugging.assert_all_finite(total, "The loss is not finite.")
    tables, dense = weights
    gradients = _gradients(total, tape, tables + dense, optimizers[1], loss_scale)
    of_tables, of_dense = gradients[: len(tables)], gradients[len(tables) :]
    table_norm, dense_norm = _norm(of_tables), _norm(of_dense)
    norm = tf.sqrt(tf.square(table_norm) + tf.square(dense_norm))
    if table_clip_norm:
        gradients = [
            *_clipped(of_tables, table_clip_norm, table_norm),
            *_clipped(of_dense, clip_norm, dense_norm),
        ]
    else:
        gradients = _clipped(gradients, clip_norm, norm)

    def apply(gradients: Gradients) -> None:
        parts = gradients[: len(tables)], gradients[len(tables) :]
        for optimizer, part, trained in zip(optimizers, parts, weights, strict=True):
            optimizer.apply_gradients(
                zip(part, trained, strict=True), skip_gradients_aggregation=True
            )

    if loss_scale is None:
        finite = tf.debugging.assert_all_finite(norm, "The gradient is not finite.")
        with tf.control_dependencies([finite]):  # Weights stay those of the last good step.
            apply(gradients)
    else:
        replicas.apply_if(tf.math.is_finite(norm), apply, gradients, loss_scale.update)
    return {
        "gradient_norm": norm,
        "gradient_norm_tables": table_norm,
        "gradient_norm_dense": dense_norm,
    }


def _gradients(
    total: tf.Tensor,
    tape: tf.GradientTape,
    weights: Sequence[tf.Variable],
    optimizer: keras.optimizers.Optimizer,
    loss_scale: LossScale | None,
) -> Gradients:
    """Gradients of the global batch, each row of a table at most once."""
    scale = None if loss_scale is None else loss_scale.value.read_value()
    gradients = tape.gradient(total, weights, output_gradients=scale)
    # Summed over replicas before clipping, so that the norm is that of the global batch.
    pairs = optimizer.aggregate_gradients(list(zip(gradients, weights, strict=True)))
    gradients = [sum_duplicates(gradient) for gradient, _ in pairs]
    if scale is None:
        return gradients
    return [gradient if gradient is None else _divided(gradient, scale) for gradient in gradients]


def _norm(gradients: Gradients) -> tf.Tensor:
    """The global norm of gradients; 0 if there are none."""
    present = [gradient for gradient in gradients if gradient is not None]
    return tf.linalg.global_norm(present) if present else tf.zeros([])


def _clipped(gradients: Gradients, bound: float, norm: tf.Tensor) -> Gradients:
    """Gradients clipped to a global norm of at most `bound`; 0 for no bound."""
    if not bound or all(gradient is None for gradient in gradients):
        return gradients
    return tf.clip_by_global_norm(gradients, bound, norm)[0]


def _divided(gradient: tf.Tensor | tf.IndexedSlices, divisor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values / divisor, gradient.indices, gradient.dense_shape)
    return gradient / divisor
