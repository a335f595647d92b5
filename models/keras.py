"""Selects the Keras version, once, for the whole project.

tensorflow-recommenders needs Keras 2 (the `tf_keras` package). The environment variable must be
set before anything touches `tf.keras`, so nothing else in the project imports Keras: write
`from models.keras import keras, tf, tfrs`.
"""

import os
import sys

import preprocessing  # noqa: F401  Quiets TensorFlow's start.

_FIX = "Fix: import models.keras before anything that uses tf.keras (run `ctr-doctor` for details)."

if os.environ.setdefault("TF_USE_LEGACY_KERAS", "1") != "1":
    raise ImportError(
        "TF_USE_LEGACY_KERAS must be 1, found "
        f"{os.environ['TF_USE_LEGACY_KERAS']!r} in the environment. Fix: unset it."
    )

import tensorflow as tf  # noqa: E402
import tensorflow_recommenders as tfrs  # noqa: E402
import tf_keras as keras  # noqa: E402

_parent = tfrs.Model.__mro__[1].__module__
if not _parent.startswith("tf_keras"):
    raise ImportError(f"Expected tfrs.Model to derive from tf_keras, found {_parent}. {_FIX}")
if tf.__version__.split(".")[:2] != keras.__version__.split(".")[:2]:
    raise ImportError(
        f"Expected tf-keras of TensorFlow's minor version {tf.__version__}, found "
        f"{keras.__version__}. Fix: install from requirements.lock ({sys.executable})."
    )

__all__ = ["keras", "tf", "tfrs"]
