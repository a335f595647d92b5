"""Weights of a model that the files of Keras would leave out.

Keras writes a layer's own weights, and goes on to the layers that its attributes are or hold in a
list, tuple, set or mapping. Layers in lists of lists, or behind other objects, it passes over in
silence.
"""

from collections.abc import Iterator, Mapping

from models.keras import keras, tf


def unreached(model: keras.Model, others: tuple[tf.Variable, ...] = ()) -> list[tf.Variable]:
    """Weights of a model that Keras does not reach when it saves, in a fixed order.

    Args:
        model: Model whose weights exist.
        others: Variables beside the weights that belong to the model.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
        >>> unreached(model)
        []
    """
    reached = {weight.ref() for weight in _reached(model, set())}
    return [weight for weight in [*model.weights, *others] if weight.ref() not in reached]


def _reached(layer: keras.layers.Layer, seen: set[int]) -> Iterator[tf.Variable]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield from [*layer._trainable_weights, *layer._non_trainable_weights]
    for name, value in vars(layer).items():
        if name.startswith("_self_"):
            continue
        held = value.values() if isinstance(value, Mapping) else value
        for one in held if isinstance(value, (list, tuple, set, Mapping)) else [value]:
            if isinstance(one, keras.layers.Layer):
                yield from _reached(one, seen)
