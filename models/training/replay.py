"""Replay: requests of earlier days between those of a new one, against forgetting.

A run that continues another one may take further steps of the main loss on the training requests
of the data sets that the runs before it learned from.
"""

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from models.config.run_config import RunConfig
from models.core import run_directory
from models.keras import tf
from models.training.label_noise import stressed
from models.training.row_growth import translation
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import WHOLE, Part

MAX_SETS = 8
"""Number of data sets that requests are drawn from, the latest ones: each is shuffled in memory."""
_PASSES = 1 << 20


class Replay:
    """Batches of requests from the data sets before.

    Each data set is drawn from as often as it has requests. Its ids are translated to those that
    its values have now, and its vectors to the norm that they are divided by now.

    Args:
        config: Configuration of a run that continues another one.
        data: Data set of the run.
        part: The reader, if several share the batches; each of them draws from the same data sets.

    Raises:
        UserError: The data set of the run that is continued is gone, or one of the data sets has
            fewer shards than there are readers.
    """

    def __init__(self, config: RunConfig, data: DataDir, part: Part = WHOLE) -> None:
        self._train, self._part = config.train, part
        sets = list(itertools.islice(_earlier_sets(config), MAX_SETS))
        self._weights = [float(one.num_requests("train")) for one in sets]
        self._streams = [self._stream(one, data) for one in sets]

    def dataset(self, done: int) -> tf.data.Dataset:
        """The batches that follow after `done` batches; there is no last one."""
        weights = np.array(self._weights) / sum(self._weights)
        batches = tf.data.Dataset.sample_from_datasets(
            self._streams,
            weights.tolist(),
            seed=self._train.seed,
            rerandomize_each_iteration=False,
        )
        return batches.skip(done)

    def _stream(self, earlier: DataDir, data: DataDir) -> tf.data.Dataset:
        batches = dataset.read(
            earlier,
            "train",
            batch_size=self._train.batch_size,
            shuffle_seed=self._train.seed,
            epochs=_PASSES,
            part=self._part,
        )
        translate = translation(earlier.encoders, data.encoders)
        return stressed(batches.map(translate), data.schema, self._train)


def _earlier_sets(config: RunConfig) -> Iterator[DataDir]:
    """The data sets of the runs before, the latest first, as far back as the runs are there."""
    run = run_directory.open_run(config.continues)
    yield run.data
    while (path := run.config.continues) and pathlib.Path(path, run_directory.CONFIG).exists():
        run = run_directory.open_run(path)
        yield run.data
