"""Sums and gathers over the replicas of a tf.distribute strategy.

With one replica, every function is the identity (or a plain reduction), so that layers need no
special case, and the results are the same for any number of replicas.
"""

from collections.abc import Callable
from typing import Any

from models.keras import tf


def _context() -> tf.distribute.ReplicaContext | None:
    """The replica context if there are several synchronous replicas, else None."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def count() -> int:
    """Number of synchronous replicas; 1 outside of a step."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def index() -> tf.Tensor:
    """Index of this replica, int32 scalar in [0, count())."""
    context = _context()
    if context is None:
        return tf.constant(0)
    replica = context.replica_id_in_sync_group
    return tf.cast(replica, tf.int32)


def all_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of `value` over all replicas, on each of them; differentiable."""
    context = _context()
    if context is None:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, _of_replica(value))


def all_gather(value: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """The values of all replicas, concatenated along `axis` in replica order; differentiable."""
    context = _context()
    if context is None:
        return value
    if value.dtype == tf.bool:  # Collectives between machines support numbers only.
        return tf.cast(all_gather(tf.cast(value, tf.int32), axis), tf.bool)
    return context.all_gather(_of_replica(value), axis=axis)


def _of_replica(value: tf.Tensor) -> tf.Tensor:
    """The value on the device of this replica; inputs have no device, which collectives need."""
    return tf.identity(value)


def rows(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The position of the rows of this replica among those of all replicas.

    Args:
        batch: Number of rows of this replica; replicas may have unequal shares of the last batch.

    Returns:
        Number of rows of the replicas before this one, and of all replicas.
    """
    shares = all_gather(batch[None])
    return tf.reduce_sum(shares[: index()]), tf.reduce_sum(shares)


def apply_if(
    condition: tf.Tensor,
    apply: Callable[[Any], None],
    values: Any,
    then: Callable[[tf.Tensor], None],
) -> None:
    """Calls `apply` with the values of each replica if the condition holds, and `then` once.

    Updates of variables that replicas share are not possible in a branch of one replica; so the
    branch is taken in the cross-replica context.

    Args:
        condition: Condition; it must be equal on all replicas.
        apply: Function called in replica context; it may update variables.
        values: Argument of `apply`.
        then: Function called with the condition in cross-replica context, whether it holds or not.
    """

    def branch(strategy: tf.distribute.Strategy, condition: Any, values: Any) -> None:
        holds = strategy.experimental_local_results(condition)[0]

        def applied() -> tf.Tensor:
            strategy.extended.call_for_each_replica(apply, args=(values,))
            return tf.constant(True)

        tf.cond(holds, applied, lambda: tf.constant(False))
        then(holds)

    tf.distribute.get_replica_context().merge_call(branch, args=(condition, values))
