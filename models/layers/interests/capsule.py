"""Capsules: vectors whose length represents the presence of a feature.

Shapes: B requests, K capsules, L history length, D width of a capsule.
"""

from models.keras import tf
from models.layers.masking import masked_softmax


def squash(values: tf.Tensor) -> tf.Tensor:
    """Shrinks vectors to a length below 1, keeping their direction (Sabour et al., 2017, eq. 1).

    The result is x n / (1 + n) / sqrt(n) with n = |x|^2.

    Args:
        values: Vectors [..., width]; a vector of zeros stays 0.

    Returns:
        Squashed vectors, of the shape of `values`.

    Example:
        >>> round(float(tf.norm(squash(tf.constant([3.0, 4.0])))), 4)  # 25 / 26
        0.9615
    """
    square = tf.reduce_sum(tf.square(values), -1, keepdims=True)
    return values * (square / (1.0 + square)) * tf.math.rsqrt(square + 1e-9)


def dynamic_routing(
    votes_BKLD: tf.Tensor, logits_BKL: tf.Tensor, mask_BKL: tf.Tensor, iterations: int
) -> tf.Tensor:
    """Shares of each event in the capsules by dynamic routing (Sabour et al., 2017, procedure 1).

    An event is distributed over the capsules, c = softmax over *capsules* of b, and each capsule,
    v_k = squash(sum_l c_kl u_kl), attracts the events that agree with it, b += u v. No gradient
    flows through the shares: only the final sum, which the caller computes, is trained.

    Args:
        votes_BKLD: Votes u of each event for each capsule; K may be 1 if all capsules have the same
            votes.
        logits_BKL: Logits b before the first iteration; B may be 1.
        mask_BKL: Boolean mask, true where the event and the capsule exist.
        iterations: Number of times that shares are computed, at least 1.

    Returns:
        Shares c of the last iteration, [B, K, L]; they sum to 1 over K and are 0 at padding.

    Example:
        >>> votes_BKLD, mask_BKL = tf.ones([1, 2, 3, 8]), tf.ones([1, 2, 3], tf.bool)
        >>> dynamic_routing(votes_BKLD, tf.zeros([1, 2, 3]), mask_BKL, iterations=3)[0].numpy()
        array([[0.5, 0.5, 0.5],
               [0.5, 0.5, 0.5]], dtype=float32)
    """
    votes_BKLD = tf.stop_gradient(votes_BKLD)
    shares_BKL = masked_softmax(logits_BKL, mask_BKL, axis=1)
    for _ in range(iterations - 1):
        capsules_BKD = capsules(shares_BKL, votes_BKLD)
        logits_BKL += tf.squeeze(tf.matmul(votes_BKLD, capsules_BKD[..., None]), -1)
        shares_BKL = masked_softmax(logits_BKL, mask_BKL, axis=1)
    return shares_BKL


def capsules(shares_BKL: tf.Tensor, votes_BKLD: tf.Tensor) -> tf.Tensor:
    """Capsules v_k = squash(sum_l c_kl u_kl), [B, K, D]; K of the votes may be 1."""
    return squash(tf.squeeze(tf.matmul(shares_BKL[:, :, None], votes_BKLD), 2))
