"""DIN from its equations: every (candidate, event) pair on its own, inputs concatenated.

Weights are dictionaries: dense layers are (kernel, bias) pairs, Dice layers are
(alpha, moving_mean, moving_variance) triples.
"""

import numpy as np

EPSILON = 1e-3


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def dice(rows, weights, training):
    """`rows` [valid entries, C]: p x + (1 - p) alpha x, p = sigmoid((x - mean) / std)."""
    alpha, mean, variance = weights
    if training:
        mean, variance = rows.mean(0), rows.var(0)
    p = sigmoid((rows - mean) / np.sqrt(variance + EPSILON))
    return p * rows + (1.0 - p) * alpha * rows


def attention_rows(rows, weights, training):
    """Scores of the rows [q, k, q - k, q * k] of all valid pairs."""
    for i, (kernel, bias) in enumerate(weights["hidden"]):
        rows = rows @ kernel + bias
        rows = dice(rows, weights["dice"][i], training) if weights["dice"] else sigmoid(rows)
    kernel, bias = weights["scorer"]
    return (rows @ kernel + bias)[:, 0]


def attention(targets_BND, events_BLD, mask_BNL, weights, normalize=False, training=False):
    """Weight of each event for each candidate; 0 at padding."""
    places, rows = [], []
    for b, n, step in np.argwhere(mask_BNL):
        q, k = targets_BND[b, n], events_BLD[b, step]
        places.append((b, n, step))
        rows.append(np.concatenate([q, k, q - k, q * k]))
    scores_BNL = np.zeros(mask_BNL.shape)
    if rows:
        for place, score in zip(
            places, attention_rows(np.array(rows), weights, training), strict=True
        ):
            scores_BNL[place] = score
    if normalize:
        for b, n in np.ndindex(*mask_BNL.shape[:2]):
            valid = mask_BNL[b, n]
            if valid.any():
                shares = np.exp(scores_BNL[b, n, valid] - scores_BNL[b, n, valid].max())
                scores_BNL[b, n, valid] = shares / shares.sum()
    return scores_BNL


def logits(
    fields_BFd,
    events_BLD,
    mask_BL,
    targets_BND,
    extras_BNX,
    mask_BN,
    weights,
    normalize=False,
    training=False,
):
    """The network on [user fields, target, extra, sum of weighted events]."""
    batch, candidates = mask_BN.shape
    mask_BNL = mask_BN[:, :, None] & mask_BL[:, None, :]
    shares = attention(targets_BND, events_BLD, mask_BNL, weights, normalize, training)
    out = np.zeros((batch, candidates))
    for b, n in np.ndindex(batch, candidates):
        pool = sum(
            (shares[b, n, step] * events_BLD[b, step] for step in np.flatnonzero(mask_BNL[b, n])),
            np.zeros(events_BLD.shape[-1]),
        )
        x = np.concatenate([fields_BFd[b].ravel(), targets_BND[b, n], extras_BNX[b, n], pool])
        for kernel, bias in weights["dnn"][:-1]:
            x = np.maximum(x @ kernel + bias, 0.0)
        kernel, bias = weights["dnn"][-1]
        out[b, n] = (x @ kernel + bias)[0]
    return out
