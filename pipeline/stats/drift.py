"""Distances between two distributions, from counts; 0 for equal ones, 1 for disjoint ones.

The measures are those of the field's data validators: Jensen-Shannon for categories, which unlike
Kullback-Leibler is defined when a value is missing on one side; Kolmogorov-Smirnov for numbers,
which needs no bins. V distinct values.
"""

import math

import numpy as np

_DIGITS = 6  # beyond these the logarithms of two machines may differ


def jensen_shannon(counts_V: np.ndarray, others_V: np.ndarray) -> float | None:
    """Jensen-Shannon divergence with logarithms to base 2; None if a side has no values.

    Args:
        counts_V: Number of times that each value occurs.
        others_V: Numbers for the other side, in the same order of values.
    """
    if not (counts_V.sum() and others_V.sum()):
        return None
    p_V, q_V = counts_V / counts_V.sum(), others_V / others_V.sum()
    middle_V = (p_V + q_V) / 2
    terms = [
        share[share > 0] * np.log2(share[share > 0] / middle_V[share > 0]) for share in (p_V, q_V)
    ]
    # An exact sum does not depend on the order of the values.
    return round(max(0.0, math.fsum(np.concatenate(terms).tolist()) / 2), _DIGITS)


def kolmogorov_smirnov(counts_V: np.ndarray, others_V: np.ndarray) -> float | None:
    """Largest difference of the distribution functions; None if a side has no values.

    Args:
        counts_V: Number of times that each value occurs, by increasing value.
        others_V: Numbers for the other side, of the same values.
    """
    if not (counts_V.sum() and others_V.sum()):
        return None
    cdf_V, other_cdf_V = np.cumsum(counts_V), np.cumsum(others_V)
    return round(float(np.abs(cdf_V / cdf_V[-1] - other_cdf_V / other_cdf_V[-1]).max()), _DIGITS)


def by_chance(distinct: int, count: int, other_count: int, is_number: bool) -> float:
    """The mean distance of two samples of one distribution, for samples that are not small.

    Args:
        distinct: Number of distinct values V; of no matter for numbers.
        count: Size of a sample, at least 1.
        other_count: Size of the other sample, at least 1.
        is_number: Whether the distance is that of Kolmogorov and Smirnov.

    Example:
        >>> round(by_chance(distinct=100, count=5_000, other_count=1_000, is_number=False), 4)
        0.0214
    """
    spread = 1.0 / count + 1.0 / other_count
    if is_number:
        return math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(spread)  # mean of Kolmogorov's law
    return min(1.0, (distinct - 1) * spread / (8.0 * math.log(2)))  # chi-squared, to base 2
