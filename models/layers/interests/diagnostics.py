"""Diagnostics of the interests of a model and of the weights of its experts.

Shapes: B requests, N candidates, K interests or experts, L history length, D item width, X
candidates that are measured.
"""

import math

from models.backbone_api import Candidates
from models.keras import tf
from models.layers.interests.disagreement import mean_of_pairs

_FEWEST_EVENTS = 2.0
"""Minimum length of a history to measure: all interests in a single event are equal."""


def interest_diagnostics(
    interests_BNKD: tf.Tensor, attention_BNKL: tf.Tensor, candidates: Candidates, mask_BL: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Measures how interests differ, over the candidates whose history has at least two events.

    Args:
        interests_BNKD: Interests v_k.
        attention_BNKL: Weight of each event in each interest, 0 at padding.
        candidates: Candidates of the batch.
        mask_BL: True for events.

    Returns:
        `interest_cosine`: mean absolute cosine of pairs of interests, if there are several.
        Opposite interests carry the same information, as later layers can change the sign. 1 means
        that all interests are the same.
        `interest_cosine_candidates`: mean absolute cosine of an interest for two adjacent
        candidates; 1 means that the candidate has no effect.
        `attention_entropy`: entropy of the attention's absolute values, as a share of the entropy
        of equal weights; 1 means that all events have equal weight.
        All are NaN if no history is long enough.
    """
    figures = {}
    chosen_BN = _chosen(candidates, mask_BL)
    unit_BNKD = tf.math.l2_normalize(tf.cast(interests_BNKD, tf.float32), axis=-1)
    if unit_BNKD.shape[2] > 1:
        cosine_BNKK = tf.abs(tf.linalg.matmul(unit_BNKD, unit_BNKD, transpose_b=True))
        cosine_BN = mean_of_pairs(cosine_BNKK)
        figures["interest_cosine"] = tf.reduce_mean(tf.boolean_mask(cosine_BN, chosen_BN))
    cosine_BNK = tf.abs(tf.reduce_sum(unit_BNKD[:, 1:] * unit_BNKD[:, :-1], -1))
    both_BN = chosen_BN[:, 1:] & chosen_BN[:, :-1]
    figures["interest_cosine_candidates"] = tf.reduce_mean(tf.boolean_mask(cosine_BNK, both_BN))

    attention_BNKL = tf.abs(attention_BNKL)
    total_BNK1 = tf.reduce_sum(attention_BNKL, axis=-1, keepdims=True)
    events_B = tf.reduce_sum(tf.cast(mask_BL, tf.float32), axis=1)
    entropy_BNK = _entropy(tf.math.divide_no_nan(attention_BNKL, total_BNK1))
    share_BNK = entropy_BNK / tf.math.log(tf.maximum(events_B, _FEWEST_EVENTS))[:, None, None]
    figures["attention_entropy"] = tf.reduce_mean(tf.boolean_mask(share_BNK, chosen_BN))
    return figures


def event_cosine(nodes_BLD: tf.Tensor, mask_BL: tf.Tensor) -> tf.Tensor:
    """Mean cosine of two events of a history; NaN if no history has two events.

    Near 1, all events are the same vector, and so are all interests, for any attention.

    Args:
        nodes_BLD: Events.
        mask_BL: True for events.
    """
    valid_BL = tf.cast(mask_BL, tf.float32)
    unit_BLD = tf.math.l2_normalize(tf.cast(nodes_BLD, tf.float32), axis=-1) * valid_BL[..., None]
    # The sum over pairs is the square of the sum, minus the term of each event with itself.
    own_B = tf.reduce_sum(tf.square(unit_BLD), [1, 2])
    pairs_B = tf.reduce_sum(tf.square(tf.reduce_sum(unit_BLD, axis=1)), -1) - own_B
    events_B = tf.reduce_sum(valid_BL, axis=1)
    long_B = events_B >= _FEWEST_EVENTS
    mean_B = tf.boolean_mask(pairs_B, long_B) / tf.boolean_mask(events_B * (events_B - 1), long_B)
    return tf.reduce_mean(mean_B)


def confidence_diagnostics(
    confidence_BNK: tf.Tensor, candidates: Candidates, mask_BL: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Measures the weights of experts, over the same candidates as `interest_diagnostics`.

    Args:
        confidence_BNK: Confidences omega, summing to 1 over K > 1 experts.
        candidates: Candidates of the batch.
        mask_BL: True for events.

    Returns:
        `confidence_max`: mean weight of the most trusted expert; 1 / K means that none is chosen.
        `expert_usage_min`: mean weight of the least trusted expert.
        `expert_usage_entropy`: entropy of the mean weights as a share of ln K, between 0 (a single
        expert is used: the others have collapsed) and 1 (all are used equally).
        `expert_information`: mutual information of candidate and expert, as a share of ln K: the
        entropy of the mean weights minus the mean entropy of the weights. 0 means that the weights
        do not depend on the candidate.
    """
    weights_XK = tf.boolean_mask(confidence_BNK, _chosen(candidates, mask_BL))
    usage_K = tf.reduce_mean(weights_XK, axis=0)
    largest, entropy = math.log(confidence_BNK.shape[-1]), _entropy(usage_K)
    return {
        "confidence_max": tf.reduce_mean(tf.reduce_max(weights_XK, axis=-1)),
        "expert_usage_min": tf.reduce_min(usage_K),
        "expert_usage_entropy": entropy / largest,
        "expert_information": (entropy - tf.reduce_mean(_entropy(weights_XK))) / largest,
    }


def _chosen(candidates: Candidates, mask_BL: tf.Tensor) -> tf.Tensor:
    """Mask of the valid candidates whose history is long enough, [B, N]."""
    events_B = tf.reduce_sum(tf.cast(mask_BL, tf.float32), axis=1)
    return candidates.mask_BN & (events_B >= _FEWEST_EVENTS)[:, None]


def _entropy(shares: tf.Tensor) -> tf.Tensor:
    """Entropy over the last axis, in nats."""
    return -tf.reduce_sum(tf.math.xlogy(shares, shares), axis=-1)
