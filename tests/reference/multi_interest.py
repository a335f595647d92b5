"""MIND and ComiRec from their equations: loops over capsules and events, nothing padded."""

import numpy as np

from tests.reference.deminet import mlp, softmax
from tests.reference.interactions import squash


def route(votes, logits, iterations):
    """Dynamic routing: `votes` and `logits` by [interest][event].

    Returns the capsules and the shares of the events in the last iteration.
    """
    interests, events = len(logits), len(logits[0])
    b = np.array(logits, np.float64)
    for _ in range(iterations):
        shares = np.array([softmax(b[:, j]) for j in range(events)]).T
        capsules = []
        for k in range(interests):
            total = sum(shares[k, j] * votes[k][j] for j in range(events))
            capsules.append(squash(total))
        for k in range(interests):
            for j in range(events):
                b[k, j] += votes[k][j] @ capsules[k]
    return np.array(capsules), shares


def rank(position, events):
    """0 for the most recent event."""
    return events - 1 - position


def mind_interests(history, to_vote, logits, projection, interests, iterations):
    """`logits` [K, rank] by interest and recency; the first `interests` of them exist."""
    n = len(history)
    votes = [[x @ to_vote for x in history] for _ in range(interests)]
    start = [[logits[k, rank(j, n)] for j in range(n)] for k in range(interests)]
    capsules, shares = route(votes, start, iterations)
    return [np.maximum(v @ projection, 0.0) for v in capsules], shares


def comirec_dr_interests(history, kernel, iterations):
    """`kernel` [rank, D, K, D]."""
    n, interests = len(history), kernel.shape[2]
    votes = [[history[j] @ kernel[rank(j, n), :, k] for j in range(n)] for k in range(interests)]
    capsules, shares = route(votes, np.zeros([interests, n]), iterations)
    return list(capsules), shares


def comirec_sa_interests(history, positions, hidden, scorer):
    """`positions` [rank, D]; `scorer` has a column per interest."""
    n = len(history)
    steered = [history[j] + positions[rank(j, n)] for j in range(n)]
    attention = [softmax([np.tanh(x @ hidden) @ column for x in steered]) for column in scorer.T]
    return [sum(a * x for a, x in zip(row, history, strict=True)) for row in attention], attention


def read(interests, target, power=1.0, hard=False):
    """Weights of the interests for a candidate."""
    fits = np.array([v @ target for v in interests])
    if hard:
        return np.eye(len(fits))[np.argmax(fits)]
    return softmax(np.sign(fits) * np.abs(fits) ** power)


def logit(fields, history, target, extra, interests, layers, **readout):
    """`interests` of a history that is not empty, else None."""
    width = len(target)
    mean = pooled = np.zeros(width)
    if interests is not None:
        weights = read(interests, target, **readout)
        pooled = sum(w * v for w, v in zip(weights, interests, strict=True))
        mean = history.mean(0)
    return mlp(np.concatenate([fields, target, extra, mean, pooled]), layers)[0]
