"""What a field of many values is: the twin of `models.core.value_bags`, one set after another."""

import numpy as np


def combined(table, ids, combiner):
    """Vectors [..., d] of sets of ids [..., M] in float64; 0 is padding.

    mean:   (1/n) sum_i e_i        sum:   sum_i e_i        sqrtn:   (1/sqrt n) sum_i e_i
    over the n values of a set that are no padding; zero if there are none.
    """
    table, ids = np.asarray(table, np.float64), np.asarray(ids)
    vectors = np.zeros((*ids.shape[:-1], table.shape[1]))
    for place in np.ndindex(*ids.shape[:-1]):
        values = [table[one] for one in ids[place] if one != 0]
        if values:
            scale = {"mean": len(values), "sum": 1, "sqrtn": np.sqrt(len(values))}[combiner]
            vectors[place] = np.sum(values, axis=0) / scale
    return vectors
