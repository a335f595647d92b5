"""`models.train` that records what it reads and trains on.

    python -m tests.helpers.counting_worker RECORD.json --data=DATA …

RECORD.json has the number of training records that this process read until the training ended (the
report reads some after it), the requests of each of its steps of the main loss, and the losses of
each step by kind.
"""

import json
import pathlib
import sys

from models import train
from models.core.base import CTRModel
from models.keras import tf
from models.training.trainer import Trainer
from models.training.updates import Updates
from preprocessing import dataset


def main() -> None:
    """Trains as the flags after the first argument say."""
    record = pathlib.Path(sys.argv.pop(1))
    counted = {"read": 0, "requests": [], "main": [], "ssl": []}
    disk, main_step, call = dataset._disk, CTRModel.main_step, Updates.__call__
    fit = Trainer.fit

    def counting_disk(data, split, with_users, threads, shards):
        source = disk(data, split, with_users, threads, shards)
        if split != "train":
            return source

        def count(example):
            counted["read"] += 1
            return example

        return source._replace(
            read=lambda shard: source.read(shard).map(
                lambda example: tf.ensure_shape(tf.py_function(count, [example], tf.string), [])
            )
        )

    def noted(ids):
        counted["requests"].append([text.decode() for text in ids.numpy()])

    def noting_step(model, inputs):
        tf.py_function(noted, [inputs["request_id"]], [])
        return main_step(model, inputs)

    def recording_call(updates, done, steps):
        logs = call(updates, done, steps)
        counted["ssl" if updates.ssl else "main"].append({k: float(v) for k, v in logs.items()})
        return logs

    def recorded_fit(trainer):
        try:
            fit(trainer)
        finally:
            record.write_text(json.dumps(counted))

    dataset._disk = counting_disk
    CTRModel.main_step = noting_step
    Updates.__call__ = recording_call
    Trainer.fit = recorded_fit
    train.console_main()


if __name__ == "__main__":
    main()
