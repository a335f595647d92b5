"""Twins of the calibrations in plain loops and float64."""

import math

import numpy as np
from scipy import optimize

LOWEST, HIGHEST = -80.0, 16.0


def probability(logit, knots, values, slope):
    """Calibrated probability of one logit: a line between two knots, or one of `slope` outside."""
    if logit <= knots[0]:
        value = values[0] + slope * (logit - knots[0])
    elif logit >= knots[-1]:
        value = values[-1] + slope * (logit - knots[-1])
    else:
        k = max(i for i, knot in enumerate(knots) if knot <= logit)
        share = (logit - knots[k]) / (knots[k + 1] - knots[k])
        value = (1 - share) * values[k] + share * values[k + 1]
    return 1.0 / (1.0 + math.exp(-min(max(value, LOWEST), HIGHEST)))


def platt(logit, label, weight):
    """Slope and intercept that minimise the weighted log loss of smoothed labels."""
    positives, negatives = sum(label > 0), sum(label == 0)
    target = np.where(label > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(line):
        value = line[0] * logit + line[1]
        return np.average(np.logaddexp(0.0, value) - target * value, weights=weight)

    return optimize.minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x


def pooled(logit, label, weight):
    """Blocks of pool adjacent violators: mean logit, share of positives, number of candidates."""
    blocks = []  # weight, weighted logit, weighted positives, count
    for z in sorted(set(logit)):
        mine = logit == z
        w = weight[mine].sum()
        blocks.append([w, w * z, (weight * label)[mine].sum(), mine.sum()])
        while len(blocks) > 1 and blocks[-2][2] / blocks[-2][0] >= blocks[-1][2] / blocks[-1][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return [(wz / w, wy / w, n) for w, wz, wy, n in blocks]
