"""InfoNCE: golden values, the NumPy twin, invariants, and two replicas against one."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from models.keras import tf
from models.ssl.info_nce import info_nce
from tests.reference import miss as reference

ROOT = pathlib.Path(__file__).resolve().parents[3]
EYE = np.eye(4)


def loss(first, second, valid=None, key=None, *, temperature=0.5, symmetric=False):
    """Values [B] of a single slot."""
    size = len(first)
    return info_nce(
        tf.constant(first, tf.float32)[None],
        tf.constant(second, tf.float32)[None],
        tf.constant(np.ones(size, bool) if valid is None else valid)[None],
        tf.constant(np.arange(size) if key is None else key),
        temperature=temperature,
        symmetric=symmetric,
    ).numpy()[0]


def views(rng, slots=3, batch=6, width=5):
    return rng.normal(size=(2, slots, batch, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(0.1, 0.00013619), (0.5, 0.34075295), (1.0, 0.74366838)]
)
def test_golden_aligned_views(temperature, expected):
    np.testing.assert_allclose(loss(EYE, EYE, temperature=temperature).mean(), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_golden_identical_views(temperature):
    same = np.ones((4, 3))
    np.testing.assert_allclose(
        loss(same, same, temperature=temperature).mean(), np.log(4), atol=1e-6
    )


def test_golden_deranged_views():
    deranged = np.roll(EYE, 1, 0)
    np.testing.assert_allclose(loss(EYE, deranged, temperature=0.1).mean(), 10.00013619, atol=1e-6)


def test_golden_directions():
    first, second = np.eye(2), np.array([[1.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(loss(first, second).mean(), 0.33008465, atol=1e-6)
    np.testing.assert_allclose(loss(second, first).mean(), 0.41003760, atol=1e-6)
    np.testing.assert_allclose(loss(first, second, symmetric=True).mean(), 0.37006112, atol=1e-6)


def test_golden_invalid_request():
    valid = [True, True, False, True]
    values = loss(EYE, EYE, valid)
    assert values[2] == 0.0
    np.testing.assert_allclose(values.sum() / 3, 0.23954477, atol=1e-6)


def test_equals_the_twin():
    rng = np.random.default_rng(0)
    first, second = views(rng)
    valid = rng.random((3, 6)) < 0.7
    key = np.array([1, 2, 3, 2, 4, 1])
    values = info_nce(
        tf.constant(first),
        tf.constant(second),
        tf.constant(valid),
        tf.constant(key),
        temperature=0.2,
    )
    expected = [
        reference.info_nce(first[p], second[p], valid[p], key, temperature=0.2) for p in range(3)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=2e-6)


def test_depends_on_directions_only():
    rng = np.random.default_rng(1)
    (first,), (second,) = views(rng, slots=1)
    scale = rng.uniform(0.1, 20.0, size=(2, 6, 1))
    np.testing.assert_allclose(
        loss(first * scale[0], second * scale[1]), loss(first, second), rtol=1e-5, atol=1e-6
    )


def test_follows_a_permutation_of_the_batch():
    rng = np.random.default_rng(2)
    (first,), (second,) = views(rng, slots=1)
    key, order = np.array([1, 1, 2, 3, 4, 4]), rng.permutation(6)
    np.testing.assert_allclose(
        loss(first[order], second[order], key=key[order]),
        loss(first, second, key=key)[order],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_is_bounded(temperature):
    rng = np.random.default_rng(3)
    (first,), (second,) = views(rng, slots=1, batch=40)
    for other in (second, first, -first):
        values = loss(first, other, temperature=temperature)
        assert np.all(values >= -1e-5)
        assert np.all(values <= np.log(40) + 2 / temperature + 1e-4)


def test_copies_of_a_user_are_no_negatives():
    rng = np.random.default_rng(4)
    (first,), (second,) = views(rng, slots=1)
    key = np.array([1, 2, 3, 4, 5, 1])  # The last request repeats the first one's user.
    values = loss(first, second, key=key)
    without_last = loss(first[:5], second[:5])
    without_first = loss(first[1:], second[1:])
    np.testing.assert_allclose(values[0], without_last[0], rtol=1e-6)
    np.testing.assert_allclose(values[5], without_first[4], rtol=1e-6)
    # To the others both copies are strangers.
    np.testing.assert_allclose(values[1:5], loss(first, second)[1:5], rtol=1e-6)


def test_a_lone_request_has_nothing_to_learn():
    first = tf.constant([[[1.0, 2.0]]])
    second = tf.constant([[[0.5, -1.0]]])
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        value = info_nce(first, second, tf.constant([[True]]), tf.constant([7]), temperature=0.1)
    gradients = tape.gradient(value, [first, second])
    np.testing.assert_allclose(value, [[0.0]], atol=1e-6)
    np.testing.assert_allclose(np.concatenate(gradients), 0.0, atol=1e-6)


def test_views_of_length_zero_and_invalid_garbage_get_no_gradient():
    first = tf.constant([[[0.0, 0.0], [1.0, 0.5], [3.0, 4.0]]])
    second = tf.constant([[[1.0, 0.0], [0.2, 1.0], [5.0, 1.0]]])
    valid = tf.constant([[True, True, False]])
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        value = info_nce(first, second, valid, tf.range(3), temperature=0.1)
    gradients = np.stack(tape.gradient(value, [first, second]))
    # A cosine of 0 with both columns.
    np.testing.assert_allclose(value[0, 0], np.log(2.0), rtol=1e-6)
    assert not gradients[0, 0, 0].any()
    assert not gradients[:, 0, 2].any()
    assert gradients[:, 0, 1].any(-1).all()


# Logical devices must be configured before TensorFlow starts, hence a process of its own.
_TWO_REPLICAS = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from models.ops import replicas
from models.keras import tf
from models.ssl.info_nce import info_nce
import numpy as np

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
rng = np.random.default_rng(0)
views = tf.constant(rng.normal(size=(2, 3, 7, 5)), tf.float32)
valid = tf.constant(rng.random((3, 7)) < 0.8)
key = tf.constant([1, 2, 3, 4, 2, 5, 1])

def step(first, last, symmetric):
    mine = views[:, :, first:last]
    with tf.GradientTape() as tape:
        tape.watch(mine)
        values = info_nce(mine[0], mine[1], valid[:, first:last], key[first:last],
                          temperature=0.2, symmetric=symmetric)
        total = tf.reduce_sum(values) / tf.cast(tf.size(valid), tf.float32)
    return replicas.index(), replicas.all_sum(total), tape.gradient(total, mine)

strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
)
assert strategy.num_replicas_in_sync == 2

@tf.function
def both(symmetric, cut):
    # Unequal shares: the last batch of an epoch.
    shares = [(0, cut), (cut, 7)]
    bounds = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(shares[context.replica_id_in_sync_group])
    )
    return strategy.run(lambda b: step(b[0], b[1], symmetric), (bounds,))

worst = {}
for symmetric, cut in ((False, 4), (True, 2)):
    index, total, gradient = both(symmetric, cut)
    unpack = strategy.experimental_local_results
    _, expected_total, expected_gradient = step(0, 7, symmetric)
    gradient = np.concatenate([g.numpy() for g in unpack(gradient)], 2)
    worst[f"{symmetric}/{cut}"] = [
        [int(i) for i in unpack(index)],
        max(abs(float(t) - float(expected_total)) for t in unpack(total)),
        float(np.abs(gradient - expected_gradient.numpy()).max()),
        float(np.abs(expected_gradient.numpy()).max()),
    ]
print(json.dumps(worst))
"""


@pytest.mark.slow
def test_two_replicas_equal_one():
    done = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for case, (index, loss_error, gradient_error, scale) in json.loads(done.stdout).items():
        assert index == [0, 1], case
        assert scale > 0.01, case
        assert loss_error < 1e-6, case
        assert gradient_error < 1e-6, case
