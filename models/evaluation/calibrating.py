"""Calibrates a run: fits a map to its validation split, and measures it there and on test."""

from collections.abc import Mapping

import numpy as np

from models.core.base import CTRModel
from models.core.run_directory import Run
from models.evaluation import calibration_fits, dumped_scores
from models.evaluation.calibration import Calibration
from models.evaluation.calibration_fits import UnfitError
from models.evaluation.calibration_record import (
    FITTED_ON,
    ISOTONIC,
    PLATT,
    PRIOR,
    SPLITS,
    Record,
    measure,
)
from models.evaluation.metrics import Scores
from models.evaluation.scoring import Scorer
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError

_NOTHING_PUBLISHED = "Nothing was published."


def of_run(run: Run, model: CTRModel, method: str) -> Record:
    """Calibrates the best weights of a run.

    Args:
        run: A trained run.
        model: Its model with the best weights.
        method: One of `METHODS`.

    Raises:
        UserError: The validation split does not say how to calibrate, or how negatives were sampled
            is not known as one rate (`prior`).
    """
    weights = _negative_weights(run) if method == PRIOR else dict.fromkeys(SPLITS, 1.0)
    scores = {s: _scores(run, model, s) for s in SPLITS if run.data.num_requests(s)}
    if method == PRIOR:
        rate = 1.0 / _negative_weight(run.data, "train")
        calibration = calibration_fits.prior(rate)
        how = (
            f"logits shifted by log({rate:.4g}) = {calibration.value_K[0]:.4f}, the rate at which "
            "training negatives were sampled"
        )
    else:
        calibration, how = _fitted(method, scores, run.data)
    splits = {s: measure(scores[s], calibration, weights[s]) for s in scores}
    return Record(method, how, calibration, splits)


def _scores(run: Run, model: CTRModel, split: str) -> Scores:
    """Dumped scores of the current weights, or else new ones, of which the run keeps nothing."""
    if dumped_scores.are_current(run.path, split):
        return dumped_scores.read(run.path, split)
    return Scorer(model, run.data).score(split, progress=True)


def _fitted(method: str, scores: Mapping[str, Scores], data: DataDir) -> tuple[Calibration, str]:
    """The calibration fitted to the validation split, and a sentence on it."""
    if FITTED_ON not in scores:
        raise _unfit(method, data, "none")
    split = scores[FITTED_ON]
    weighted = "" if split.weight is None else ", weighted"
    weight_C = np.ones(len(split.label)) if split.weight is None else split.weight
    fit = {PLATT: calibration_fits.platt, ISOTONIC: calibration_fits.isotonic}[method]
    try:
        calibration = fit(split.logit, split.label, weight_C)
    except UnfitError as error:
        raise _unfit(method, data, str(error)) from None
    what = (
        f"slope {calibration.slope:.4f}, intercept {calibration.value_K[0]:.4f}"
        if method == PLATT
        else f"{len(calibration.logit_K)} knots"
    )
    return calibration, f"{what}, fitted to {len(weight_C):,} candidates of {FITTED_ON}{weighted}"


def _unfit(method: str, data: DataDir, found: str) -> UserError:
    return UserError(
        f"--calibrate={method}: expected candidates of both labels, positives with the higher "
        f"scores, in the {FITTED_ON} split of {data.path}, found {found}. {_NOTHING_PUBLISHED}",
        "build the data with a larger validation split, or export without --calibrate.",
    )


def _negative_weights(run: Run) -> dict[str, float]:
    """Number of candidates that a negative of each split stands for; refuses what has none."""
    schema, train = run.data.schema, run.config.train
    arguments = run.data.manifest.get("arguments", {})
    sampling, negatives = arguments.get("negative_sampling"), arguments.get("negatives")
    found = ""
    if schema.is_impression_log:
        found = "a log of impressions, whose negatives were shown and not sampled"
    elif sampling != "uniform":
        found = f"--negative_sampling={sampling}, whose rate differs from candidate to candidate"
    elif not negatives:
        found = f"--negatives={negatives}"
    elif schema.weight is not None:
        found = f"samples weighted by {schema.weight.name!r}"
    elif train.positive_weight != 1.0 or train.sample_weight:
        found = "training with train.positive_weight or train.sample_weight"
    if found:
        raise UserError(
            f"--calibrate={PRIOR}: expected a log of clicks with uniformly sampled negatives and "
            f"without weights in {run.data.path}, found {found}. {_NOTHING_PUBLISHED}",
            f"use --calibrate={PLATT}, which fits to the candidates as they are.",
        )
    return {split: _negative_weight(run.data, split) for split in SPLITS}


def _negative_weight(data: DataDir, split: str) -> float:
    """Items of a split's catalogue for each negative of a request."""
    items = data.stats["splits"][split]["items_to_draw_from"]
    return max(1.0, items / data.manifest["arguments"]["negatives"])
