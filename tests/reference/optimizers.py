"""NumPy twins of the optimisers of embedding tables, in float64.

A batch is a pair of ids [n] and gradients [n, d]; gradients of repeated ids are summed.
"""

import numpy as np

EPSILON = 1e-7


def _summed(rows, ids, gradients):
    total = np.zeros((rows, gradients.shape[1]))
    for i, gradient in zip(ids, gradients, strict=True):
        total[i] += gradient
    return total


def _adam(table, batches, rate, lazy):
    table = np.array(table, np.float64)
    first, second = np.zeros_like(table), np.zeros_like(table)
    for step, (ids, gradients) in enumerate(batches, 1):
        total = _summed(len(table), ids, gradients)
        for row in set(ids.tolist()) if lazy else range(len(table)):
            first[row] = 0.9 * first[row] + 0.1 * total[row]
            second[row] = 0.999 * second[row] + 0.001 * total[row] ** 2
            corrected = first[row] / (1 - 0.9**step)
            spread = np.sqrt(second[row] / (1 - 0.999**step))
            table[row] -= rate * corrected / (spread + EPSILON / np.sqrt(1 - 0.999**step))
    return table


def adam(table, batches, rate):
    """Kingma and Ba, 2015, with the epsilon of its more efficient order of computations."""
    return _adam(table, batches, rate, lazy=False)


def lazy_adam(table, batches, rate):
    """Adam whose moments and rows stand still where the batch has no id."""
    return _adam(table, batches, rate, lazy=True)


def adagrad(table, batches, rate):
    """Duchi et al., 2011, with sums of squares that begin at 0.1."""
    table = np.array(table, np.float64)
    squares = np.full_like(table, 0.1)
    for ids, gradients in batches:
        total = _summed(len(table), ids, gradients)
        for row in set(ids.tolist()):
            squares[row] += total[row] ** 2
            table[row] -= rate * total[row] / np.sqrt(squares[row] + EPSILON)
    return table
