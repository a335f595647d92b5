"""Measures a trained model on a split: exact AUC, GAUC, log loss and calibration.

    python -m models.evaluate --run=RUN --split=test

Scores every candidate with the best weights, dumps the scores to RUN/scores-SPLIT.parquet and adds
the metrics to RUN/metrics.json.
"""

import pathlib
import sys

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from models import runs
from models.base import CTRModel
from models.keras import tf
from models.metrics import Scores, ranking_metrics
from preprocessing import cli, dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.schema import LABEL, PAD_ID, REQUEST_ID, candidate_key, history_key

SPLITS = ("train", "validation", "test")
_BATCH_SIZE = 512


class Scorer:
    """Scores splits with one compiled function, so that repeated evaluations trace once."""

    def __init__(self, model: CTRModel, data: DataDir) -> None:
        self._data = data
        self._candidate = candidate_key(data.schema.item_key.name)
        self._history = history_key(data.schema.item_key.name)
        self._logits = tf.function(lambda features: model(features))
        self._batches: dict[str, tf.data.Dataset] = {}

    def score(self, split: str, progress: bool = False) -> Scores:
        """Scores every candidate of a split.

        Args:
            split: train, validation or test.
            progress: Show a bar on standard error.
        """
        parts: list[Scores] = []
        if split not in self._batches:
            self._batches[split] = dataset.read(
                self._data, split, batch_size=_BATCH_SIZE, shuffle_seed=None
            )
        with (
            dataset.reading(self._data),
            tqdm(
                total=self._data.num_requests(split),
                desc=f"score {split}",
                unit="request",
                disable=not progress,
            ) as bar,
        ):
            for features in self._batches[split]:
                parts.append(self._collect(features, self._logits(features)))
                bar.update(int(features[REQUEST_ID].shape[0]))
        if not parts:
            raise UserError(
                f"Expected requests in split {split!r} of {self._data.path}, found none.",
                "evaluate another split or build the data with more events per user.",
            )
        return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _collect(self, features: dict[str, tf.Tensor], logits_BN: tf.Tensor) -> Scores:
        """One entry per valid candidate of a batch."""
        mask_BN = features[self._candidate].numpy() != PAD_ID
        request = np.nonzero(mask_BN)[0]
        request_ids = features[REQUEST_ID].numpy().astype(str)
        users = np.array([name.rpartition(":")[0] for name in request_ids])
        lengths = (features[self._history].numpy() != PAD_ID).sum(axis=1)
        return Scores(
            user=users[request],
            request_id=request_ids[request],
            label=features[LABEL].numpy()[mask_BN],
            logit=logits_BN.numpy()[mask_BN],
            history_length=lengths[request],
        )


def evaluate(run_dir: str | pathlib.Path, split: str, progress: bool = True) -> dict[str, float]:
    """Measures the best weights of a run, dumps the scores and remembers the metrics.

    Args:
        run_dir: Of `models.train`.
        split: train, validation or test.
        progress: Show a bar on standard error.

    Returns:
        Metrics by name, see `models.metrics.ranking_metrics`.

    Raises:
        UserError: Unknown split; no run, weights or requests there.
    """
    if split not in SPLITS:
        raise UserError(f"Expected --split of {', '.join(SPLITS)}, found {split!r}.")
    run = runs.open_run(run_dir)
    scores = Scorer(runs.load_model(run_dir), run.data).score(split, progress=progress)
    return record(run.path, split, scores)


def record(run_dir: pathlib.Path, split: str, scores: Scores) -> dict[str, float]:
    """Writes scores and metrics of a split into a run directory; returns the metrics."""
    pd.DataFrame(scores._asdict()).to_parquet(run_dir / f"scores-{split}.parquet")
    metrics = ranking_metrics(scores)
    runs.write_metrics(run_dir, {split: metrics})
    return metrics


def define_flags() -> None:
    """Flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of models.train.", required=True)
    flags.DEFINE_enum("split", "test", SPLITS, "Split to measure.")


def main() -> None:
    """Prints the metrics of a split, one per line."""
    metrics = evaluate(flags.FLAGS.run, flags.FLAGS.split)
    for name, value in metrics.items():
        sys.stdout.write(
            f"{name:20s} {value:.5f}\n" if value != int(value) else f"{name:20s} {value}\n"
        )


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
