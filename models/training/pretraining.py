"""Steps of the self-supervised loss alone, for pre-training and alternating training."""

import itertools
from collections.abc import Iterable
from typing import Any

from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.keras import tf
from models.training.batches import training_batches
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.reading import turns
from preprocessing.reading.parts import WHOLE, Part

BatchLosses = list[Any]
"""Number of a batch, number of its requests, and their mean losses by name."""

_FIRST_EPOCH = 1 << 20
"""Number of the first epoch of this stream, so that its orders differ from the main loss's."""


class SelfSupervisedSteps:
    """Updates of the model from an endless stream of the training split's histories.

    Self-supervision needs many more passes over the histories than the main loss can take before
    it overfits. The batches depend on the seed and the number of steps done alone, so the stream
    can start anywhere. It holds training requests only: the events that validation and test predict
    come after all histories of these requests.

    Args:
        config: Configuration of the run.
        data: Data set of the run.
        model: Model compiled with optimisers for these steps.
        part: The reader, if several share the stream.
        turn: This process among those that share the validation split, batch by batch.
    """

    def __init__(
        self,
        config: RunConfig,
        data: DataDir,
        model: CTRModel,
        part: Part = WHOLE,
        turn: Part = WHOLE,
    ) -> None:
        self._config, self._data, self._part = config, data, part
        self._validation = dataset.read(
            data,
            "validation",
            batch_size=config.train.batch_size,
            shuffle_seed=None,
            memory_budget=config.train.data_memory << 20,
            turn=turn,
        )
        self._numbers = turns.turn(data, "validation", config.train.batch_size, turn).batches
        self._validation_loss = tf.function(
            lambda features, seed: model.ssl_loss(features, seed)[1],
            input_signature=[self._validation.element_spec, tf.TensorSpec([2], tf.int32)],
            autograph=False,
        )

    def dataset(self, done: int) -> tf.data.Dataset:
        """The stream of batches.

        Args:
            done: Number of steps done, after which the stream starts.
        """
        train = self._config.train
        return training_batches(
            self._data,
            train,
            done,
            _FIRST_EPOCH,
            first_epoch=_FIRST_EPOCH,
            part=self._part,
        )

    def validation_losses(self) -> list[BatchLosses]:
        """The self-supervised loss, and its terms, on the histories of the validation split.

        The random pairs are the same at every call, so that values can be compared. These histories
        end before the events that validation and test predict.

        Returns:
            The losses of each batch that is this process's turn, JSON content.
        """
        of_batches = []
        for number, features in zip(self._numbers.tolist(), self._validation, strict=True):
            losses = self._validation_loss(features, tf.constant([0, number]))
            size = int(next(iter(features.values())).shape[0])
            of_batches.append(
                [number, size, {name: float(value) for name, value in losses.items()}]
            )
        return of_batches


def mean_losses(of_processes: Iterable[Iterable[BatchLosses]]) -> dict[str, float]:
    """The losses of a split: means over its requests, in the order of the batches.

    Args:
        of_processes: What `validation_losses` returns on each process that shares the split.
    """
    totals: dict[str, float] = {}
    requests = 0
    for _, size, losses in sorted(itertools.chain(*of_processes), key=lambda batch: batch[0]):
        requests += size
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + size * value
    return {name: total / requests for name, total in totals.items()}
