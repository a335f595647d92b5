"""Batches of the training split, starting at any step."""

from models.config.training import TrainConfig
from models.keras import tf
from models.training.label_noise import stressed
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import WHOLE, Part


def steps_per_epoch(data: DataDir, train: TrainConfig) -> int:
    """Number of batches in one pass over the training split."""
    return -(-data.num_requests("train") // train.batch_size)


def training_batches(
    data: DataDir,
    train: TrainConfig,
    done: int,
    epochs: int,
    first_epoch: int = 0,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """The batches that remain after `done` steps, to the end of the last pass.

    Args:
        data: The data set.
        train: Settings of the training.
        done: Number of steps done, of one batch each.
        epochs: Total number of passes.
        first_epoch: Number of the first pass; seed and number determine the order of a pass.
        part: The reader, if several share every pass; their number too determines the order then.
    """
    epoch, skipped = divmod(done, steps_per_epoch(data, train))
    batches = dataset.read(
        data,
        "train",
        batch_size=train.batch_size,
        shuffle_seed=train.seed,
        first_epoch=first_epoch + epoch,
        epochs=max(1, epochs - epoch),
        memory_budget=train.data_memory << 20,
        part=part,
    )
    return stressed(batches.skip(skipped), data.schema, train)
