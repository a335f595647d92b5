"""What a checkpoint holds beside the weights: the keys, what old ones lack, and who is best."""

import json

import pytest

from models.keras import tf
from models.training.progress import Progress

FRESH = {
    "step": 0,
    "ssl_step": 0,
    "replayed_step": 0,
    "pretrained": False,
    "pretraining": [],
    "evaluated_step": 0,
    "best_score": None,
    "best_step": 0,
    "best_updates": 0,
    "evaluations_without_gain": 0,
    "seconds": 0.0,
    "history": [],
    "logs": {},
    "ssl_logs": {},
}
"""The form of every checkpoint so far: renaming a key would lose what it holds."""


def test_the_form_in_checkpoints_is_that_of_all_before():
    assert json.dumps(Progress().to_json()) == json.dumps(FRESH)


def test_progress_is_the_same_after_a_checkpoint():
    progress = Progress(
        step=7, parts=2, pretraining=[{"step": 6}], seconds=1.5, ssl_logs={"loss": 2.0}
    )
    progress.evaluated(0.75)
    progress.history.append({"validation/auc": 0.75, "validation/mrr": None})
    restored = Progress()
    restored.restore(json.loads(json.dumps(progress.to_json())))
    assert restored == progress


def test_losses_that_devices_still_hold_are_read():
    progress = Progress(logs={"loss": tf.constant(0.5)}, ssl_logs={"miss": tf.constant(2.0)})
    content = progress.to_json()
    assert (content["logs"], content["ssl_logs"]) == ({"loss": 0.5}, {"miss": 2.0})


def test_what_a_checkpoint_of_another_version_lacks_stays_and_what_it_has_more_is_ignored():
    progress = Progress(pretrained=True)
    progress.restore({"step": 4, "of_another_version": 1})
    assert progress == Progress(step=4, pretrained=True)


def test_the_first_of_equal_evaluations_is_the_best():
    progress, outcomes = Progress(), []
    for step, score in enumerate((0.6, 0.6, 0.5, 0.7, 0.1), start=1):
        progress.step = step
        outcomes.append((progress.evaluated(score), progress.evaluations_without_gain))
        assert progress.evaluated_step == step
    assert outcomes == [(True, 0), (False, 1), (False, 2), (True, 0), (False, 1)]
    assert (progress.best_score, progress.best_step) == (0.7, 4)


def test_a_score_may_be_negative_as_that_of_a_log_loss_is():
    assert Progress().evaluated(-0.7)


@pytest.mark.parametrize(
    ("logs", "ssl_logs", "losses"),
    [
        ({"loss": 1.0}, {}, {"loss": 1.0}),
        ({}, {"loss": 2.0, "miss": 3.0}, {"loss": 2.0, "miss": 3.0}),
        (
            {"loss": 1.0},
            {"loss": 2.0, "miss": 3.0},
            {"loss": 1.0, "ssl_loss": 2.0, "miss": 3.0},
        ),
    ],
)
def test_losses_of_both_kinds_of_steps_have_names_of_their_own(logs, ssl_logs, losses):
    assert Progress(logs=logs, ssl_logs=ssl_logs).losses == losses
