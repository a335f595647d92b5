"""The compiled attention unit against the plain layer, which is the reference, and the twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from tests.helpers.native_units import MASKS, Case
from tests.helpers.python_runs import python
from tests.reference import din as reference
from tests.reference import loops


@given(
    shape=st.tuples(*[st.integers(1, most) for most in (4, 3, 7)]),
    sizes=st.tuples(*[st.integers(1, most) for most in (9, 20, 20)]),
    share=st.floats(0, 1),
    normalize=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_equals_the_plain_unit(native_operations, shape, sizes, share, normalize, seed):
    mask_BNL = np.random.default_rng(seed).random(shape) < share
    width, *units = sizes
    Case(mask_BNL, width, units, native_operations, normalize, seed).check()


@pytest.mark.parametrize("name", MASKS)
def test_equals_the_plain_unit_at(native_operations, name):
    Case(MASKS[name], 32, (80, 40), native_operations).check()


def test_equals_the_twin(native_operations):
    case = Case(MASKS["many blocks"][:, :3, :9], 4, (7, 3), native_operations)
    unit = case.units[1]
    expected = reference.attention(
        case.targets_BND.numpy().astype(np.float64),
        case.events_BLD.numpy().astype(np.float64),
        case.mask_BNL.numpy(),
        loops.local_activation(unit),
        training=True,
    )
    np.testing.assert_allclose(case.weigh(unit), expected, rtol=1e-4, atol=1e-5)


def test_only_training_uses_it(native_operations):
    case = Case(MASKS["one request"], 4, (7, 3), native_operations)

    def operations(training):
        unit = case.units[1]
        graph = tf.function(lambda: case.weigh(unit, training)).get_concrete_function().graph
        return {one.type for one in graph.get_operations()}

    assert "SequenceCtrLocalActivation" in operations(training=True)
    assert not [one for one in operations(training=False) if one.startswith("SequenceCtr")]


def test_queries_of_their_own_for_each_event_take_the_plain_unit(native_operations):
    """[B, N, L, D] is no input of the operation."""
    case = Case(MASKS["many blocks"][:, :3, :9], 4, (7, 3), native_operations)
    expected = case.weigh(case.units[0])
    case.targets_BND = tf.repeat(case.targets_BND[:, :, None], 9, axis=2)
    np.testing.assert_allclose(case.weigh(case.units[1]), expected, rtol=1e-4, atol=1e-5)


def test_only_two_layers_with_dice_have_it(native_operations):
    assert LocalActivation(4).has_native_form
    for units, activation in (((80, 40), "sigmoid"), ((80,), "dice"), ((80, 40, 20), "dice")):
        assert not LocalActivation(4, units, activation).has_native_form


_SHAPES = {
    "queries": [2, 3, 4],
    "events": [2, 5, 4],
    "mask": [2, 3, 5],
    "product_kernel": [4, 6],
    "alpha1": [6],
    "kernel2": [6, 7],
    "alpha2": [7],
    "scorer": [7],
    "of_queries": [2, 3, 6],
    "of_events": [2, 5, 6],
    "bias2": [7],
}
_KEPT = {"x1": [30, 6], "x2": [30, 7], "mean1": [6], "variance1": [6], "mean2": [7]}
_KEPT |= {"variance2": [7], "of_scores": [2, 3, 5]}


def _call(operation, shapes):
    inputs = {
        name: tf.ones(shape, tf.bool if name == "mask" else tf.float32)
        for name, shape in shapes.items()
    }
    return operation(**inputs, epsilon=1e-3)


@pytest.mark.parametrize("change", [lambda s: [*s[:-1], s[-1] + 1], lambda s: [*s, 1]])
def test_wrong_shapes_are_errors(native_operations, change):
    forward = native_operations.sequence_ctr_local_activation
    backward = native_operations.sequence_ctr_local_activation_grad
    common = dict(list(_SHAPES.items())[:8])
    for operation, shapes in ((forward, _SHAPES), (backward, common | _KEPT)):
        _call(operation, shapes)
        for name, shape in shapes.items():
            with pytest.raises(
                tf.errors.InvalidArgumentError, match=r"Expected \w+ of (shape|rank)"
            ):
                _call(operation, shapes | {name: change(shape)})


def test_any_number_of_threads_gives_the_same_bits(native_library):
    digests = {
        python(
            "-m",
            "tests.helpers.native_units",
            native_library,
            TF_NUM_INTRAOP_THREADS=str(threads),
            TF_CPP_MIN_LOG_LEVEL="3",
        )
        for threads in (1, 2)
    }
    assert len(digests) == 1
