"""One vector of the several values of a field.

Shapes: M values of a set, S sets of a batch, V values of all sets, d width of a vector.
"""

from collections.abc import Callable

from models.keras import tf
from preprocessing.features.feature import PAD_ID


def combine(ids: tf.Tensor, combiner: str, lookup: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Sums, means, or sums over square roots of numbers, of the vectors of sets of ids.

    Vectors are looked up and added up where ids are real, in their order: padding costs nothing,
    and how far sets are padded changes no bit of the result. The gradient of a table is sparse. A
    set of one value has exactly the vector and the gradient of a plain lookup; an empty one is
    zero.

    Args:
        ids: int64 [..., M], sets of ids, padded with `PAD_ID` anywhere.
        combiner: `mean`, `sum` or `sqrtn`.
        lookup: Function from ids [V] to their vectors [V, d].

    Returns:
        Vectors [..., d].

    Example:
        >>> table = tf.constant([[9.0], [1.0], [2.0], [4.0]])
        >>> ids = tf.constant([[1, 3, 0], [2, 0, 0], [0, 0, 0]], tf.int64)
        >>> combine(ids, "mean", lambda ids_V: tf.gather(table, ids_V)).numpy().ravel()
        array([2.5, 2. , 0. ], dtype=float32)
    """
    shape = tf.shape(ids, tf.int64)
    flat = tf.reshape(ids, [-1])
    places_V = tf.squeeze(tf.where(flat != PAD_ID), 1)
    vectors_Vd = lookup(tf.gather(flat, places_V))
    sums = tf.math.segment_sum(vectors_Vd, places_V // shape[-1])
    # The sums end with the last set that has a value.
    missing = tf.reduce_prod(shape[:-1]) - tf.shape(sums, tf.int64)[0]
    sums_Sd = tf.pad(sums, [[0, missing], [0, 0]])
    sums = tf.reshape(sums_Sd, tf.concat([shape[:-1], tf.shape(vectors_Vd, tf.int64)[1:]], 0))
    if combiner == "sum":
        return sums
    counts = tf.reduce_sum(tf.cast(ids != PAD_ID, sums.dtype), -1, keepdims=True)
    counts = tf.maximum(counts, 1.0)
    return sums / (counts if combiner == "mean" else tf.sqrt(counts))
