"""Permutation importance: what the AUC of a run loses without what an input says.

The values of one input are permuted across all requests of a split (`permutation`), and all
candidates are scored again: the input then has its usual values, but they say nothing about the
request. The figure is the drop in AUC (Breiman, 2001, "Random forests", section 10), with the
interval of the paired bootstrap over users that compares two models.

Inputs that say the same share the credit: a model falls back on one while the other is permuted.
"""

import math
import pathlib

import numpy as np
import pandas as pd
from tqdm import tqdm

from models.core import run_directory
from models.core.base import CTRModel
from models.evaluation import confidence_intervals, dumped_scores, permutation
from models.evaluation.confidence_intervals import Difference
from models.evaluation.metrics import overall_auc
from models.evaluation.permutation import Batch
from models.evaluation.scoring import BATCH_SIZE, Scorer, require_split
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.storage import files

SEED = 0
MOST_REQUESTS = 1 << 15
"""Number of requests that are read of a larger split, since all are held in memory. A multiple of
the requests that the reader sorts by length at once, so that all lengths have their share."""
_ORIGIN = dumped_scores.Origin._fields


def path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Path of the table of a split."""
    return run_dir / f"importance-{split}.csv"


def of_run(run_dir: str | pathlib.Path, split: str, progress: bool = True) -> pd.DataFrame:
    """Measures the inputs of a run's best weights; writes RUN/importance-SPLIT.csv.

    Args:
        run_dir: Run directory of `models.train`.
        split: train, validation or test.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The table of `measure`, and in every row the digests `weights` and `data` of what it
        belongs to.

    Raises:
        UserError: The split is unknown, or there is no run or no weights; see also `measure`.
    """
    require_split(split)
    run = run_directory.open_run(run_dir)
    origin = dumped_scores.origin(run.path)
    model = run_directory.load_model(run_dir)
    table = measure(model, run.data, split, progress=progress).assign(**origin._asdict())
    files.write_bytes(path(run.path, split), table.to_csv(index=False).encode())
    return table


def measure(
    model: CTRModel, data: DataDir, split: str, seed: int = SEED, progress: bool = False
) -> pd.DataFrame:
    """Drops in AUC by input.

    Args:
        model: Model to score with.
        data: Data set to score.
        split: train, validation or test.
        seed: Seed of the permutations, and of the sample of a split with more than `MOST_REQUESTS`.
        progress: Whether to show a progress bar on standard error.

    Returns:
        A row per input of the model, the largest drop first: `feature` and `part`, see
        `permutation.Input`; `auc_drop` and its interval `low` to `high`, NaN if undefined;
        `gauc_drop` and `log_loss_rise`, NaN if undefined; then of the whole table `auc`, without
        any permutation, and how many `requests` of the `split_requests` were scored.

    Raises:
        UserError: The split has no requests or candidates of one label only, or a score is not
            finite.
    """
    scorer = Scorer(model, data)
    batches = _read(data, split, seed)
    scores = scorer.score_batches(batches, split)
    auc = overall_auc(scores.label, scores.logit)
    if math.isnan(auc):
        raise UserError(
            f"Expected candidates of both labels in split {split!r} of {data.path}, found one "
            "label.",
            "measure another split.",
        )
    inputs = permutation.inputs(data.schema)
    shown = tqdm(inputs, desc="permute", unit="input", disable=None if progress else True)
    permuted_scores = (
        scorer.score_batches(permutation.permuted(batches, permuted_input, seed), split)
        for permuted_input in shown
    )
    differences = confidence_intervals.compare_each(permuted_scores, scores)
    rows = [
        {"feature": permuted_input.feature, "part": permuted_input.part, **_figures(difference)}
        for permuted_input, difference in zip(inputs, differences, strict=True)
    ]
    requests = sum(len(batch[data.schema.user_key.name]) for batch in batches)
    return (
        pd.DataFrame(rows)
        .sort_values("auc_drop", ascending=False, kind="stable", ignore_index=True)
        .assign(auc=auc, requests=requests, split_requests=data.num_requests(split))
    )


def read_current(run_dir: pathlib.Path, split: str) -> pd.DataFrame | None:
    """The table of a split; None if there is none for the run's current weights and data set."""
    file = path(run_dir, split)
    if not file.exists():
        return None
    # Read as texts, because a feature may be called NA, and an unknown digest is "".
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    numbers = table.columns.difference(["feature", "part", *_ORIGIN])
    table[numbers] = table[numbers].apply(pd.to_numeric)
    stored = {name: table[name].iloc[0] for name in _ORIGIN}
    return table if dumped_scores.is_current(run_dir, stored) else None


def includes_zero(table: pd.DataFrame) -> np.ndarray:
    """Whether the interval of each row includes 0; false if it is undefined."""
    return ((table["low"] <= 0.0) & (table["high"] >= 0.0)).to_numpy()


def marks(table: pd.DataFrame) -> list[str]:
    """The remark on each row: that its interval includes 0, or nothing."""
    return ["includes 0" if is_marked else "" for is_marked in includes_zero(table)]


def how_measured(table: pd.DataFrame, split: str) -> str:
    """A sentence on what the drops of a table are."""
    first = table.iloc[0]
    requests, all_requests = int(first["requests"]), int(first["split_requests"])
    among = f"all {requests:,} requests"
    if requests < all_requests:
        among = f"a seeded sample of {requests:,} of the {all_requests:,} requests"
    return (
        f"Drop from the AUC of {first['auc']:.5f} when the values of one input are permuted across "
        f"{among} of {split}; 95% intervals from {confidence_intervals.DRAWS:,} draws of users."
    )


def _read(data: DataDir, split: str, seed: int) -> list[Batch]:
    """The batches that `Scorer.score` scores; of a larger split as many of a shuffled epoch."""
    is_whole = data.num_requests(split) <= MOST_REQUESTS
    batches = dataset.read(
        data,
        split,
        batch_size=BATCH_SIZE,
        shuffle_seed=None if is_whole else seed,
        with_users=True,
    )
    with dataset.reading(data):
        return list(batches.take(MOST_REQUESTS // BATCH_SIZE))


def _figures(differences: dict[str, Difference]) -> dict[str, float]:
    """The measured columns of a row, from the differences of the model to its permuted scores."""
    auc, gauc, log_loss = (differences[name].difference for name in ("auc", "gauc", "log_loss"))
    figures = {
        "auc_drop": auc.value,
        "low": auc.low,
        "high": auc.high,
        "gauc_drop": gauc.value,
        "log_loss_rise": None if log_loss.value is None else 0.0 - log_loss.value,
    }
    return {name: np.nan if value is None else value for name, value in figures.items()}
