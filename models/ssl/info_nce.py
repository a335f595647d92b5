"""The InfoNCE loss for a stack of view pairs (van den Oord et al., 2018).

Shapes: P slots (view pairs of a request), B requests of this replica, C requests of all replicas,
w width of a view.
"""

from models.keras import tf
from models.ops import replicas

_LOWEST = -1e9
_TINY = 1e-12


def info_nce(
    first_PBw: tf.Tensor,
    second_PBw: tf.Tensor,
    valid_PB: tf.Tensor,
    key_B: tf.Tensor,
    *,
    temperature: float,
    symmetric: bool = False,
    cosine: bool = True,
) -> tf.Tensor:
    """How badly each first view finds its second view among those of the batch (MISS, eqs. 15-16).

    With s the cosine and tau the temperature,

        loss[p, b] = log sum_c exp(s(z1[p, b], z2[p, c]) / tau) - s(z1[p, b], z2[p, b]) / tau,

    where c runs over the valid requests of the global batch, b among them, but for other requests
    with the same key: those of one user share the history, so they are no negatives.

    Args:
        first_PBw: Views that search.
        second_PBw: Views that are searched, in the same order.
        valid_PB: Boolean; an invalid request is neither searched for nor found in its slot.
        key_B: Encoded user key, or whatever tells two views of the same thing.
        temperature: tau, positive.
        symmetric: Average with the loss of second views that search among the first ones.
        cosine: False for s the inner product.

    Returns:
        Loss [P, B] in float32, 0 at invalid requests.
    """
    first_PBw, second_PBw = tf.cast(first_PBw, tf.float32), tf.cast(second_PBw, tf.float32)
    if cosine:
        first_PBw, second_PBw = unit_vectors(first_PBw), unit_vectors(second_PBw)
    allowed_PBC = _allowed_columns(valid_PB, key_B)
    loss_PB = _one_sided(first_PBw, second_PBw, allowed_PBC, temperature)
    if symmetric:
        loss_PB = 0.5 * (loss_PB + _one_sided(second_PBw, first_PBw, allowed_PBC, temperature))
    return tf.where(valid_PB, loss_PB, 0.0)


def unit_vectors(views: tf.Tensor) -> tf.Tensor:
    """Scales each view to length 1; one of length 0 stays 0 and gets no gradient.

    A cosine has no gradient at 0. `tf.math.l2_normalize` would return a million times the incoming
    one there, and rectified views of untrained embeddings are exactly 0 now and then.

    Args:
        views: [..., w], any floating type.

    Returns:
        Unit vectors in float32, shape of `views`.
    """
    views = tf.cast(views, tf.float32)
    square = tf.reduce_sum(tf.square(views), -1, keepdims=True)
    some = square > _TINY
    return views * tf.where(some, tf.math.rsqrt(tf.where(some, square, 1.0)), 0.0)


def _allowed_columns(valid_PB: tf.Tensor, key_B: tf.Tensor) -> tf.Tensor:
    """Which requests of the global batch each anchor is compared with, boolean [P, B, C]."""
    batch = tf.shape(key_B)[0]
    before, total = replicas.rows(batch)
    own_BC = (before + tf.range(batch))[:, None] == tf.range(total)
    same_key_BC = key_B[:, None] == replicas.all_gather(key_B)
    valid_PC = replicas.all_gather(valid_PB, axis=1)
    return own_BC | (valid_PC[:, None] & ~same_key_BC)


def _one_sided(
    anchors_PBw: tf.Tensor, others_PBw: tf.Tensor, allowed_PBC: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Loss [P, B] of the views as they are."""
    columns_PCw = replicas.all_gather(others_PBw, axis=1)
    scores_PBC = tf.matmul(anchors_PBw, columns_PCw, transpose_b=True) / temperature
    positive_PB = tf.reduce_sum(anchors_PBw * others_PBw, -1) / temperature
    return tf.reduce_logsumexp(tf.where(allowed_PBC, scores_PBC, _LOWEST), -1) - positive_PB
