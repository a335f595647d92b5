"""The models of the cases: y = x / 2 + b, with a signature for every feature of the protocol.

Shapes: B requests, H values per request.
"""

import pathlib

from models.keras import tf

MODEL = "toy"
RESERVED = "a/b:c"
"""A model whose name must be percent-encoded in a path."""
VERSIONS = {123: 2.0, 124: 3.0}
"""b by version."""
LABELS = {"stable": 123, "can/ary": 124}

_ECHOED = ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "uint32", "uint64")


class HalfPlus(tf.Module):
    """y = x / 2 + b."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = tf.Variable(b, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """The default signature, [B] to [B]."""
        return {"y": x / 2 + self.b}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int64, name="ids"),
            tf.TensorSpec([None], tf.string, name="names"),
        ]
    )
    def describe(self, ids: tf.Tensor, names: tf.Tensor) -> dict[str, tf.Tensor]:
        """Several inputs and outputs; [B, H] and [B] to [B]."""
        return {
            "total": tf.reduce_sum(ids, 1),
            "upper": tf.strings.upper(names),
            "raw_bytes": names,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
    def gather(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Fails for ids from 10 up."""
        return {"found": tf.gather(tf.range(10.0), ids)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def mixed(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """An output of rank 0 beside one of rank 1."""
        return {"scalar": tf.reduce_sum(x), "row": tf.reshape(x, [-1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def uneven(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs that differ in dimension 0."""
        return {"long": tf.concat([x, x], 0), "short": x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_precision(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """An output that JSON cannot carry."""
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="x")])
    def half_input(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """An input that JSON cannot carry."""
        return {"y": tf.cast(x, tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def slow(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes about a second."""
        steps = tf.while_loop(lambda i: i < 100_000, lambda i: i + 1, [tf.constant(0)])
        return {"y": x + tf.cast(steps[0] * 0, tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Two classes per example, [B, 2]: the example's label with score y, and "other" with x."""
        x_B, label_B = self._parse(inputs)
        return {
            "classes": tf.stack([label_B, tf.fill(tf.shape(label_B), "other")], 1),
            "scores": tf.stack([x_B / 2 + self.b, x_B], 1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def scores_only(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classes without labels, [B, 1]."""
        return {"scores": self._parse(inputs)[0][:, None] / 2 + self.b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """One value per example, [B, 1]."""
        return {"outputs": self._parse(inputs)[0][:, None] / 2 + self.b}

    def _parse(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_example(
            inputs,
            {
                "x": tf.io.FixedLenFeature([], tf.float32, 0.0),
                "label": tf.io.FixedLenFeature([], tf.string, "none"),
            },
        )
        return features["x"], features["label"]


def _echo(dtype: tf.DType) -> tf.types.experimental.GenericFunction:
    """A signature that returns its input, which may have any shape."""

    @tf.function(input_signature=[tf.TensorSpec(None, dtype, name="x")])
    def echo(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.identity(x)}

    return echo


def export(base: pathlib.Path, version: str, b: float) -> pathlib.Path:
    """Saves a model as exporters should: to a temporary directory, then renamed.

    Args:
        base: Base path of the model; must exist.
        version: Name of the version's directory.
        b: Constant that is added to x / 2.

    Returns:
        Directory of the version.
    """
    model = HalfPlus(b)
    signatures = {
        "serving_default": model.half_plus,
        "describe": model.describe,
        "gather": model.gather,
        "mixed": model.mixed,
        "uneven": model.uneven,
        "half_precision": model.half_precision,
        "half_input": model.half_input,
        "slow": model.slow,
        "classify": model.classify,
        "scores_only": model.scores_only,
        "regress": model.regress,
    }
    for name in (*_ECHOED, "bool", "string"):
        signatures[f"echo_{name}"] = _echo(tf.as_dtype(name))
    hidden = base / f".tmp-{version}"
    tf.saved_model.save(model, str(hidden), signatures=signatures)
    return hidden.rename(base / version)


def write(directory: pathlib.Path, served_from: str | None = None) -> None:
    """Writes the models and config files that a server needs for the cases.

    Args:
        directory: Directory to create, with `toy/123`, `toy/124`, `reserved/1`, `models.config`,
            `monitoring.config` and `batching.config` in it.
        served_from: Path of the directory as the server sees it, such as "/models" in a container;
            None for its path on this machine.
    """
    (directory / "toy").mkdir(parents=True)
    (directory / "reserved").mkdir()
    for version, b in VERSIONS.items():
        export(directory / "toy", str(version), b)
    export(directory / "reserved", "1", 1.0)
    root = served_from or str(directory.absolute())
    labels = "".join(
        f'    version_labels {{ key: "{label}" value: {version} }}\n'
        for label, version in LABELS.items()
    )
    entries = [
        f'  config {{\n    name: "{name}"\n    base_path: "{root}/{folder}"\n'
        f'    model_platform: "tensorflow"\n{model_lines}  }}\n'
        for name, folder, model_lines in (
            (MODEL, "toy", f"    model_version_policy {{ all {{}} }}\n{labels}"),
            (RESERVED, "reserved", ""),
        )
    ]
    (directory / "models.config").write_text(f"model_config_list {{\n{''.join(entries)}}}\n")
    (directory / "monitoring.config").write_text(
        'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
    )
    (directory / "batching.config").write_text(
        "max_batch_size { value: 4 }\nallowed_batch_sizes: 2\nallowed_batch_sizes: 4\n"
    )
