"""What each of several synchronous processes reads of the training data."""

from models.config.training import TrainConfig
from models.distributed.distribution import Distribution
from models.training.progress import Progress
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.reading.parts import WHOLE, Part, share


def part_of(train: TrainConfig, distribution: Distribution) -> Part:
    """The reader of this process: one of as many as there are synchronous processes, or of all.

    Args:
        train: Settings of the training.
        distribution: Distribution of the training.
    """
    return Part(*distribution.place) if train.sharding == "files" else WHOLE


def require_whole_pass(progress: Progress, part: Part, steps_per_epoch: int) -> None:
    """Raises `UserError` if a pass was begun by another number of readers.

    The order of a pass depends on that number, so its end would miss some requests and repeat
    others. Steps of self-supervision beside the main loss may be in the middle of a pass of theirs,
    which has no labels and no end.

    Args:
        progress: Progress of the run, as restored.
        part: The reader of this process.
        steps_per_epoch: Number of steps of a pass.
    """
    step = progress.step if progress.pretrained else progress.ssl_step
    if progress.parts == part.count or step % steps_per_epoch == 0:
        return
    end = -(-step // steps_per_epoch) * steps_per_epoch
    how = f"--max_steps={end}" if progress.pretrained else "one more pass of pre-training"
    raise UserError(
        f"Expected {_readers(progress.parts)}, as for the first {step % steps_per_epoch:,} of "
        f"{steps_per_epoch:,} steps of this pass, found {_readers(part.count)}: the order "
        "depends on it.",
        f"resume as before to the end of the pass ({how}), after which it may change.",
    )


def remark(data: DataDir, train: TrainConfig, part: Part) -> str:
    """A line on what the processes read if each has shards of its own, else ""."""
    if part.count == 1:
        return ""
    shares = [
        share(data, "train", train.batch_size, Part(index, part.count))
        for index in range(part.count)
    ]
    requests = [own.requests for own in shares]
    return (
        f"train.sharding=files: {part.count} processes with {min(requests):,} to "
        f"{max(requests):,} training requests each."
    )


def _readers(count: int) -> str:
    if count == 1:
        return "train.sharding=batches or a single process"
    return f"train.sharding=files with {count} processes"
