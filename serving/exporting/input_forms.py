"""A check inside the graph that the shapes of a signature's inputs agree.

Neither TensorFlow Serving nor Python's loader compares the tensors that clients send with the
shapes that the signature declares. Without the check, operations would broadcast an input of one
row over several requests, so that one user is scored with the history of another, or they would
fail far from the input that caused the error.

A form has a letter per dimension, as in "BL": B requests, L events, N candidates, M values of a
set. The sizes of M may differ, since each feature has as many values as it has. A number is the
size of its dimension: that of vectors.
"""

from collections.abc import Mapping, Sequence

from models.keras import tf

VALUES = "M"
"""Letter of the dimension whose sizes need not agree."""

Form = Sequence[str | int]
"""A letter or a size for each dimension."""

_RULE = "Expected inputs that agree in B (requests), L (events) and N (candidates), found"


def require_forms(
    tensors: Mapping[str, tf.Tensor], forms: Mapping[str, Form]
) -> dict[str, tf.Tensor]:
    """Adds a check to the graph that tensors have their forms.

    Args:
        tensors: Tensors by name. Their static shapes are not relied on.
        forms: Form of each tensor to check, by name. A letter other than `VALUES` means the same
            size everywhere.

    Returns:
        The same tensors, dependent on the check. If it fails, running the graph raises
        INVALID_ARGUMENT with a message that names every checked input, its form and its shape.
    """
    shapes = [tf.shape(tensors[name]) for name in forms]
    # The dimensions are counted because TensorFlow's graph optimisation replaces `tf.rank` with the
    # declared rank. It keeps this count, as it does not know that no size is negative.
    ranks = tf.stack([tf.reduce_sum(tf.cast(shape >= 0, tf.int32)) for shape in shapes])
    report = [_RULE]
    for (name, form), shape in zip(forms.items(), shapes, strict=True):
        report += [f"{name} [{', '.join(map(str, form))}]:", shape]
    ranks_agree = tf.reduce_all(tf.equal(ranks, [len(form) for form in forms.values()]))
    with tf.control_dependencies([tf.debugging.Assert(ranks_agree, report, summarize=8)]):
        sizes = tf.concat(shapes, axis=0)
        letters = [letter for form in forms.values() for letter in form]
        places = [
            place if letter == VALUES else letters.index(letter)
            for place, letter in enumerate(letters)
        ]
        wanted = tf.gather(sizes, places)
        if any(isinstance(letter, int) for letter in letters):
            numbers = [letter if isinstance(letter, int) else -1 for letter in letters]
            wanted = tf.where(tf.constant(numbers) < 0, wanted, numbers)
        sizes_agree = tf.reduce_all(tf.equal(sizes, wanted))
    with tf.control_dependencies([tf.debugging.Assert(sizes_agree, report, summarize=8)]):
        return {**tensors, **{name: tf.identity(tensors[name]) for name in forms}}
