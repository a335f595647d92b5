"""The rivals of MISS from their definitions, given what was drawn: one history at a time."""

import math

import numpy as np

from tests.reference.miss import cosine, encode


def log_share(scores, positive):
    """-log of the positive's share of exp(scores)."""
    return float(np.log(sum(np.exp(s) for s in scores)) - positive)


def rule(history_BLJd, kept_VBL, encoder, temperature, key_B, valid_B):
    """InfoNCE [B] between the encoded means of the events that two copies keep."""
    views = []
    for kept_BL in kept_VBL:
        encoded = [
            encode(history[kept].mean(0).ravel(), encoder) if kept.any() else None
            for history, kept in zip(history_BLJd, kept_BL, strict=True)
        ]
        views.append(encoded)
    return cosine_info_nce(views[0], views[1], temperature, key_B, valid_B)


def irssl(target_BNJd, candidate_B, first_BJ, encoder, temperature, key_B, valid_B):
    """InfoNCE [B] between the halves of an item's features."""
    views = [[], []]
    for target_NJd, n, first_J in zip(target_BNJd, candidate_B, first_BJ, strict=True):
        for view, chosen in zip(views, (first_J, ~first_J), strict=True):
            item = target_NJd[n].copy()
            item[~chosen] = 0.0
            view.append(encode(item.ravel(), encoder))
    return cosine_info_nce(views[0], views[1], temperature, key_B, valid_B)


def cosine_info_nce(first, second, temperature, key_B, valid_B):
    """InfoNCE [B] where entries with the same key are no negatives."""
    out = np.zeros(len(valid_B))
    for b in np.flatnonzero(valid_B):
        others = [c for c in np.flatnonzero(valid_B) if c == b or key_B[c] != key_B[b]]
        scores = {c: cosine(first[b], second[c]) / temperature for c in others}
        out[b] = log_share(scores.values(), scores[b])
    return out


def s3rec(contexts, segments, bilinear, key_B, valid_B):
    """InfoNCE [B] on c^T W s."""
    out = np.zeros(len(valid_B))
    for b in np.flatnonzero(valid_B):
        others = [c for c in np.flatnonzero(valid_B) if c == b or key_B[c] != key_B[b]]
        scores = {c: contexts[b] @ bilinear @ segments[c] for c in others}
        out[b] = log_share(scores.values(), scores[b])
    return out


def nt_xent(first, second, temperature, key_B, valid_B):
    """Loss [2 B]: a copy's twin among the copies of all other users, those of both views."""
    copies = [*first, *second]
    size = len(valid_B)
    out = np.zeros(2 * size)
    for i in range(2 * size):
        b = i % size
        if not valid_B[b]:
            continue
        twin = (i + size) % (2 * size)
        negatives = [
            j for j in range(2 * size) if valid_B[j % size] and key_B[j % size] != key_B[b]
        ]
        scores = {j: cosine(copies[i], copies[j]) / temperature for j in [twin, *negatives]}
        out[i] = log_share(scores.values(), scores[twin])
    return out


def alter(history_LD, sources, length, hidden, mask_vector):
    """The events of one altered history, [length, D]."""
    return np.array(
        [mask_vector if hidden[i] else history_LD[sources[i]] for i in range(length)]
    ).reshape(length, history_LD.shape[1])


def normalize(x, scale, offset):
    return scale * (x - x.mean()) / math.sqrt(x.var() + 1e-6) + offset


def gelu(x):
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def transformer(events_LD, weights):
    """State of the last event after one bidirectional transformer layer, [D].

    `weights`: positions [L, D] by recency; norms, a (scale, offset) each; attention, (kernel, bias)
    of query, key, value [D, H, C] and output [H, C, D]; feed_forward, two (kernel, bias).
    """
    length = len(events_LD)
    x = [
        normalize(event + weights["positions"][length - 1 - i], *weights["norms"][0])
        for i, event in enumerate(events_LD)
    ]
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = weights["attention"]
    query = np.einsum("d,dhc->hc", x[-1], wq) + bq
    attended = bo.copy()
    for h in range(len(query)):
        scores = [
            query[h] @ (np.einsum("d,dc->c", e, wk[:, h]) + bk[h]) / math.sqrt(len(bk[h]))
            for e in x
        ]
        total = sum(math.exp(s) for s in scores)
        mixture = sum(
            math.exp(s) / total * (np.einsum("d,dc->c", e, wv[:, h]) + bv[h])
            for s, e in zip(scores, x, strict=True)
        )
        attended = attended + mixture @ wo[h]
    y = normalize(x[-1] + attended, *weights["norms"][1])
    (w1, b1), (w2, b2) = weights["feed_forward"]
    return normalize(y + gelu(y @ w1 + b1) @ w2 + b2, *weights["norms"][2])
