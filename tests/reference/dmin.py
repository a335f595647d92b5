"""DMIN from its equations: one request, one candidate, one head and one event at a time."""

import numpy as np

from tests.reference.deminet import mlp, softmax
from tests.reference.din import attention_rows


def self_attention(history, heads):
    """`heads`: (query, key, value, output) kernels of each; an event sees itself and the past."""
    out = np.zeros_like(history)
    for query, key, value, output in heads:
        for i, x in enumerate(history):
            past = history[: i + 1]
            scores = [(x @ query) @ (y @ key) / np.sqrt(query.shape[1]) for y in past]
            attended = sum(a * (y @ value) for a, y in zip(softmax(scores), past, strict=True))
            out[i] += attended @ output
    return out


def block(history, weights):
    """Self-attention, residual, layer norm, feed-forward, residual."""
    refined = []
    for x in history + self_attention(history, weights["heads"]):
        gamma, beta = weights["norm"]
        x = gamma * (x - x.mean()) / np.sqrt(x.var() + weights["epsilon"]) + beta
        refined.append(x + mlp(x, weights["feed_forward"]))
    return np.array(refined)


def read(events, target, positions, weights):
    """Weights of the events; the query knows the candidate and the event's recency."""
    rows = []
    for j, k in enumerate(events):
        position = positions[len(events) - 1 - j]
        kernel, bias = weights["query"]
        q = np.concatenate([target, position]) @ kernel + bias
        rows.append(np.concatenate([q, k, q - k, q * k]))
    return softmax(attention_rows(np.array(rows), weights, training=False))


def logit(fields, history, target, extra, weights):
    total, pools = np.zeros(len(target)), [np.zeros(len(target)) for _ in weights["interests"]]
    if len(history):
        total = history.sum(0)
        refined = block(history, weights["refiner"])
        for i, interest in enumerate(weights["interests"]):
            events = block(refined, interest["block"])
            shares = read(events, target, weights["positions"], interest["reader"])
            pools[i] = sum(a * x for a, x in zip(shares, events, strict=True))
    x = np.concatenate([fields, target, extra, total, target * total, *pools])
    return mlp(x, weights["dnn"])[0]


def next_event_losses(states, histories, keys, shift, layers):
    """{(request, step): loss} of the states that have a successor and a negative."""
    losses = {}
    for b, history in enumerate(histories):
        other = (b + shift) % len(histories)
        if keys[other] == keys[b] or not len(histories[other]):
            continue
        for j in range(len(history) - 1):
            negative = histories[other][(j + 1) % len(histories[other])]
            yes, no = (
                sigmoid_network(np.concatenate([states[b][j], event]), layers)
                for event in (history[j + 1], negative)
            )
            losses[b, j] = -np.log(yes) - np.log(1.0 - no)
    return losses


def sigmoid_network(x, layers):
    """Sigmoid after every layer."""
    for kernel, bias in layers:
        x = 1.0 / (1.0 + np.exp(-(x @ kernel + bias)))
    return x[0]
