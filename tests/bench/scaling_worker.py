"""One of several synchronous workers whose steps and scores take a fixed time, but for the reading.

    TF_CONFIG=… python -m tests.bench.scaling_worker RESULT.json --data=DATA --workdir=RUN …

What a device would compute is a pause; reading, collectives, gathering and metrics are real. The
first worker writes the seconds of each round of steps and of each evaluation of the validation
split.
"""

import json
import pathlib
import sys
import time

from absl import app, flags

from models import train
from models.config import run_config
from models.core.base import CTRModel
from models.keras import tf
from models.training.trainer import Trainer

STEPS = 16
"""Steps of a round."""


def main(argv: list[str]) -> None:
    """Trains and evaluates in rounds."""
    given = flags.FLAGS
    config = run_config.resolve(
        {"data": given.data, "model": {"name": "lr"}},
        (
            f"train.distribute={given.distribute}",
            "train.sharding=files",
            f"train.batch_size={given.batch_size}",
            f"train.epochs={1 << 20}",
        ),
    )
    _simulate(given.seconds)
    trainer = train.begin(config, given.workdir, progress=False)
    measured = {
        "steps": _rounds(trainer, _steps(trainer), given.rounds),
        "evaluation": _rounds(trainer, trainer.measuring.validation, given.rounds),
    }
    if trainer.distribution.is_chief:
        pathlib.Path(argv[1]).write_text(json.dumps(measured))
    trainer.distribution.exchange("done")


def _simulate(seconds: float) -> None:
    """Puts a pause in the place of steps and of scores."""

    def pause(value: tf.Tensor) -> tf.Tensor:
        time.sleep(seconds)
        return value

    def step(model: CTRModel, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        del model
        loss = tf.reduce_sum(features["label"])
        return {"loss": tf.ensure_shape(tf.py_function(pause, [loss], tf.float32), [])}

    def score(model: CTRModel, features: dict[str, tf.Tensor]) -> tf.Tensor:
        del model
        logits_BN = tf.cast(features["candidate/item_id"] % 997, tf.float32)
        return tf.py_function(pause, [logits_BN], tf.float32)

    CTRModel.main_step = step
    CTRModel.call = score


def _steps(trainer: Trainer):
    updates = trainer._updates(trainer._dataset, 0, ssl=False)

    def steps() -> None:
        for _ in range(STEPS):
            logs = updates(0, 1)
        float(logs["loss"])  # Waits for the last step.

    return steps


def _rounds(trainer: Trainer, call, rounds: int) -> list[float]:
    """Seconds of each round, after a first one that does not count."""
    seconds = []
    for _ in range(1 + rounds):
        trainer.distribution.exchange("begin")
        started = time.perf_counter()
        call()
        trainer.distribution.exchange("end")
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "Data set directory.", required=True)
    flags.DEFINE_string("workdir", None, "Run directory.", required=True)
    flags.DEFINE_string("distribute", "multi_worker", "The strategy.")
    flags.DEFINE_integer("batch_size", 256, "Requests of a step of all workers.")
    flags.DEFINE_float("seconds", 0.1, "Seconds that a step takes, and a batch of scores.")
    flags.DEFINE_integer("rounds", 3, "Rounds that count.")


if __name__ == "__main__":
    define_flags()
    app.run(main, argv=sys.argv)
