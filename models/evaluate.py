"""Measures a trained model on a split, or compares two models on it.

    python -m models.evaluate --run=RUN --split=test
    python -m models.evaluate --compare RUN_A RUN_B

Scores every candidate with the best weights and dumps the scores to RUN/scores-SPLIT.parquet. Adds
the metrics to RUN/metrics.json, writes those of slices (history length, item popularity, category,
new users and items) to RUN/slices-SPLIT.csv, and prints both with 95 % intervals from 1,000 draws
of users. A comparison measures both runs on the same draws, so that differences are paired.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from models import bootstrap, runs, slices
from models.base import CTRModel
from models.bootstrap import Difference, Estimate
from models.keras import tf
from models.metrics import Scores, ranking_metrics, relative_improvement
from preprocessing import cli, dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.schema import LABEL, PAD_ID, REQUEST_ID, candidate_key, history_key

SPLITS = ("train", "validation", "test")
_BATCH_SIZE = 512
_PLAIN_FIELDS = tuple(name for name in Scores._fields if name != "ids")


class Scorer:
    """Scores splits with one compiled function, so that repeated evaluations trace once.

    Args:
        model: Scores.
        data: What to score.
        between: Called between batches; what it raises ends the scoring.
        memory_budget: Bytes that a split may take in memory, for splits scored many times.
    """

    def __init__(
        self,
        model: CTRModel,
        data: DataDir,
        between: Callable[[], None] = lambda: None,
        memory_budget: int = 0,
    ) -> None:
        self._data = data
        self._between = between
        self._memory_budget = memory_budget
        self._candidate = candidate_key(data.schema.item_key.name)
        self._history = history_key(data.schema.item_key.name)
        self._user = data.schema.user_key.name
        self._categorical = [
            candidate_key(feature.name)
            for feature in data.schema.item_features
            if feature.is_categorical
        ]
        self._logits = tf.function(lambda features: model(features), autograph=False)
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
                self._data,
                split,
                batch_size=_BATCH_SIZE,
                shuffle_seed=None,
                memory_budget=self._memory_budget,
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
                self._between()
                bar.update(int(features[REQUEST_ID].shape[0]))
        if not parts:
            raise UserError(
                f"Expected requests in split {split!r} of {self._data.path}, found none.",
                "evaluate another split or build the data with more events per user.",
            )
        ids = {key: np.concatenate([part.ids[key] for part in parts]) for key in parts[0].ids}
        plain = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _PLAIN_FIELDS
        }
        return Scores(**plain, ids=ids)

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
            ids={
                self._user: features[self._user].numpy()[request],
                **{key: features[key].numpy()[mask_BN] for key in self._categorical},
            },
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
    _check_split(split)
    run = runs.open_run(run_dir)
    scores = Scorer(runs.load_model(run_dir), run.data).score(split, progress=progress)
    return record(run.path, split, scores)


def record(run_dir: pathlib.Path, split: str, scores: Scores) -> dict[str, float]:
    """Writes scores and metrics of a split into a run directory; returns the metrics."""
    columns = {**scores._asdict(), **scores.ids}
    del columns["ids"]
    pd.DataFrame(columns).to_parquet(scores_path(run_dir, split))
    metrics = ranking_metrics(scores)
    runs.write_metrics(run_dir, {split: metrics})
    return metrics


def scores_path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Where the scores of a split are dumped."""
    return run_dir / f"scores-{split}.parquet"


def read_scores(run_dir: str | pathlib.Path, split: str) -> Scores:
    """The dumped scores of a run; a split that was not measured yet is measured.

    Raises:
        UserError: See `evaluate`.
    """
    _check_split(split)
    path = scores_path(pathlib.Path(run_dir), split)
    if not path.exists():
        evaluate(run_dir, split)
    frame = pd.read_parquet(path)
    plain = {name: frame.pop(name).to_numpy() for name in _PLAIN_FIELDS}
    return Scores(**plain, ids={str(key): frame[key].to_numpy() for key in frame})


class Analysis(NamedTuple):
    """What `analyse` finds.

    Attributes:
        metrics: Metrics by name, each with its interval.
        slices: See `slices.measure`.
    """

    metrics: dict[str, Estimate]
    slices: pd.DataFrame


def analyse(run_dir: str | pathlib.Path, split: str, progress: bool = True) -> Analysis:
    """Metrics of a measured split with their intervals, and those of its slices.

    Raises:
        UserError: See `evaluate`.
    """
    run = runs.open_run(run_dir)
    scores = read_scores(run_dir, split)
    found = slices.measure(scores, run.data, progress)
    return Analysis(bootstrap.estimate(scores), found)


def compare(
    first: str | pathlib.Path, second: str | pathlib.Path, split: str
) -> dict[str, Difference]:
    """Two models on the requests of a split, with paired tests.

    Args:
        first: A run.
        second: Another run on the same data set.
        split: train, validation or test.

    Raises:
        UserError: The runs have different data; see also `evaluate`.
    """
    one, other = runs.open_run(first), runs.open_run(second)
    if one.data.fingerprint != other.data.fingerprint:
        raise UserError(
            f"Expected two runs on the same data set, found one on {one.data.path} and one on "
            f"{other.data.path}.",
            "train both on one build.",
        )
    return bootstrap.compare(read_scores(first, split), read_scores(second, split))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"Expected --split of {', '.join(SPLITS)}, found {split!r}.")


def define_flags() -> None:
    """Flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of models.train.")
    flags.DEFINE_string("compare", None, "Instead, a run to compare --against.")
    flags.DEFINE_string("against", None, "The other run; may be given without its name.")
    flags.DEFINE_enum("split", "test", SPLITS, "Split to measure.")


def main() -> None:
    """Prints the metrics of a split, or how those of two runs differ."""
    given = flags.FLAGS
    if given.compare and given.against and not given.run:
        _print_differences(compare(given.compare, given.against, given.split))
    elif given.run and not given.compare and not given.against:
        metrics = evaluate(given.run, given.split)
        found = analyse(given.run, given.split)
        path = pathlib.Path(given.run) / f"slices-{given.split}.csv"
        found.slices.to_csv(path, index=False)
        _print_metrics(metrics, found)
    else:
        raise UserError(
            "Expected --run, or --compare with two runs, found "
            f"--run={given.run} --compare={given.compare} --against={given.against}.",
            "as in models.evaluate --compare RUN_A RUN_B.",
        )


def _print_metrics(metrics: dict[str, float], found: Analysis) -> None:
    lines = []
    for name, value in metrics.items():
        interval = found.metrics.get(name)
        around = f"  [{interval.low:.5f}, {interval.high:.5f}]" if interval else ""
        digits = 0 if isinstance(value, int) else 5
        lines.append(f"{name:20s} {value:.{digits}f}{around}")
    bounds = zip(found.slices["auc_low"], found.slices["auc_high"], strict=True)
    table = found.slices.assign(**{"95 %": [f"[{low:.3f}, {high:.3f}]" for low, high in bounds]})
    shown = ["slice", "candidates", "auc", "95 %", "log_loss", "calibration_error", "bias_ratio"]
    for dimension, part in table.groupby("dimension", sort=False):
        lines += ["", f"by {dimension}", part[[*shown, "mrr"]].to_string(index=False)]
    sys.stdout.write("\n".join(lines).replace("NaN", "  -") + "\n")


def _print_differences(found: dict[str, Difference]) -> None:
    sys.stdout.write(f"{'':20s} {'first':>9s} {'second':>9s} {'difference':>11s}\n")
    for name, row in found.items():
        value, low, high = row.difference
        sys.stdout.write(
            f"{name:20s} {row.first:9.5f} {row.second:9.5f} {value:+11.5f}  "
            f"[{low:+.5f}, {high:+.5f}]  p {row.p_value:.3f}\n"
        )
    gain = relative_improvement(found["auc"].second, found["auc"].first)
    sys.stdout.write(f"relative improvement (RelaImpr): {gain:+.2%}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, positional="against")


if __name__ == "__main__":
    console_main()
