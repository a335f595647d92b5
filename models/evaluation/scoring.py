"""Scores a split with a trained run and measures the scores (command: `models.evaluate`)."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from models.core import run_directory
from models.core.base import CTRModel
from models.evaluation import confidence_intervals, dumped_scores, slices
from models.evaluation.confidence_intervals import Difference, Estimate
from models.evaluation.metrics import (
    Scores,
    concatenated,
    ranking_metrics,
)
from models.keras import tf
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import (
    LABEL,
    LABEL_WEIGHT,
    REQUEST_ID,
    REQUEST_USER,
    candidate_key,
    history_key,
)
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.reading import turns
from preprocessing.reading.parts import WHOLE, Part
from preprocessing.splits import SPLITS

BATCH_SIZE = 512
"""Number of requests that are scored at once."""


class Scorer:
    """Scores splits with one compiled function, so that repeated evaluations trace once.

    Args:
        model: Model to score with.
        data: Data set to score.
        between: Callback between batches; an exception in it ends the scoring.
        memory_budget: Maximum bytes of a split that is held in memory, if it is scored repeatedly.
        turn: This process among those that score a split together, see `score_turn`.
    """

    def __init__(
        self,
        model: CTRModel,
        data: DataDir,
        between: Callable[[], None] = lambda: None,
        memory_budget: int = 0,
        turn: Part = WHOLE,
    ) -> None:
        self._data = data
        self._turn = turn
        self._between = between
        self._memory_budget = memory_budget
        self._candidate = candidate_key(data.schema.item_key.name)
        self._history = history_key(data.schema.item_key.name)
        features = data.schema.user_features
        self._of_request = {f.name: f for f in features if f.is_categorical}
        features = data.schema.item_features
        self._of_candidate = {candidate_key(f.name): f for f in features if f.is_categorical}
        self._logits = tf.function(lambda features: model(features), autograph=False)
        self._batches: dict[str, tf.data.Dataset] = {}
        self._first: dict[str, tf.Tensor] | None = None

    def score(self, split: str, progress: bool = False, held: bool = True) -> Scores:
        """Scores every candidate of a split.

        Args:
            split: train, validation or test.
            progress: Whether to show a progress bar on standard error.
            held: Whether the split may be held in memory, if it is within the budget.

        Raises:
            UserError: The split has no requests, or a score is not finite, which would distort all
                metrics.
        """
        with dataset.reading(self._data):
            return self.score_batches(self._read(split, WHOLE, held), split, progress)

    def score_turn(
        self, split: str, progress: bool = False, held: bool = True
    ) -> tuple[Sequence[int], list[Scores]]:
        """Scores the batches of a split that are this process's turn; takes what `score` takes.

        Returns:
            The number of each batch in the split, and its scores.

        Raises:
            UserError: A shard of the split is damaged.
        """
        taken = turns.turn(self._data, split, BATCH_SIZE, self._turn)
        with dataset.reading(self._data):
            batches = self._read(split, self._turn, held)
            return taken.batches.tolist(), self._scored(batches, split, taken.scored, progress)

    def _read(self, split: str, turn: Part, held: bool) -> tf.data.Dataset:
        if held and split in self._batches:
            return self._batches[split]
        batches = dataset.read(
            self._data,
            split,
            batch_size=BATCH_SIZE,
            shuffle_seed=None,
            memory_budget=self._memory_budget if held else 0,
            with_users=True,
            turn=turn,
        )
        if held:
            self._batches[split] = batches
        return batches

    def graph(self) -> tf.Graph | None:
        """The graph of the function that scores, as it was traced for the first batch, if any."""
        if self._first is None:
            return None
        return self._logits.get_concrete_function(self._first).graph

    def score_batches(
        self, batches: Iterable[dict[str, tf.Tensor]], split: str, progress: bool = False
    ) -> Scores:
        """Scores every candidate of some batches.

        Args:
            batches: Batches as `dataset.read` gives them, with users.
            split: Split that they are from: train, validation or test.
            progress: Whether to show a progress bar on standard error.

        Raises:
            UserError: The conditions of `score`.
        """
        parts = self._scored(batches, split, self._data.num_requests(split), progress)
        if not parts:
            raise UserError(
                f"Expected requests in split {split!r} of {self._data.path}, found none.",
                "evaluate another split or build the data with more events per user.",
            )
        scores = concatenated(parts)
        require_finite(scores, split)
        return scores

    def _scored(
        self, batches: Iterable[dict[str, tf.Tensor]], split: str, requests: int, progress: bool
    ) -> list[Scores]:
        """The scores of each batch."""
        parts: list[Scores] = []
        with tqdm(
            total=requests,
            desc=f"score {split}",
            unit="request",
            disable=None if progress else True,
        ) as bar:
            for features in batches:
                self._first = self._first or features
                parts.append(self._collect(features, self._logits(features)))
                self._between()
                bar.update(int(features[REQUEST_ID].shape[0]))
        return parts

    def _collect(self, features: dict[str, tf.Tensor], logits_BN: tf.Tensor) -> Scores:
        """One entry per valid candidate of a batch."""
        mask_BN = features[self._candidate].numpy() != PAD_ID
        request = np.nonzero(mask_BN)[0]
        lengths = (features[self._history].numpy() != PAD_ID).sum(axis=1)
        return Scores(
            user=_texts(features[REQUEST_USER])[request],
            request_id=_texts(features[REQUEST_ID])[request],
            label=features[LABEL].numpy()[mask_BN],
            logit=logits_BN.numpy()[mask_BN],
            history_length=lengths[request],
            ids={
                **{
                    key: _first_values(feature, features[key].numpy()[request])
                    for key, feature in self._of_request.items()
                },
                **{
                    key: _first_values(feature, features[key].numpy()[mask_BN])
                    for key, feature in self._of_candidate.items()
                },
            },
            weight=features[LABEL_WEIGHT].numpy()[mask_BN] if LABEL_WEIGHT in features else None,
        )


def _first_values(feature: Feature, ids_C: np.ndarray) -> np.ndarray:
    """The id of each candidate [C]; of many values [C, M] that of the most frequent one."""
    return ids_C if feature.many is None else ids_C[:, 0]


def _texts(strings_B: tf.Tensor) -> np.ndarray:
    """Strings [B] as an object array, so that repeated entries share one text."""
    return np.array([text.decode() for text in strings_B.numpy()], object)


def require_finite(scores: Scores, split: str) -> None:
    """Raises `UserError` if a score is not finite, which would distort all metrics."""
    wrong_C = ~np.isfinite(scores.logit)
    if wrong_C.any():
        first = scores.request_id[wrong_C.argmax()]
        raise UserError(
            f"Expected finite scores, found NaN or infinity for {wrong_C.sum():,} of "
            f"{len(wrong_C):,} candidates of split {split}, the first in request {first!r}.",
            "look at the values of this request's features, and bound or bucketise those that no "
            "training request comes near.",
        )


def evaluate(
    run_dir: str | pathlib.Path, split: str, progress: bool = True
) -> dict[str, float | None]:
    """Measures the best weights of a run; writes scores and metrics to the run directory.

    Args:
        run_dir: Run directory of `models.train`.
        split: train, validation or test.
        progress: Whether to show a progress bar on standard error.

    Returns:
        Metrics by name, see `models.evaluation.metrics.ranking_metrics`.

    Raises:
        UserError: The split is unknown, or there is no run, no weights or no requests.
    """
    require_split(split)
    run = run_directory.open_run(run_dir)
    origin = dumped_scores.origin(run.path)
    scores = Scorer(run_directory.load_model(run_dir), run.data).score(split, progress=progress)
    return record(run.path, split, scores, run.data, origin)


def record(
    run_dir: pathlib.Path,
    split: str,
    scores: Scores,
    data: DataDir,
    origin: dumped_scores.Origin | None = None,
) -> dict[str, float | None]:
    """Writes scores and metrics of a split into a run directory.

    Args:
        run_dir: Run directory.
        split: train, validation or test.
        scores: Scores of its candidates.
        data: Data set that the model was trained on, which determines the known items.
        origin: Origin of the scores; None for the current weights and data of the run directory.

    Returns:
        Metrics by name.
    """
    origin = origin or dumped_scores.origin(run_dir)
    dumped_scores.write(run_dir, split, scores, origin, data.encoders)
    metrics = ranking_metrics(scores, slices.known_items(scores, data))
    run_directory.write_metrics(run_dir, {split: metrics})
    return metrics


def read_scores(run_dir: str | pathlib.Path, split: str) -> Scores:
    """The dumped scores of a run; scores again if there are none or they are not current.

    Raises:
        UserError: The conditions of `evaluate`.
    """
    require_split(split)
    path = pathlib.Path(run_dir)
    if not dumped_scores.are_current(path, split):
        evaluate(path, split)
    return dumped_scores.read(path, split)


class Analysis(NamedTuple):
    """Result of `analyse`.

    Attributes:
        metrics: Metrics by name, each with its confidence interval.
        slices: Metrics of each slice, see `slices.measure`.
    """

    metrics: dict[str, Estimate]
    slices: pd.DataFrame


def analyse(run_dir: str | pathlib.Path, split: str, progress: bool = True) -> Analysis:
    """Metrics of a split and of its slices, with confidence intervals.

    Raises:
        UserError: The conditions of `evaluate`.
    """
    run = run_directory.open_run(run_dir)
    scores = read_scores(run_dir, split)
    slice_metrics = slices.measure(scores, run.data, progress)
    return Analysis(confidence_intervals.estimate(scores), slice_metrics)


def compare(
    first: str | pathlib.Path, second: str | pathlib.Path, split: str
) -> dict[str, Difference]:
    """Compares two models on the requests of a split, with paired tests.

    Args:
        first: Directory of a run.
        second: Directory of another run on the same data set.
        split: train, validation or test.

    Raises:
        UserError: The runs have different data; see also `evaluate`.
    """
    first_run, second_run = run_directory.open_run(first), run_directory.open_run(second)
    if first_run.data.fingerprint != second_run.data.fingerprint:
        raise UserError(
            f"Expected two runs on the same data set, found one on {first_run.data.path} and "
            f"one on {second_run.data.path}.",
            "train both on one build.",
        )
    return confidence_intervals.compare(read_scores(first, split), read_scores(second, split))


def require_split(split: str) -> None:
    """Raises `UserError` for a name that is no split."""
    if split not in SPLITS:
        raise UserError(f"Expected --split of {', '.join(SPLITS)}, found {split!r}.")
