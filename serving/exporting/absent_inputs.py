"""Inputs that a caller may leave out: those of features with a default in the schema.

A signature names a default for each of them, a tensor without any request. Callers over gRPC may
then leave the input out: TensorFlow Serving passes the default, and the graph puts missing values
in its place, which become the default of the feature. The REST interface of TensorFlow Serving
insists on every input; there clients send missing values, as `serving.client` does.

Shapes: B requests, L events, N candidates, M values of a set, D numbers of a vector.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.keras import tf
from preprocessing.features.feature import DType, Feature
from preprocessing.schema import Schema
from serving.exporting.input_forms import VALUES, Form


def may_be_absent(schema: Schema, feature: Feature) -> bool:
    """Whether requests may leave a feature out: it has a default, and is no key and no time."""
    keys = (schema.user_key, schema.item_key, schema.timestamp)
    return feature.default is not None and feature not in keys


def missing_value(feature: Feature) -> str | int | float:
    """What stands for a missing value of a feature in raw inputs."""
    if feature.dtype is DType.FLOAT32 and not feature.is_vector:
        return math.nan
    return feature.pad_value


def with_defaults(
    function: Callable[..., Any], specs: Mapping[str, tf.TensorSpec], optional: Mapping[str, Form]
) -> Any:
    """A function for `tf.saved_model.save`, whose signature has defaults for some inputs.

    Args:
        function: Concrete function of inputs by name.
        specs: Specifications of all inputs by name.
        optional: Forms of the inputs that may be left out, by name.
    """
    names = sorted(specs, key=lambda name: name in optional)  # as Python wants it
    parameters = []
    for name in names:
        default = inspect.Parameter.empty
        if name in optional:
            sizes = [size if isinstance(size, int) else 0 for size in optional[name]]
            default = tf.zeros(sizes, specs[name].dtype)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default))

    @functools.wraps(function)
    def by_position(*inputs: tf.Tensor, **named: tf.Tensor) -> Any:
        return function(**dict(zip(names, inputs, strict=False)), **named)

    # The saver reads names and defaults off the signature.
    by_position.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    signature = [specs[name] for name in names]
    return tf.function(by_position, autograph=False, input_signature=signature)


def filled(
    raw: Mapping[str, tf.Tensor], optional: Mapping[str, tuple[Feature, Form]], keys: Sequence[str]
) -> dict[str, tf.Tensor]:
    """Puts missing values where an input was left out.

    Args:
        raw: All inputs by name.
        optional: The inputs that may be left out: their features and forms.
        keys: Inputs that are always there, of the forms [B], [B, L] and [B, N].

    Returns:
        The inputs; those that were left out have as many requests, events and candidates as those
        that were not.
    """
    sizes = {form: tf.shape(raw[key]) for form, key in zip(("B", "BL", "BN"), keys, strict=True)}
    completed = dict(raw)
    for name, (feature, form) in optional.items():
        letters = "".join(letter for letter in form if letter in ("B", "L", "N"))
        axes = [1 if letter == VALUES else letter for letter in form[len(letters) :]]
        shape = tf.concat([sizes[letters], tf.constant(axes, tf.int32)], axis=0)
        completed[name] = tf.cond(
            tf.equal(tf.shape(raw[name])[0], 0),
            functools.partial(tf.fill, shape, tf.constant(missing_value(feature), raw[name].dtype)),
            functools.partial(tf.identity, raw[name]),
        )
    return completed
