"""DMR from its definition: one candidate and one event at a time.

Weights are dictionaries: dense layers are (kernel, bias) pairs, attentions lists of them, slopes
those of PReLUs.
"""

import numpy as np


def prelu(x, slope):
    return np.where(x > 0, x, slope * x)


def dense(x, layer):
    kernel, bias = layer
    return x @ kernel + bias


def score(query, event, layers):
    """The network of an attention on one pair, sigmoid after every layer but the last."""
    x = np.concatenate([query, event, query - event, query * event])
    for layer in layers[:-1]:
        x = 1.0 / (1.0 + np.exp(-dense(x, layer)))
    return dense(x, layers[-1])[0]


def pool(scores, events):
    """Events weighed by the softmax of their scores."""
    weights = np.exp(scores - np.max(scores))
    return sum(w * e for w, e in zip(weights / weights.sum(), events, strict=True))


def user_vector(events, positions, weights, count):
    """From the first `count` events; positions[l] is the vector of event l's recency rank."""
    pooled = np.zeros(events.shape[1])
    if count > 0:
        scores = []
        for event, position in zip(events[:count], positions[:count], strict=True):
            query = prelu(dense(position, weights["user_query"]), weights["user_slope"])
            scores.append(score(query, event, weights["user_attention"]))
        pooled = pool(scores, events[:count])
    return prelu(dense(pooled, weights["user_vector"]), weights["vector_slope"])


def item_scores(target, events, positions, weights):
    scores = []
    for event, position in zip(events, positions, strict=True):
        query = dense(target, weights["target_query"]) + position @ weights["position_query"]
        query = prelu(query, weights["target_slope"])
        scores.append(score(query, event, weights["target_attention"]))
    return scores


def logit(user, target, extra, key, events, ranks, weights):
    """`events` [length, D] are the valid ones; `ranks` holds a position vector per recency rank."""
    length = len(events)
    positions = [ranks[length - 1 - step] for step in range(length)]
    scores = item_scores(target, events, positions, weights)
    pooled = pool(scores, events) if length else np.zeros_like(target)
    u = user_vector(events, positions, weights, length)
    to_user = u @ weights["item_vectors"][key]
    total = events.sum(0)
    x = np.concatenate([user, target, extra, pooled, [to_user, sum(scores)], total, target * total])
    for layer in weights["dnn"][:-1]:
        x = np.maximum(dense(x, layer), 0.0)
    return dense(x, weights["dnn"][-1])[0]


def next_item_losses(histories, items, ranks, drawn, weights):
    """Softmax loss of each request's last item; None for histories of fewer than two events.

    `histories` holds the valid events of each request and `items` their item keys.
    """
    losses = []
    for events, keys in zip(histories, items, strict=True):
        length = len(events)
        if length < 2:
            losses.append(None)
            continue
        positions = [ranks[length - 1 - step] for step in range(length)]
        u = user_vector(events, positions, weights, length - 1)
        rivals = [other[-1] for other in items if len(other) >= 2] + list(drawn)
        sought = u @ weights["item_vectors"][keys[-1]]
        terms = [sought] + [u @ weights["item_vectors"][i] for i in rivals if i != keys[-1]]
        losses.append(np.log(np.exp(np.array(terms) - sought).sum()))
    return losses
