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
    divergence = JensenShannon(int(counts_V.sum()), int(others_V.sum()))
    divergence.add(counts_V, others_V)
    return divergence.distance


class JensenShannon:
    """Jensen-Shannon divergence of values that come in parts; it does not depend on the parts.

    Args:
        total: Number of values on one side, each time that one occurs.
        other_total: Number on the other side.
    """

    def __init__(self, total: int, other_total: int) -> None:
        self._totals = total, other_total
        self._terms: list[float] = []

    def add(self, counts_V: np.ndarray, others_V: np.ndarray) -> None:
        """Adds values that were in no part before, see `jensen_shannon`."""
        if not all(self._totals):
            return
        p_V, q_V = counts_V / self._totals[0], others_V / self._totals[1]
        middle_V = (p_V + q_V) / 2
        for share in (p_V, q_V):
            is_there = share > 0
            self._terms += _exact_sum(
                share[is_there] * np.log2(share[is_there] / middle_V[is_there])
            )

    @property
    def distance(self) -> float | None:
        """The divergence with logarithms to base 2; None if a side has no values."""
        if not all(self._totals):
            return None
        # An exact sum does not depend on the order of the values.
        return round(max(0.0, math.fsum(self._terms) / 2), _DIGITS)


def _exact_sum(terms: np.ndarray) -> list[float]:
    """A few numbers whose sum is exactly that of many."""
    numbers = terms.tolist()
    parts: list[float] = []
    while rest := math.fsum([*numbers, *(-part for part in parts)]):
        parts.append(rest)
    return parts


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
