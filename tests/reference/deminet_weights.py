"""Feeds the equations of DemiNet with the weights of its layers."""

from typing import Any

import numpy as np

from tests.reference import deminet


def refine(
    operator: str, layer: Any, nodes: np.ndarray, edges: deminet.Edges, own: np.ndarray
) -> np.ndarray:
    """The operator on one history with the weights of a layer."""
    if operator == "lgc":
        return deminet.light_convolution(nodes, deminet.union(edges), layer.depth)
    if operator == "gcmc":
        kernels = np.split(layer.relations.kernel.numpy(), 4)
        relations = dict(zip([*deminet.RELATIONS, "self"], kernels, strict=True))
        combine = layer.combine.kernel.numpy()
        return deminet.relational_convolution(nodes, edges, relations, combine, own)
    projection = None if layer.projection_DD is None else layer.projection_DD.numpy()
    if operator == "gat":
        pair = np.concatenate([layer.receiver_HC, layer.sender_HC], -1)
        neighbours = deminet.union(edges)
        return deminet.merged_attention(nodes, neighbours, projection, pair, layer.slope, own)
    pair = np.concatenate([layer.receiver_RHC, layer.sender_RHC], -1)
    weights = deminet.GraphWeights(
        projection=projection,
        pair=dict(zip(deminet.RELATIONS, pair, strict=True)),
        relation=layer.relation_HC.numpy(),
        relation_bias=layer.relation_bias_H.numpy(),
        slope=layer.slope,
    )
    return deminet.graph_attention(nodes, edges, weights, own)


def interest(
    extractor: Any, k: int, nodes: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 13 for one k, and the weights of the events in it."""
    kernel = np.concatenate([extractor.history_half.kernel, extractor.target_half.kernel])
    bias, last = extractor.target_half.bias.numpy(), extractor.last_KA.numpy()
    own = slice(k * last.shape[1], (k + 1) * last.shape[1])
    weights = deminet.AttentionWeights(kernel[:, own], bias[own], last[k], extractor.slope)
    if extractor.selective:
        factors = extractor.history_factor, extractor.target_factor
        weights.factors = tuple(factor.kernel.numpy()[:, own] for factor in factors)
    return deminet.interest(nodes, target, weights, extractor.normalise)


def expert(experts: Any, k: int, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """The score of expert k, with the statistics of its normalisation."""
    kernels = [experts.kernels[0][:, k], *(kernel[k] for kernel in experts.kernels[1:])]
    weights = deminet.ExpertWeights(
        mean=mean,
        variance=variance,
        epsilon=experts.normalize.epsilon,
        scale=experts.scale_IK.numpy()[:, k],
        offset=experts.offset_IK.numpy()[:, k],
        layers=[
            (kernel.numpy(), bias[k].numpy())
            for kernel, bias in zip(kernels, experts.biases, strict=True)
        ],
    )
    return deminet.expert(x, weights)


def expert_shares(
    aggregation: str, layer: Any, interests: list[np.ndarray], context: np.ndarray
) -> np.ndarray:
    """The weights of the experts."""
    if aggregation == "single":
        return deminet.average(1)
    if aggregation == "average":
        return deminet.average(len(interests))
    if aggregation == "moe":
        return deminet.gate(np.concatenate([*interests, context]), layer.gate.kernel.numpy())
    first = np.concatenate([layer.interest_half.kernel, layer.context_half.kernel])
    rest = [(dense.kernel.numpy(), dense.bias.numpy()) for dense in layer.rest.stack]
    layers = [(first, layer.context_half.bias.numpy()), *rest]
    prototypes = layer.prototypes_KD.numpy()
    confidence = deminet.confidences(interests, context, layers, prototypes, 1.0 / layer.factor)
    return deminet.hard_routing(confidence) if aggregation == "hard_routing" else confidence
