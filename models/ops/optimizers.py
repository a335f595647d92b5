"""Optimisers of embedding tables with sparse gradients."""

import types
from collections.abc import Iterable, Mapping
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


class _OwnRates(keras.optimizers.Optimizer):
    """Mixin ahead of an optimiser: some tables learn at a share of its rate.

    What the optimiser changed is scaled afterwards, which is exact for any optimiser whose changes
    are proportional to its rate. Tables without a factor are updated as if this class was not here.
    """

    updates_all_rows = False
    """Whether a sparse gradient changes rows that it does not name."""
    _factors: Mapping[Any, float] = types.MappingProxyType({})

    def set_factor(self, tables: Iterable[tf.Variable], factor: float) -> None:
        """Multiplies the learning rate of some tables."""
        added = {self._var_key(table): factor for table in tables}
        # A plain dictionary would become part of checkpoints.
        self._factors = types.MappingProxyType({**self._factors, **added})

    def factors(self, tables: Iterable[tf.Variable]) -> list[float]:
        """Factors of the learning rate of some tables, in their order."""
        return [self._factors.get(self._var_key(table), 1.0) for table in tables]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Applies one gradient, in place."""
        factor = self._factors.get(self._var_key(variable), 1.0)
        if factor == 1.0:
            super().update_step(gradient, variable)
            return
        if self.updates_all_rows or not isinstance(gradient, tf.IndexedSlices):
            before = tf.identity(variable)
            super().update_step(gradient, variable)
            variable.assign(before + factor * (variable - before))
            return
        rows = gradient.indices
        before = tf.gather(variable, rows)
        super().update_step(gradient, variable)
        change = factor * (tf.gather(variable, rows) - before)
        variable.scatter_update(tf.IndexedSlices(before + change, rows))


class _TableLazyAdam(_OwnRates, LazyAdam):
    """Lazy Adam of tables."""


class _TableAdagrad(_OwnRates, keras.optimizers.Adagrad):
    """Adagrad of tables."""


class _TableAdam(_OwnRates, keras.optimizers.Adam):
    """Adam of tables."""

    updates_all_rows = True


TABLE_OPTIMIZERS: dict[str, type[_OwnRates]] = {
    "lazy_adam": _TableLazyAdam,
    "adagrad": _TableAdagrad,
    "adam": _TableAdam,
}
"""Optimisers by name in `train.embedding_optimizer`. The cost of lazy Adam and Adagrad is
proportional to the rows that a step touches; Adam decays the moments of all rows at every step, as
its paper says, at the cost of the whole table."""

TABLE_SLOTS = {"lazy_adam": 2, "adagrad": 1, "adam": 2}
"""Number of slots of each optimiser per weight."""


def table_optimizer(name: str, learning_rate: Any) -> _OwnRates:
    """The optimiser of the tables.

    Args:
        name: A key of `TABLE_OPTIMIZERS`.
        learning_rate: A number or a schedule.
    """
    # XLA would recompile for every number of rows that a batch touches.
    return TABLE_OPTIMIZERS[name](learning_rate, jit_compile=False)
