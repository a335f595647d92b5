"""Label-aware attention of candidates to a user's interests (MIND: Li et al., 2019).

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
    """The weights softmax_k (v_k e)^p, or all weight on the interest with the highest v_k e.

    The power keeps the sign of v_k e, so that interests that point away from the candidate do not
    gain weight; for odd p this is the equation of the paper.

    Args:
        interests_BKD: Interests v_k.
        targets_BND: Candidates e.
        mask_BK: Boolean mask of the interests that exist; at least one of each request.
        power: Power p; larger values are closer to `hard`.
        hard: Whether to use the limit of large p; ties go to the first interest.

    Returns:
        Weights [B, N, K], summing to 1 over K.

    Example:
        >>> interests_BKD = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])
        >>> target_BND = tf.constant([[[0.0, 2.0]]])
        >>> mask_BK = tf.ones([1, 2], tf.bool)
        >>> label_aware_weights(interests_BKD, target_BND, mask_BK, hard=True).numpy()
        array([[[0., 1.]]], dtype=float32)
    """
    scores_BNK = tf.matmul(targets_BND, interests_BKD, transpose_b=True)
    mask_B1K = mask_BK[:, None]
    if hard:
        highest_BN = tf.argmax(tf.where(mask_B1K, scores_BNK, scores_BNK.dtype.min), -1)
        return tf.one_hot(highest_BN, interests_BKD.shape[1], dtype=scores_BNK.dtype)
    if power != 1.0:
        scores_BNK = tf.sign(scores_BNK) * tf.pow(tf.abs(scores_BNK), power)
    return masked_softmax(scores_BNK, mask_B1K)
