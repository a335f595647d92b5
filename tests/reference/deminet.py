"""DemiNet, equation by equation (arXiv 2109.12512): one request, one candidate, explicit loops.

Nothing here is batched, padded, factorised or shared; a history is an array [n, D] of its n events.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

RELATIONS = ("in", "out", "sim")
Array = Any
Edges = dict[str, list[list[int]]]


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def softmax(x: Array) -> Array:
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


def neighbours(history: Array, window: int, threshold: float) -> Edges:
    """Eqs 1-4: for each relation and node, the nodes it receives messages from."""
    n = len(history)
    edges: Edges = {relation: [[] for _ in range(n)] for relation in RELATIONS}
    for i in range(n):
        for j in range(n):
            if i - window <= j < i:
                edges["in"][i].append(j)
            if i < j <= i + window:
                edges["out"][i].append(j)
            norm = np.linalg.norm(history[i]) * np.linalg.norm(history[j])
            if i != j and history[i] @ history[j] / max(norm, 1e-12) >= threshold:
                edges["sim"][i].append(j)
    return edges


@dataclasses.dataclass
class GraphWeights:
    """Of one layer: W_n^(r) as [relation][head] -> [2 C], W_d and b_d as [head] -> [C] and []."""

    projection: Array | None
    pair: dict[str, Array]
    relation: Array
    relation_bias: Array
    slope: float


def importances(h: Array, w: Array, slope: float) -> Array:
    """Eq. 6 for all pairs of one relation and head, with [h_i || h_j] written out."""
    n = len(h)
    a = np.zeros([n, n])
    for i in range(n):
        for j in range(n):
            a[i, j] = leaky_relu(w @ np.concatenate([h[i], h[j]]), slope)
    return a


def graph_attention(nodes: Array, edges: Edges, weights: GraphWeights, own: Array) -> Array:
    """Eqs 6-11; `own[i]` says whether node i receives from itself (eq. 5)."""
    if weights.projection is not None:
        nodes = nodes @ weights.projection
    n, heads = len(nodes), len(weights.relation)
    by_head = np.split(nodes, heads, axis=1)
    refined = []
    for i in range(n):
        parts = []
        for head, h in enumerate(by_head):
            messages = [h[i]] if own[i] else []
            for relation in RELATIONS:
                receive_from = edges[relation][i]
                if not receive_from:
                    continue  # Takes no part in eq. 10.
                a = importances(h, weights.pair[relation][head], weights.slope)
                alpha = softmax([a[i, j] for j in receive_from])  # Eq. 7.
                messages.append(sum(alpha[k] * h[j] for k, j in enumerate(receive_from)))  # Eq. 8.
            e = [
                leaky_relu(weights.relation[head] @ m + weights.relation_bias[head], weights.slope)
                for m in messages
            ]  # Eq. 9.
            beta = softmax(e) if e else []  # Eq. 10.
            parts.append(sum((b * m for b, m in zip(beta, messages, strict=True)), 0 * h[i]))
        refined.append(np.concatenate(parts))  # Eq. 11.
    return np.reshape(refined, [n, nodes.shape[1]])


def union(edges: Edges) -> list[list[int]]:
    """For each node, the nodes it receives from in any relation."""
    n = len(edges["sim"])
    return [[j for j in range(n) if any(j in edges[r][i] for r in RELATIONS)] for i in range(n)]


def merged_attention(
    nodes: Array,
    neighbours: list[list[int]],
    projection: Array | None,
    pair: Array,
    slope: float,
    own: Array,
) -> Array:
    """GAT: eqs 6-8 on the union of all relations, the self-connection included; `pair` by head."""
    if projection is not None:
        nodes = nodes @ projection
    by_head = np.split(nodes, len(pair), axis=1)
    refined = []
    for i in range(len(nodes)):
        parts = []
        for head, h in enumerate(by_head):
            a = importances(h, pair[head], slope)
            receive_from = [i, *neighbours[i]] if own[i] else neighbours[i]
            alpha = softmax([a[i, j] for j in receive_from]) if receive_from else []
            messages = (w * h[j] for w, j in zip(alpha, receive_from, strict=True))
            parts.append(sum(messages, 0 * h[i]))
        refined.append(np.concatenate(parts))
    return np.reshape(refined, nodes.shape)


def light_convolution(nodes: Array, neighbours: list[list[int]], depth: int) -> Array:
    """LightGCN: a message from j to i is divided by sqrt(messages to i * messages from j)."""
    sent = [sum(j in receive_from for receive_from in neighbours) for j in range(len(nodes))]
    layers = [nodes]
    for _ in range(depth):
        refined = np.zeros_like(nodes)
        for i, receive_from in enumerate(neighbours):
            for j in receive_from:
                refined[i] += layers[-1][j] / np.sqrt(len(receive_from) * sent[j])
        layers.append(refined)
    return sum(layers) / len(layers)


def relational_convolution(
    nodes: Array, edges: Edges, relations: dict[str, Array], combine: Array, own: Array
) -> Array:
    """GCMC: ReLU(sum over relations of the mean of W_r h_j), then a linear layer."""
    refined = np.zeros_like(nodes)
    for i in range(len(nodes)):
        message = nodes[i] @ relations["self"] * own[i]
        for relation in RELATIONS:
            receive_from = edges[relation][i]
            for j in receive_from:
                message = message + nodes[j] @ relations[relation] / len(receive_from)
        refined[i] = np.maximum(message, 0) @ combine
    return refined


def add_positions(nodes: Array, table: Array) -> Array:
    """Eq. 12, with rank 0 for the most recent event."""
    n = len(nodes)
    return np.reshape([nodes[i] + table[n - 1 - i] for i in range(n)], nodes.shape)


@dataclasses.dataclass
class AttentionWeights:
    """Weights of Attention_k: layers [2 D, A], [A], [A]; of a selective one two factors [D, A]."""

    kernel: Array
    bias: Array
    last: Array
    slope: float
    factors: tuple[Array, Array] | None = None


def unit_scale(x: Array) -> Array:
    """A vector over the root of its mean square."""
    return x / np.sqrt(np.mean(np.square(x)) + 1e-8)


def interest(
    nodes: Array, target: Array, weights: AttentionWeights, normalise: bool = True
) -> tuple[Array, Array]:
    """Eq. 13 for one k: the interest and the weights of the events in it."""
    if len(nodes) == 0:
        return np.zeros_like(target), np.zeros(0)
    scores = []
    for h in nodes:
        e, product = target, 0.0
        if weights.factors is not None:
            h, e = unit_scale(h), unit_scale(e)
            product = (h @ weights.factors[0]) * (e @ weights.factors[1])
        hidden = np.concatenate([h, e]) @ weights.kernel + weights.bias + product
        scores.append(weights.last @ leaky_relu(hidden, weights.slope))
    alpha = softmax(scores) if normalise else np.array(scores)
    total = sum(a * h for a, h in zip(alpha, nodes, strict=True))
    return total if weights.factors is None else unit_scale(total), alpha


def mlp(x: Array, layers: list[tuple[Array, Array]]) -> Array:
    """ReLU between layers, none after the last."""
    for i, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if i < len(layers) - 1:
            x = np.maximum(x, 0)
    return x


@dataclasses.dataclass
class ExpertWeights:
    """Batch normalisation and layers of one expert."""

    mean: Array
    variance: Array
    epsilon: float
    scale: Array
    offset: Array
    layers: list[tuple[Array, Array]]


def expert(x: Array, weights: ExpertWeights) -> float:
    """o_k, from E' = `x`."""
    x = (x - weights.mean) / np.sqrt(weights.variance + weights.epsilon)
    return float(mlp(x * weights.scale + weights.offset, weights.layers)[0])


def confidences(
    interests: list[Array],
    context: Array,
    layers: list[tuple[Array, Array]],
    prototypes: Array,
    temperature: float,
) -> Array:
    """Eq. 14, where the temperature is sqrt(D)."""
    fits = [
        mlp(np.concatenate([v, context]), layers) @ p / temperature
        for v, p in zip(interests, prototypes, strict=True)
    ]
    return softmax(fits)


def average(experts: int) -> Array:
    """Multi-Avg: every expert counts alike."""
    return np.full(experts, 1 / experts)


def hard_routing(confidence: Array) -> Array:
    """Only the expert of the highest confidence counts, the first of equals."""
    return np.array([float(k == np.argmax(confidence)) for k in range(len(confidence))])


def gate(expert_input: Array, kernel: Array) -> Array:
    """MoE: a linear softmax gate on the experts' own input."""
    return softmax(expert_input @ kernel)


def combine(confidence: Array, scores: Array) -> float:
    """The logit in eq. 15."""
    return float(sum(w * o for w, o in zip(confidence, scores, strict=True)))


def drop_edges(edges: Edges, keep: dict[str, Array]) -> Edges:
    """Eqs 16-17: `keep[relation][i, j]` says whether the edge from j to i stays."""
    return {
        relation: [[j for j in js if keep[relation][i, j]] for i, js in enumerate(received)]
        for relation, received in edges.items()
    }


def likeness(interests: list[Array]) -> float:
    """Mean squared cosine of the pairs of interests."""
    units = [v / np.linalg.norm(v) for v in interests]
    return float(np.mean([(u @ v) ** 2 for u, v in itertools.combinations(units, 2)]))


def divergence(first: Array, second: Array) -> float:
    """Eq. 18 for one interest."""
    p, q = softmax(first), softmax(second)
    forward = sum(p * np.log(p / q))
    backward = sum(q * np.log(q / p))
    return float(0.5 * forward + 0.5 * backward)


def jensen_shannon(first: Array, second: Array) -> float:
    """What the text around eq. 18 calls the divergence, for one interest."""
    p, q = softmax(first), softmax(second)
    m = (p + q) / 2
    return float(0.5 * sum(p * np.log(p / m)) + 0.5 * sum(q * np.log(q / m)))
