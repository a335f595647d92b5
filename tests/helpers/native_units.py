"""Attention units with and without the compiled operation, and their results.

python -m tests.helpers.native_units LIBRARY  # prints a digest of all results, bit for bit
"""

import hashlib
import pathlib
import sys

import numpy as np

from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from models.ops.native import library
from tests.reference import embedded

MASKS = {
    "no pair": np.zeros([2, 3, 4], bool),
    "one pair": np.arange(24).reshape(2, 3, 4) == 17,
    "one event": np.ones([5, 3, 1], bool),
    "no request": np.ones([0, 3, 4], bool),
    "one request": np.ones([1, 2, 5], bool),
    "many blocks": np.random.default_rng(1).random([3, 11, 53]) < 0.9,
    "many parts": np.arange(50) < np.random.default_rng(1).integers(0, 51, [40, 1, 1]),
}


class Case:
    """Inputs of a unit, and two units with the same random weights: plain and compiled."""

    def __init__(self, mask_BNL, width, units, operations, normalize=False, seed=0):
        rng = np.random.default_rng(seed)
        B, N, L = mask_BNL.shape
        self.mask_BNL = tf.constant(mask_BNL)
        self.targets_BND = tf.constant(rng.normal(size=[B, N, width]), tf.float32)
        self.events_BLD = tf.constant(rng.normal(size=[B, L, width]), tf.float32)
        self.upstream_BNL = tf.constant(rng.normal(size=mask_BNL.shape), tf.float32)
        self.units = []
        for _ in range(2):
            unit = LocalActivation(width, units, normalize=normalize)
            self.weigh(unit, training=False)
            embedded.randomize(unit)
            self.units.append(unit)
        self.units[1].use_native(operations)

    def weigh(self, unit, training=True):
        encoded_BLA = unit.encode_events(self.events_BLD)
        return unit(self.targets_BND, self.events_BLD, encoded_BLA, self.mask_BNL, training)

    def results(self, unit):
        """Weights of events, their gradients, and what the unit remembers of the batch."""
        trained = [self.targets_BND, self.events_BLD, *unit.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(trained[:2])
            weights_BNL = self.weigh(unit)
            loss = tf.reduce_sum(weights_BNL * self.upstream_BNL)
        found = {"weights": weights_BNL}
        found |= {f"gradient {i}": g for i, g in enumerate(tape.gradient(loss, trained))}
        averages = unit.non_trainable_weights
        return found | {f"average {i}": tf.identity(w) for i, w in enumerate(averages)}

    def check(self):
        expected, found = map(self.results, self.units)
        assert expected.keys() == found.keys()
        # Of one or two pairs, Dice divides by what rounding leaves of a deviation from their mean.
        slack = 1 if np.sum(self.mask_BNL) > 2 else 20
        for name, value in expected.items():
            bound = 1e-5 * slack * max(1.0, np.max(np.abs(value), initial=0.0))
            np.testing.assert_allclose(
                found[name], value, rtol=1e-4 * slack, atol=bound, err_msg=name
            )


def digest(operations):
    """Of weights, gradients and statistics of a compiled unit with many parts."""
    case = Case(MASKS["many parts"], 32, (80, 40), operations)
    results = [np.asarray(value).tobytes() for value in case.results(case.units[1]).values()]
    return hashlib.sha256(b"".join(results)).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(digest(library.load(pathlib.Path(sys.argv[1]))))
