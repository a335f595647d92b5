"""Every public layer comes back from its configuration, and computes the same with its weights."""

import doctest
import importlib
import inspect

import numpy as np
import pytest

from models.keras import keras, tf
from tests import room_page


def _layers():
    for module in room_page.modules():
        if module.startswith("models.layers."):
            for name, value in vars(importlib.import_module(module)).items():
                is_layer = inspect.isclass(value) and issubclass(value, keras.layers.Layer)
                is_own = is_layer and value.__module__ == module and not name.startswith("_")
                # A base class without a call is used through the layers that derive from it.
                if is_own and value.call is not keras.layers.Layer.call:
                    yield pytest.param(value, id=name)


def _use(kind, monkeypatch):
    """The arguments and results of the calls that the example in the docstring makes."""
    calls = []
    original = keras.layers.Layer.__call__

    def recorded(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        if type(self) is kind:
            calls.append((self, args, kwargs, result))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(keras.layers.Layer, "__call__", recorded)
        names = vars(importlib.import_module(kind.__module__))
        (example,) = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__, globs=names)
        assert doctest.DocTestRunner().run(example).failed == 0
    return calls


@pytest.mark.parametrize("kind", list(_layers()))
def test_a_layer_comes_back_from_its_config(kind, monkeypatch):
    calls = _use(kind, monkeypatch)
    layer, args, kwargs, result = calls[0]
    copy = kind.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    if hasattr(copy, "project"):
        copy.project(args[0])  # Creates weights, as in the example.
    copy(*args, **kwargs)
    copy.set_weights(layer.get_weights())
    found = tf.nest.flatten(copy(*args, **kwargs))
    expected = tf.nest.flatten(layer(*args, **kwargs))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
