"""Fits of calibrations to logits and labels.

Platt: logistic regression of the label on the logit. Isotonic: pool adjacent violators. Prior: the
closed form that undoes a known sampling of negatives.

Shapes: C candidates, L distinct logits, K pooled blocks.
"""

import math

import numpy as np
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression

from models.evaluation.calibration import Calibration

SLOPES = (0.1, 4.0)
"""Bounds of the slopes between knots of an isotonic calibration, as multiples of Platt's slope.

The lower one keeps candidates apart that the regression pools. The upper one keeps a step of the
regression from blowing up differences of rounding between two ways to compute a score.
"""
_TOLERANCE = 1e-9


class UnfitError(ValueError):
    """The candidates do not say how to calibrate; the text says what was found."""


def platt(logit_C: np.ndarray, label_C: np.ndarray, weight_C: np.ndarray) -> Calibration:
    """A line in the logit, fitted by log loss without regularisation (Platt, 1999).

    Labels are smoothed as Platt did, to (P + 1) / (P + 2) of P positives and 1 / (N + 2) of N
    negatives, so that the slope is finite where the logit separates them.

    Args:
        logit_C: Logits.
        label_C: Labels, 0 or 1.
        weight_C: Weights, 0 or more. A weight of 0 leaves the candidate out.

    Raises:
        UnfitError: There is one label or one logit only, or clicks do not have the higher logits.
    """
    logit_C, label_C, weight_C = _weighty(logit_C, label_C, weight_C)
    centre = np.average(logit_C, weights=weight_C)
    spread = math.sqrt(np.average((logit_C - centre) ** 2, weights=weight_C))
    if spread == 0.0:
        raise UnfitError("one score for all of them")
    positives = int(label_C.sum())
    targets = 1.0 / (len(label_C) - positives + 2.0), (positives + 1.0) / (positives + 2.0)
    target_C = np.where(label_C > 0, targets[1], targets[0])
    # A fractional target is a positive and a negative that share the weight of the candidate.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=_TOLERANCE)
    scaled_C = (logit_C - centre) / spread
    regression.fit(
        np.concatenate([scaled_C, scaled_C])[:, None],
        np.repeat([1, 0], len(label_C)),
        np.concatenate([weight_C * target_C, weight_C * (1.0 - target_C)]),
    )
    slope = float(regression.coef_[0, 0]) / spread
    if slope <= 0.0:
        raise UnfitError(f"scores that are no higher for positives (slope {slope:.3g})")
    return Calibration((0.0,), (float(regression.intercept_[0]) - slope * centre,), slope)


def isotonic(logit_C: np.ndarray, label_C: np.ndarray, weight_C: np.ndarray) -> Calibration:
    """Lines between the centres of the blocks of an isotonic regression, parallel to Platt outside.

    A block is a knot: the mean of its logits, and the logit of the share of its positives. Shares
    of blocks differ, so that lines between them rise; `SLOPES` bounds by how much. A share of 0 or
    1, which only the outermost blocks can have, is one of half a candidate.

    Args:
        logit_C: Logits.
        label_C: Labels, 0 or 1.
        weight_C: Weights, 0 or more. A weight of 0 leaves the candidate out.

    Raises:
        UnfitError: The conditions of `platt`.
    """
    slope = platt(logit_C, label_C, weight_C).slope
    logit_C, label_C, weight_C = _weighty(logit_C, label_C, weight_C)
    _, level_C = np.unique(logit_C, return_inverse=True)  # Equal logits are one point.
    weight_L = np.bincount(level_C, weight_C)
    share_L = np.bincount(level_C, weight_C * label_C) / weight_L
    fitted_C = isotonic_regression(share_L, sample_weight=weight_L)[level_C]
    share_K, block_C, size_K = np.unique(fitted_C, return_inverse=True, return_counts=True)
    logit_K = np.bincount(block_C, weight_C * logit_C) / np.bincount(block_C, weight_C)
    share_K = _without_certainty(share_K, size_K)
    value_K = _bounded(logit_K, np.log(share_K / (1.0 - share_K)), slope)
    # Logits next to each other may be too close for a rise in float64.
    rises_K = np.append(True, np.diff(value_K) > 0.0)
    logit_K, value_K = logit_K[rises_K], value_K[rises_K]
    return Calibration(tuple(logit_K.tolist()), tuple(value_K.tolist()), slope)


def prior(sampling_rate: float) -> Calibration:
    """The shift that undoes the sampling of negatives.

    If each negative was kept with this probability, the odds of a positive were divided by it.

    Args:
        sampling_rate: Probability, above 0 and at most 1.
    """
    return Calibration((0.0,), (math.log(sampling_rate),), 1.0)


def _weighty(
    logit_C: np.ndarray, label_C: np.ndarray, weight_C: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidates that have a weight, in float64; `UnfitError` unless they have both labels."""
    chosen_C = weight_C > 0
    logit_C, label_C, weight_C = (
        np.asarray(values_C, np.float64)[chosen_C] for values_C in (logit_C, label_C, weight_C)
    )
    labels = np.unique(label_C)
    if not len(labels):
        raise UnfitError("none with a weight above 0")
    if len(labels) == 1:
        raise UnfitError(f"the label {labels[0]:g} only")
    return logit_C, label_C, weight_C


def _without_certainty(share_K: np.ndarray, size_K: np.ndarray) -> np.ndarray:
    """Shares above 0 and below 1: of n candidates with one label, half of one had the other."""
    share_K = share_K.copy()
    if share_K[0] <= 0.0:
        share_K[0] = min(0.5 / (size_K[0] + 1.0), share_K[1] / 2.0)
    if share_K[-1] >= 1.0:
        share_K[-1] = 1.0 - min(0.5 / (size_K[-1] + 1.0), (1.0 - share_K[-2]) / 2.0)
    return share_K


def _bounded(logit_K: np.ndarray, value_K: np.ndarray, slope: float) -> np.ndarray:
    """Values whose slopes are within bounds: the mean of bounding them from the left and right."""
    low_k, high_k = (bound * slope * np.diff(logit_K) for bound in SLOPES)
    forward, backward = value_K.copy(), value_K.copy()
    for k in range(1, len(value_K)):
        forward[k] = np.clip(
            value_K[k], forward[k - 1] + low_k[k - 1], forward[k - 1] + high_k[k - 1]
        )
    for k in reversed(range(len(value_K) - 1)):
        backward[k] = np.clip(value_K[k], backward[k + 1] - high_k[k], backward[k + 1] - low_k[k])
    return (forward + backward) / 2.0
