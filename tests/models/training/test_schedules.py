"""Learning rates by step, against the formulas, and in training."""

import math

import numpy as np
import pytest

from models.core import schedules
from models.core.schedules import learning_rate, plateau_scale, set_scale
from models.keras import keras, tf
from preprocessing.errors import UserError
from tests.helpers import small_models


def _train(**settings):
    return small_models.config("lr", "none", *(f"train.{k}={v}" for k, v in settings.items())).train


def _rates(train, steps, base=0.1):
    schedule = learning_rate(train, base)
    return [float(schedule(tf.constant(step, tf.int64))) for step in range(steps)]


def test_a_constant_rate_is_a_number():
    assert learning_rate(_train(), 0.1) == 0.1


def test_warm_up_rises_in_equal_parts_and_stays():
    found = _rates(_train(warmup_steps=4), 7)
    np.testing.assert_allclose(found, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 5])
def test_cosine_falls_to_zero_and_stays(warmup):
    found = _rates(_train(schedule="cosine", decay_steps=25, warmup_steps=warmup), 30)
    for step in range(warmup, 30):
        share = min(1.0, (step - warmup) / (25 - warmup))
        expected = 0.1 * 0.5 * (1 + math.cos(math.pi * share))
        assert found[step] == pytest.approx(expected, abs=1e-8)
    assert found[25:] == [0.0] * 5
    assert np.argmax(found) in (0, warmup - 1, warmup)


@pytest.mark.parametrize(
    ("aucs", "scale"),
    [
        ([], 1.0),
        ([0.6, 0.7, 0.8], 1.0),
        ([0.7, 0.6], 1.0),
        ([0.7, 0.6, 0.7], 0.5),
        ([0.7, 0.6, 0.7, 0.7], 0.5),
        ([0.7, 0.6, 0.7, 0.7, 0.6], 0.25),
        ([0.7, 0.6, 0.6, 0.8, 0.7, 0.7], 0.25),
    ],
)
def test_plateau_lowers_the_rate_after_evaluations_without_gain(aucs, scale):
    assert plateau_scale(_train(schedule="plateau", plateau_patience=2), aucs) == scale
    assert plateau_scale(_train(), aucs) == 1.0


def test_the_scale_reaches_both_optimisers():
    run = small_models.config("lr", "none", "train.schedule=plateau", "train.learning_rate=0.5")
    model = small_models.model(run)
    model.build_optimizers()
    optimizers = [model.optimizer, model.embedding_optimizer]
    set_scale(optimizers, 0.25)
    model.main_step(small_models.batch())
    for optimizer in optimizers:
        assert float(optimizer.learning_rate) == 0.125
    set_scale([keras.optimizers.Adam(0.1)], 0.5)  # a constant rate stays


def test_the_first_step_of_a_warm_up_is_small():
    """Adam's first step has the size of its rate, in tables and dense weights alike."""
    moved = []
    for settings in ([], ["train.warmup_steps=10"]):
        model = small_models.model(
            small_models.config("lr", "none", "train.learning_rate=0.1", *settings)
        )
        before = [weight.numpy() for weight in model.trainable_variables]
        model.main_step(small_models.batch())
        after = [weight.numpy() for weight in model.trainable_variables]
        moved.append([np.abs(a - b).max() for a, b in zip(after, before, strict=True)])
    assert len(moved[0]) > 3
    np.testing.assert_allclose(moved[1], np.divide(moved[0], 10), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"schedule": "cosine"}, "Expected train.decay_steps with train.schedule=cosine"),
        ({"decay_steps": 9}, "and only there, found 9 with 'constant'"),
        ({"schedule": "cosine", "decay_steps": 9, "warmup_steps": 9}, "to be more than"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        _train(**settings)


def test_a_schedule_knows_what_it_is_made_of():
    schedule = schedules.Schedule(0.1, 2, 9)
    assert schedules.Schedule(**schedule.get_config()).get_config() == schedule.get_config()
