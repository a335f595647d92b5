"""Batches of the training split, from any step on."""

from models.config.training import TrainConfig
from models.keras import tf
from models.training.label_noise import stressed
from preprocessing import dataset
from preprocessing.data_dir import DataDir


def steps_per_epoch(data: DataDir, train: TrainConfig) -> int:
    """Number of batches of a pass over the training split."""
    return -(-data.num_requests("train") // train.batch_size)


def training_batches(
    data: DataDir, train: TrainConfig, done: int, epochs: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """The batches that are to be trained on after so many steps, to the end of the last pass.

    Args:
        data: The data set.
        train: Settings of the training.
        done: Steps done, each of which was a batch.
        epochs: Passes in all.
        first_epoch: Number of the first pass; the order of a pass follows from seed and number.
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
    )
    return stressed(batches.skip(skipped), data.schema, train)
