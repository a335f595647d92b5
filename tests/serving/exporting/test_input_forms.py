"""Inputs that do not belong together are refused inside of the graph, with their names."""

import numpy as np
import pytest

from models.keras import tf
from serving.exporting.input_forms import require_forms
from serving.tfserving.status import Code, ServingError
from tests.helpers import toy_runs

FORMS = {"user": "B", "item": "BL", "time": "BL", "candidate": "BN"}
GOOD = {"user": [2], "item": [2, 3], "time": [2, 3], "candidate": [2, 5]}
DECLARED = {name: tf.TensorSpec([None] * len(form)) for name, form in FORMS.items()}


@pytest.fixture(scope="module")
def doubled():
    """A function whose arguments have the declared ranks, as in a signature."""

    def double(**tensors):
        return {name: value * 2 for name, value in require_forms(tensors, FORMS).items()}

    function = tf.function(double, autograph=False).get_concrete_function(**DECLARED)
    return lambda shapes: function(**{n: tf.ones(shape) for n, shape in shapes.items()})


@pytest.mark.parametrize("changes", [{}, {"candidate": [2, 0]}, {"item": [2, 0], "time": [2, 0]}])
def test_inputs_that_belong_together_pass(doubled, changes):
    shapes = GOOD | changes
    for name, value in doubled(shapes).items():
        np.testing.assert_array_equal(value, 2 * np.ones(shapes[name]))


def test_no_requests_pass(doubled):
    assert doubled({name: [0, *shape[1:]] for name, shape in GOOD.items()})["user"].shape == [0]


@pytest.mark.parametrize(
    "changes",
    [
        {"user": [1]},
        {"user": [3]},
        {"user": []},
        {"user": [2, 1]},
        {"user": [0]},
        {"item": [1, 3], "time": [1, 3]},
        {"item": [2, 1]},
        {"time": [2, 4]},
        {"time": [2, 0]},
        {"time": [3]},
        {"time": [2, 3, 1]},
        {"candidate": [1, 5]},
        {"candidate": [5]},
        {"user": [2, 1], "candidate": [2]},  # as many sizes in all as there should be
        {name: [1, *shape] for name, shape in GOOD.items()},
    ],
    ids=str,
)
def test_others_are_refused_with_the_form_and_shape_of_each(doubled, changes):
    shapes = GOOD | changes
    with pytest.raises(tf.errors.InvalidArgumentError) as refused:
        doubled(shapes)
    assert "agree in B (requests), L (events) and N (candidates)" in refused.value.message
    for name, form in FORMS.items():
        shape = " ".join(map(str, shapes[name]))
        assert f"[{name} [{', '.join(form)}]:] [{shape}]" in refused.value.message


def test_tensors_without_a_form_are_left_alone():
    others = {"label": tf.ones([7, 7]), "user": tf.ones([2])}
    assert require_forms(others, {"user": "B"})["label"] is others["label"]


def test_sets_may_have_any_number_of_values():
    forms = {"user": "BM", "item": "BL", "genres": "BLM", "tags": "BLM"}
    tensors = {"user": tf.ones([2, 7]), "item": tf.ones([2, 3]), "genres": tf.ones([2, 3, 4])}
    checked = require_forms(tensors | {"tags": tf.ones([2, 3, 0])}, forms)
    assert checked["tags"].shape == [2, 3, 0]
    for wrong in ([2, 3], [2, 4, 1], [1, 3, 1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"tags \[B, L, M\]"):
            require_forms(tensors | {"tags": tf.ones(wrong)}, forms)


def two_users_with_one_history(signature):
    raw = toy_runs.raw_inputs(3)
    return {
        name: value if name.startswith("history_") else np.repeat(value, 2, axis=0)
        for name, value in raw.items()
    }


@pytest.mark.parametrize("signature", ["serving_default", "explain"])
def test_two_users_do_not_share_a_history(toy_servable, signature):
    with pytest.raises(ServingError, match=r"\[history_item_id \[B, L\]:\] \[1 3\]") as refused:
        toy_servable.predict(signature, two_users_with_one_history(signature))
    assert refused.value.code is Code.INVALID_ARGUMENT
