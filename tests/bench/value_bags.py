"""Fields of many values: sums over the values that are there, and gathered padding with a mask."""

from collections.abc import Callable

import numpy as np

from models.core.value_bags import combine
from models.keras import tf

from .figures import Figure, compare

_REQUESTS, _STEPS, _LARGEST, _WIDTH, _ROWS = 256, 50, 8, 16, 5000


def measure(quick: bool) -> list[Figure]:
    """One unit of work is the mean of a history's sets and its gradient: 2.5 values, of up to 8."""
    rng = np.random.default_rng(0)
    requests = _REQUESTS // (8 if quick else 1)
    ids = rng.integers(1, _ROWS, (requests, _STEPS, _LARGEST))
    sizes = np.minimum(1 + rng.poisson(1.5, (requests, _STEPS, 1)), _LARGEST)
    is_event = np.arange(_STEPS)[:, None] < rng.integers(1, _STEPS, (requests, 1, 1))
    ids[(np.arange(_LARGEST) >= sizes) | ~is_event] = 0
    times = compare(_step(_segments, ids), _step(_gathered, ids), rounds=20)
    baseline = f"gather [{requests}, {_STEPS}, {_LARGEST}, {_WIDTH}] and a masked mean, in training"
    return [times.speedup("many_bag", baseline, at_least=1.5)]


def _segments(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    return combine(ids, "mean", lambda ids_V: tf.nn.embedding_lookup(table, ids_V))


def _gathered(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    mask = tf.cast(ids != 0, tf.float32)[..., None]
    total = tf.reduce_sum(tf.nn.embedding_lookup(table, ids) * mask, -2)
    return total / tf.maximum(tf.reduce_sum(mask, -2), 1.0)


def _step(
    combined: Callable[[tf.Variable, tf.Tensor], tf.Tensor], ids: np.ndarray
) -> Callable[[], None]:
    """A function that computes the vectors and the sparse gradient of the table, rows summed."""
    table = tf.Variable(tf.random.stateless_normal([_ROWS, _WIDTH], seed=[0, 0]))
    upstream = tf.random.stateless_normal([*ids.shape[:-1], _WIDTH], seed=[0, 1])

    @tf.function(autograph=False)
    def step(ids: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(combined(table, ids) * upstream)
        gradient = tape.gradient(loss, table)
        rows, places = tf.unique(gradient.indices)
        return tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))

    ids = tf.constant(ids)
    return lambda: step(ids).numpy()
