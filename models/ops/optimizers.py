"""Optimisers of embedding tables with sparse gradients."""

from typing import Any

from models.keras import keras, tf


def sum_duplicates(gradient: Any) -> Any:
    """A sparse gradient with distinct indices, whose norm is that of the dense gradient.

    Args:
        gradient: IndexedSlices; any other gradient is returned unchanged.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices, positions = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


@keras.saving.register_keras_serializable("sequence_ctr")
class LazyAdam(keras.optimizers.Adam):
    """Adam that updates only the rows whose ids occur in the batch.

    Stock Adam decays the moments of every row and rewrites the whole table at each step; here rows
    that the batch does not touch keep their moments and values. That differs slightly from Adam
    (the moments of a rare row decay per update of this row, not per step) and makes tables of
    millions of rows affordable. Gradients of repeated ids are summed before they are squared.
    """

    def _deduplicate_sparse_grad(self, gradients: list[Any]) -> list[Any]:
        """Sums repeated ids; called after aggregation over replicas, before `update_step`."""
        return [sum_duplicates(gradient) for gradient in gradients]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Applies one gradient, in place.

        Args:
            gradient: Sparse gradient with distinct indices, or a dense one (for plain Adam).
            variable: Table to update.
        """
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable)
            return
        dtype = variable.dtype
        slot = self._index_dict[self._var_key(variable)]
        momentum, velocity = self._momentums[slot], self._velocities[slot]
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        correction = tf.sqrt(1.0 - tf.pow(beta_2, step)) / (1.0 - tf.pow(beta_1, step))
        rate = tf.cast(self.learning_rate, dtype) * correction

        rows, values = gradient.indices, gradient.values
        momentum_rows = beta_1 * tf.gather(momentum, rows) + (1.0 - beta_1) * values
        velocity_rows = beta_2 * tf.gather(velocity, rows) + (1.0 - beta_2) * tf.square(values)
        momentum.scatter_update(tf.IndexedSlices(momentum_rows, rows))
        velocity.scatter_update(tf.IndexedSlices(velocity_rows, rows))
        change = rate * momentum_rows / (tf.sqrt(velocity_rows) + self.epsilon)
        variable.scatter_sub(tf.IndexedSlices(change, rows))


TABLE_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "lazy_adam": LazyAdam,
    "adagrad": keras.optimizers.Adagrad,
    "adam": keras.optimizers.Adam,
}
"""Optimisers by name in `train.embedding_optimizer`. The cost of lazy Adam and Adagrad is
proportional to the rows that a step touches; Adam decays the moments of all rows at every step, as
its paper says, at the cost of the whole table."""

TABLE_SLOTS = {"lazy_adam": 2, "adagrad": 1, "adam": 2}
"""Number of slots of each optimiser per weight."""


def table_optimizer(name: str, learning_rate: Any) -> keras.optimizers.Optimizer:
    """The optimiser of the tables.

    Args:
        name: A key of `TABLE_OPTIMIZERS`.
        learning_rate: A number or a schedule.
    """
    # XLA would recompile for every number of rows that a batch touches.
    return TABLE_OPTIMIZERS[name](learning_rate, jit_compile=False)
