"""Label-aware attention: which of a user's interests a candidate reads (MIND: Li et al., 2019).

Shapes: B requests, N candidates, K interests, D item width.
"""

from models.keras import tf
from models.layers.masking import masked_softmax


def label_aware_weights(
    interests_BKD: tf.Tensor,
    targets_BND: tf.Tensor,
    mask_BK: tf.Tensor,
    *,
    power: float = 1.0,
    hard: bool = False,
) -> tf.Tensor:
    """softmax_k of (v_k e)^p, or all weight on the interest with the highest v_k e.

    The sign survives the power, so that an interest which points away from the candidate never
    gains by it; at p = 1 and other odd p this is the equation as it stands.

    Args:
        interests_BKD: v_k.
        targets_BND: e.
        mask_BK: Boolean, true for interests that exist; at least one of each request.
        power: p; the larger, the closer to `hard`.
        hard: The limit of a large p; ties go to the first interest.

    Returns:
        [B, N, K], summing to 1 over K.
    """
    scores_BNK = tf.matmul(targets_BND, interests_BKD, transpose_b=True)
    mask_B1K = mask_BK[:, None]
    if hard:
        highest_BN = tf.argmax(tf.where(mask_B1K, scores_BNK, scores_BNK.dtype.min), -1)
        return tf.one_hot(highest_BN, interests_BKD.shape[1], dtype=scores_BNK.dtype)
    if power != 1.0:
        scores_BNK = tf.sign(scores_BNK) * tf.pow(tf.abs(scores_BNK), power)
    return masked_softmax(scores_BNK, mask_B1K)
