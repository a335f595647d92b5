"""Trains DIN on a data set, turn by turn, as the processes of the peers do.

    python -m tests.bench.training_worker --data=DATA --batch_size=26 --steps=40

The model has the widths of the peers'; reading, shuffling and decoding the shards are part of it.
"""

import time

from absl import app, flags

from models.config.run_config import RunConfig, resolve
from models.core.factory import build_model, compile_model
from models.keras import tf
from models.training.steps import Steps
from preprocessing import dataset
from preprocessing.data_dir import DataDir

from .peers import protocol

_EPOCHS = 1 << 20  # as many as anybody asks for


def din_config(data: str, batch_size: int) -> RunConfig:
    """DIN with the widths of the peers'."""
    return resolve(
        {
            "data": data,
            "model": {"name": "din", "embedding_size": 16, "units": [200, 80]},
            "train": {"batch_size": batch_size},
        }
    )


def main(argv: list[str]) -> None:
    """Trains on so many batches at each turn; answers with the share of the time spent waiting."""
    del argv
    given = flags.FLAGS
    config = din_config(given.data, given.batch_size)
    data = DataDir.open(config.data)
    strategy = tf.distribute.get_strategy()
    model = build_model(config, data)
    compile_model(model, config)
    model.build_optimizers()
    batches = iter(
        dataset.read(data, "train", batch_size=given.batch_size, shuffle_seed=1, epochs=_EPOCHS)
    )
    steps = Steps(model.main_step, strategy)

    def train() -> dict[str, float]:
        steps.waited()
        start = time.monotonic()
        for _ in range(given.steps):
            logs = steps(batches, 1)
        float(logs["loss"])  # waits for the last step
        return {"input_wait": steps.waited() / (time.monotonic() - start)}

    protocol.serve(train)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "Data set directory.", required=True)
    flags.DEFINE_integer("batch_size", 256, "Requests of a step.")
    flags.DEFINE_integer("steps", 40, "Steps of a turn.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
