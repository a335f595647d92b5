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


def window(history_LJd, kernel_m, start):
    """Eqs. 19-20: the interest that starts at an event, [J, d]."""
    return horizontal(np.transpose(history_LJd, (1, 0, 2)), kernel_m)[:, start, :]


def self_attention(history_LD, query, key, value):
    """Every event's mixture of all events, [L, D]."""
    out = np.zeros((len(history_LD), value.shape[1]))
    for i, event in enumerate(history_LD):
        scores = [(event @ query) @ (other @ key) / np.sqrt(key.shape[1]) for other in history_LD]
        weights = np.exp(scores) / np.sum(np.exp(scores))
        out[i] = sum(w * (other @ value) for w, other in zip(weights, history_LD, strict=True))
    return out


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(history_LD, kernel, recurrent, bias):
    """Hidden states, [L, D]; gates side by side: input, forget, cell, output."""
    width = recurrent.shape[0]
    hidden, cell = np.zeros(width), np.zeros(width)
    out = []
    for event in history_LD:
        gates = event @ kernel + hidden @ recurrent + bias
        i, f, c, o = (gates[k * width : (k + 1) * width] for k in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        out.append(hidden)
    return np.array(out)


def slot_loss(interests_VB, rows_VB, kernel_n, encoder, valid_B, key_B, temperature):
    """Loss [B] of one slot.

    `interests_VB` holds an interest [J, d] for each view of a valid request. `rows_VB` and
    `kernel_n` are None in a slot of interests.
    """
    views = []
    for v in range(2):
        encoded = np.zeros((len(valid_B), len(encoder[-1][1])))
        for b, valid in enumerate(valid_B):
            if not valid:
                continue
            interest = interests_VB[v][b]
            if rows_VB is not None:
                interest = vertical(interest[:, None, :], kernel_n)[rows_VB[v][b], 0]
            encoded[b] = encode(interest.ravel(), encoder)
        views.append(encoded)
    return info_nce(*views, valid_B, key_B, temperature)
