"""Feature interactions, capsules and AUGRU from their equations, one element at a time."""

import itertools

import numpy as np


def fm_second_order(fields_Fd):
    return sum(float(a @ b) for a, b in itertools.combinations(fields_Fd, 2))


def pairwise_inner_products(fields_Fd):
    return np.array([a @ b for a, b in itertools.combinations(fields_Fd, 2)])


def cross(x0, x, w, b):
    """DCN: x0 x^T w + b + x."""
    return np.outer(x0, x) @ w + b + x


def compressed_interaction(fields_Fd, weights):
    """xDeepFM: `weights` [previous rows, fields, rows] per map; halves but for the last map."""
    previous, outputs = fields_Fd, []
    for k, kernel in enumerate(weights):
        rows = []
        for h in range(kernel.shape[2]):
            row = np.zeros(fields_Fd.shape[1])
            for i, j in np.ndindex(len(previous), len(fields_Fd)):
                row += kernel[i, j, h] * previous[i] * fields_Fd[j]
            rows.append(row)
        half = len(rows) // 2 if k < len(weights) - 1 else len(rows)
        outputs += [row.sum() for row in rows[:half]]
        previous = np.array(rows[half:])
    return np.array(outputs)


def squash(x):
    length = np.linalg.norm(x)
    return x / length * length**2 / (1.0 + length**2)


def augru(inputs_LD, attention_L, kernel, bias, state_kernel):
    """The last state; gates are side by side in the kernels: update, reset, proposal."""
    units = state_kernel.shape[0]
    h = np.zeros(units)
    for x, a in zip(inputs_LD, attention_L, strict=True):
        of_x, of_h = x @ kernel + bias, h @ state_kernel
        update = 1 / (1 + np.exp(-(of_x[:units] + of_h[:units])))
        reset = 1 / (1 + np.exp(-(of_x[units:-units] + of_h[units:-units])))
        proposal = np.tanh(of_x[-units:] + reset * of_h[-units:])
        h = (1 - a * update) * h + a * update * proposal
    return h
