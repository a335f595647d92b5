"""MISS from its equations: full convolution maps, one history at a time, in loops."""

import numpy as np


def horizontal(tensor_JLd, kernel_m):
    """Eq. 19: relu(sum_i g[i] C[:, l + i, :]) for every window, [J, L - m + 1, d]."""
    features, length, width = tensor_JLd.shape
    m = len(kernel_m)
    out = np.zeros((features, length - m + 1, width))
    for j, start, k in np.ndindex(out.shape):
        out[j, start, k] = max(
            0.0, sum(kernel_m[i] * tensor_JLd[j, start + i, k] for i in range(m))
        )
    return out


def vertical(map_JLd, kernel_n):
    """Eq. 22: relu(sum_i g^[i] G[j + i, :, :]) for every row, [J - n + 1, L, d]."""
    features, length, width = map_JLd.shape
    n = len(kernel_n)
    out = np.zeros((features - n + 1, length, width))
    for j, start, k in np.ndindex(out.shape):
        out[j, start, k] = max(0.0, sum(kernel_n[i] * map_JLd[j + i, start, k] for i in range(n)))
    return out


def encode(x, layers):
    """Eqs. 13-14: dense layers, rectified but for the last."""
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0.0)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def cosine(x, y):
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norms) if norms > 0 else 0.0


def info_nce(first_Bw, second_Bw, valid_B, key_B, temperature):
    """Eqs. 15-16 for one slot: -log of the pair's share among the batch; 0 at invalid requests."""
    batch = len(valid_B)
    out = np.zeros(batch)
    for b in range(batch):
        if not valid_B[b]:
            continue
        total = 0.0
        for c in range(batch):
            if c == b or (valid_B[c] and key_B[c] != key_B[b]):
                total += np.exp(cosine(first_Bw[b], second_Bw[c]) / temperature)
        out[b] = -np.log(np.exp(cosine(first_Bw[b], second_Bw[b]) / temperature) / total)
    return out


def slot_losses(history_BLJd, lengths_B, key_B, starts_2B, rows_2B, kernels, encoder, temperature):
    """Loss [B] of one slot: `rows_2B` None for a slot of interests.

    `kernels` is (g_m,) or (g_m, g^_mn). A request is valid if both windows fit into its history
    and the views differ.
    """
    m = len(kernels[0])
    views, valid = [[], []], []
    for b, length in enumerate(lengths_B):
        fits = all(starts_2B[v][b] + m <= length for v in range(2))
        places = [(starts_2B[v][b], None if rows_2B is None else rows_2B[v][b]) for v in range(2)]
        valid.append(fits and places[0] != places[1])
        for v, (start, row) in enumerate(places):
            if not valid[-1]:
                views[v].append(np.zeros(encoder[-1][1].shape))
                continue
            tensor_JLd = np.transpose(history_BLJd[b, :length], (1, 0, 2))
            interest = horizontal(tensor_JLd, kernels[0])
            if row is None:
                view = interest[:, start, :].ravel()
            else:
                view = vertical(interest, kernels[1])[row, start]
            views[v].append(encode(view, encoder))
    loss = info_nce(np.array(views[0]), np.array(views[1]), valid, key_B, temperature)
    return loss, np.array(valid)
