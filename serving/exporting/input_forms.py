"""One check, inside of the graph, that the inputs of a signature belong together.

Servers feed what clients send: neither TensorFlow Serving nor Python's loader compares it with the
shapes that the signature declares. Operations would stretch what has one row over several, so that
one user is scored with the history of another, or fail far from the input that is to blame.

A form is a string of dimensions, a letter each, as in "BL": B requests, L events, N candidates.
"""

from collections.abc import Mapping

from models.keras import tf

_RULE = "Expected inputs that agree in B (requests), L (events) and N (candidates), found"


def require_forms(
    tensors: Mapping[str, tf.Tensor], forms: Mapping[str, str]
) -> dict[str, tf.Tensor]:
    """The tensors, once it is certain that each has its form.

    Args:
        tensors: By name. Their static shapes are not relied on.
        forms: The form of each tensor that is checked. A letter means the same size everywhere.

    Returns:
        The same tensors, which nothing can be computed from if the check fails: running the graph
        is an INVALID_ARGUMENT then, whose message names every input with its form and shape.
    """
    shapes = [tf.shape(tensors[name]) for name in forms]
    # Counted, because of `tf.rank` only the declared rank is left when TensorFlow has optimised the
    # graph. Of sizes it does not know that none is negative.
    ranks = tf.stack([tf.reduce_sum(tf.cast(shape >= 0, tf.int32)) for shape in shapes])
    found = [_RULE]
    for (name, form), shape in zip(forms.items(), shapes, strict=True):
        found += [f"{name} [{', '.join(form)}]:", shape]
    has_ranks = tf.reduce_all(tf.equal(ranks, [len(form) for form in forms.values()]))
    with tf.control_dependencies([tf.debugging.Assert(has_ranks, found, summarize=8)]):
        sizes = tf.concat(shapes, axis=0)
        letters = "".join(forms.values())
        same = tf.gather(sizes, [letters.index(letter) for letter in letters])
        agree = tf.reduce_all(tf.equal(sizes, same))
    with tf.control_dependencies([tf.debugging.Assert(agree, found, summarize=8)]):
        return {**tensors, **{name: tf.identity(tensors[name]) for name in forms}}
