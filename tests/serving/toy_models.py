"""Toy SavedModels for the tests of the server."""

import pathlib

from models.keras import tf


class HalfPlus(tf.Module):
    """y = x / 2 + b, with further signatures for the corners of the protocol."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = tf.Variable(b, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus(self, x):
        return {"y": x / 2 + self.b}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int64, name="ids"),
            tf.TensorSpec([None], tf.string, name="names"),
        ]
    )
    def describe(self, ids, names):
        return {
            "total": tf.reduce_sum(ids, 1),
            "upper": tf.strings.upper(names),
            "raw_bytes": names,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
    def gather(self, ids):
        return {"found": tf.gather(tf.range(10.0), ids)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def mixed(self, x):
        return {"scalar": tf.reduce_sum(x), "row": tf.reshape(x, [-1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_precision(self, x):
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def slow(self, x):
        steps = tf.while_loop(lambda i: i < 100_000, lambda i: i + 1, [tf.constant(0)])
        return {"y": x + tf.cast(steps[0] * 0, tf.float32)}


def export(base: pathlib.Path, version: str, b: float) -> pathlib.Path:
    """Saves a model as exporters should: to a temporary directory, then renamed."""
    model = HalfPlus(b)
    hidden = base / f".tmp-{version}"
    signatures = {
        "serving_default": model.half_plus,
        "describe": model.describe,
        "gather": model.gather,
        "mixed": model.mixed,
        "half_precision": model.half_precision,
        "slow": model.slow,
    }
    tf.saved_model.save(model, str(hidden), signatures=signatures)
    return hidden.rename(base / version)
