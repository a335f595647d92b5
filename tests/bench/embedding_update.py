"""The optimiser of embedding tables: against stock Adam, and against itself on a small table."""

from collections.abc import Callable

import numpy as np

from models.keras import keras, tf
from models.ops.optimizers import LazyAdam

from .figures import Figure, compare

_WIDTH = 16
_IDS = 13_312  # of a batch of 256 requests with 50 events and 2 candidates each
_SMALL, _MEDIUM, _LARGE = 100_000, 2_000_000, 4_000_000


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a step on the gradient of one batch, repeated ids and all."""
    scale = 100 if quick else 1
    small, medium, large = (rows // scale for rows in (_SMALL, _MEDIUM, _LARGE))

    def step(kind: type[keras.optimizers.Optimizer], rows: int) -> Callable[[], None]:
        # Tables of all sizes are touched in as many rows, spread over the whole of them.
        ids = (rows // small) * np.random.default_rng(0).integers(0, small, _IDS)
        return _step(kind(1e-3), rows, ids)

    against_adam = compare(step(LazyAdam, medium), step(keras.optimizers.Adam, medium), rounds=10)
    # Lazy steps take milliseconds: more of them find a quiet moment.
    against_small = compare(step(LazyAdam, large), step(LazyAdam, small), rounds=50)
    return [
        against_adam.speedup(
            "lazy_adam",
            f"stock Keras Adam on a table of {medium:,} x {_WIDTH}, {_IDS:,} ids",
            at_least=10,
        ),
        against_small.cost(
            "lazy_adam_rows",
            f"the same step on {small:,} instead of {large:,} rows",
            at_most=None,  # Of whole steps something is promised: deminet_items.
        ),
    ]


def _step(optimizer: keras.optimizers.Optimizer, rows: int, ids: np.ndarray) -> Callable[[], None]:
    table = tf.Variable(tf.zeros([rows, _WIDTH]))
    values = tf.random.stateless_normal([len(ids), _WIDTH], seed=[0, 0])
    optimizer.build([table])

    @tf.function
    def step() -> None:
        gradient = tf.IndexedSlices(values, tf.constant(ids), tf.constant([rows, _WIDTH]))
        optimizer.apply_gradients([(gradient, table)])

    return step
