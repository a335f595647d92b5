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
    """InfoNCE loss of each first view against the second views of the batch (MISS, eqs. 15-16).

    With s the cosine and tau the temperature,

        loss[p, b] = log sum_c exp(s(z1[p, b], z2[p, c]) / tau) - s(z1[p, b], z2[p, b]) / tau,

    where c runs over the valid requests of the global batch, b included, without other requests
    with the same key: requests of one user share the history, so they are not negatives.

    Args:
        first_PBw: Anchor views.
        second_PBw: Views that the anchors are compared with, in the same order.
        valid_PB: Boolean mask; an invalid request is neither an anchor nor a negative in its slot.
        key_B: Encoded user key, or another key that identifies views of the same object.
        temperature: Temperature tau, positive.
        symmetric: Whether to average with the loss of second views against first views.
        cosine: Whether s is the cosine; if False, s is the inner product.

    Returns:
        Loss [P, B] in float32, 0 at invalid requests.

    Example:
        >>> views_PBw = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])
        >>> valid_PB, key_B = tf.ones([1, 2], tf.bool), tf.range(2)
        >>> loss_PB = info_nce(views_PBw, views_PBw, valid_PB, key_B, temperature=1.0)
        >>> round(float(loss_PB[0, 0]), 4)  # ln(e + 1) - 1
        0.3133
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
    """Scales each view to length 1; a view of length 0 stays 0 and gets no gradient.

    A cosine has no gradient at 0. There, `tf.math.l2_normalize` would multiply the incoming
    gradient by a million, and views after a ReLU are sometimes exactly 0 before training.

    Args:
        views: Views [..., w] of any floating type.

    Returns:
        Unit vectors in float32, of the shape of `views`.
    """
    views = tf.cast(views, tf.float32)
    square = tf.reduce_sum(tf.square(views), -1, keepdims=True)
    is_nonzero = square > _TINY
    return views * tf.where(is_nonzero, tf.math.rsqrt(tf.where(is_nonzero, square, 1.0)), 0.0)


def _allowed_columns(valid_PB: tf.Tensor, key_B: tf.Tensor) -> tf.Tensor:
    """Mask of the requests of the global batch that each anchor is compared with, [P, B, C]."""
    batch = tf.shape(key_B)[0]
    rows_before, total = replicas.rows(batch)
    own_BC = (rows_before + tf.range(batch))[:, None] == tf.range(total)
    same_key_BC = key_B[:, None] == replicas.all_gather(key_B)
    valid_PC = replicas.all_gather(valid_PB, axis=1)
    return own_BC | (valid_PC[:, None] & ~same_key_BC)


def _one_sided(
    anchors_PBw: tf.Tensor, positives_PBw: tf.Tensor, allowed_PBC: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Loss [P, B] of the anchors against the other views."""
    columns_PCw = replicas.all_gather(positives_PBw, axis=1)
    scores_PBC = tf.matmul(anchors_PBw, columns_PCw, transpose_b=True) / temperature
    positive_PB = tf.reduce_sum(anchors_PBw * positives_PBw, -1) / temperature
    return tf.reduce_logsumexp(tf.where(allowed_PBC, scores_PBC, _LOWEST), -1) - positive_PB
