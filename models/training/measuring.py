"""Metrics of a run while it trains and at its end, scored by all synchronous processes."""

import pathlib
from collections.abc import Callable
from typing import Any

from models.config.run_config import RunConfig
from models.core import run_directory
from models.core.base import CTRModel
from models.distributed.distribution import Distribution
from models.evaluation.metrics import ranking_metrics
from models.evaluation.scoring import Scorer, record
from models.keras import tf
from models.training import days
from models.training.shared_scoring import SharedScorer
from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import Part
from preprocessing.splits import SPLITS

Metrics = dict[str, float | None]


class Measuring:
    """Measures a model; every synchronous process must make the same calls.

    Args:
        model: Model of the run.
        data: Data set of the run.
        config: Configuration of the run.
        workdir: Run directory, which all processes share.
        distribution: Distribution under which the model was built.
        between: Callback between batches; an exception in it ends the scoring.
        progress: Whether to show progress bars on standard error.

    Attributes:
        scorer: Scorer of the current weights.
    """

    def __init__(
        self,
        model: CTRModel,
        data: DataDir,
        config: RunConfig,
        workdir: pathlib.Path,
        distribution: Distribution,
        *,
        between: Callable[[], None],
        progress: bool,
    ) -> None:
        self._model, self._data, self._train = model, data, config.train
        self._workdir, self._distribution = workdir, distribution
        self._between, self._progress = between, progress
        self._shared = SharedScorer(distribution, workdir)
        self.scorer = self._scorer(model, config.train.data_memory << 20)

    def _scorer(self, model: CTRModel, data_memory: int) -> Scorer:
        turn = Part(*self._distribution.place)
        return Scorer(model, self._data, self._between, data_memory, turn)

    def graph(self) -> tf.Graph | None:
        """The graph of scoring, once this process has scored a batch, see `Scorer.graph`."""
        return self.scorer.graph()

    def validation(self) -> Metrics:
        """Metrics of the current weights on the validation split.

        Raises:
            UserError: The conditions of `SharedScorer.score`, as for all methods.
        """
        scores = self._shared.score(self.scorer, "validation", with_ids=False)
        return self._distribution.of_chief(lambda: ranking_metrics(scores) if scores else None)

    def day(self) -> dict[str, Any]:
        """Metrics of the current weights on all requests of the data set: a row of days.csv."""
        scores = [
            self._shared.score(
                self.scorer, split, progress=self._progress, held=False, with_ids=False
            )
            for split in filter(self._data.num_requests, SPLITS)
        ]
        of_splits = [one for one in scores if one is not None]
        return self._distribution.of_chief(lambda: days.row(self._data, of_splits))

    def best(self) -> dict[str, Metrics]:
        """Metrics of the best weights by split, for validation and test if they have requests.

        Scores and metrics are written to the run directory.
        """
        self._distribution.exchange("best weights")  # which the first process may still write
        weights = run_directory.weights_digest(self._workdir)
        self._distribution.require_equal({"best weights (--workdir must be shared)": weights})
        if self._train.precision == "float32":
            run_directory.restore_best(self._model, self._workdir)
            scorer = self.scorer
        else:  # Measured in float32, in which the model is evaluated and served.
            scorer = self._scorer(run_directory.load_model(self._workdir), 0)
        measured = {
            split: self._recorded(scorer, split)
            for split in filter(self._data.num_requests, ("validation", "test"))
        }
        self._shared.close()
        return measured

    def _recorded(self, scorer: Scorer, split: str) -> Metrics:
        scores = self._shared.score(scorer, split, progress=self._progress)
        return self._distribution.of_chief(
            lambda: record(self._workdir, split, scores, self._data) if scores else None
        )
