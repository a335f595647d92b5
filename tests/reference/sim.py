"""SIM with soft search from its equations: one request and one candidate at a time."""

import numpy as np

from tests.reference import din
from tests.reference.deminet import mlp, softmax


def relevance(history, target, event_kernel, target_kernel):
    return np.array([(x @ event_kernel) @ (target @ target_kernel) for x in history])


def retrieve(scores, count):
    """Indices of the best events."""
    return sorted(range(len(scores)), key=lambda j: -scores[j])[:count]


def head(events, target, key_kernel, query_kernel):
    """Attention of one head: weights, and the weighted sum of the events themselves."""
    scale = np.sqrt(key_kernel.shape[1])
    weights = softmax([(x @ key_kernel) @ (target @ query_kernel) / scale for x in events])
    return weights, sum(a * x for a, x in zip(weights, events, strict=True))


def recent_weights(history, target, count, weights):
    """Local activation of the last events."""
    recent = history[len(history) - min(count, len(history)) :]
    mask = np.ones([1, 1, len(recent)], bool)
    return recent, din.attention(target[None, None], recent[None], mask, weights)[0, 0]


def logit(fields, history, target, extra, weights, retrieved, recent):
    width, heads = len(target), weights["heads"]
    short, long = np.zeros(width), [np.zeros(width) for _ in heads]
    if len(history):
        scores = relevance(history, target, *weights["search"])
        events = history[retrieve(scores, retrieved)]
        long = [head(events, target, *kernels)[1] for kernels in heads]
        last, a = recent_weights(history, target, recent, weights["short_term"])
        short = sum(w * x for w, x in zip(a, last, strict=True))
    return mlp(np.concatenate([fields, target, extra, short, *long]), weights["dnn"])[0]


def search_logit(history, target, weights):
    """What the auxiliary loss sees."""
    scores = relevance(history, target, *weights["search"])
    found = sum((r * x for r, x in zip(scores, history, strict=True)), np.zeros(len(target)))
    return mlp(np.concatenate([found, target]), weights["search_dnn"])[0]
