"""What a run shows in TensorBoard: curves, and the run as a whole."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import summary_v2 as hparams

from models.config import run_config
from models.config.run_config import RunConfig
from models.keras import tf

OVERVIEW = "overview"
"""Directory of a run that is a run of its own in TensorBoard: settings, best metrics, graph.

The tab HPARAMS takes every curve of such a run for a metric to compare: here these are the few that
say how good a run is, and not those of its training.
"""
_COUNTS = ("requests", "candidates")
_MOST_VALUES = 1 << 18


class Board:
    """The TensorBoard events of a run directory.

    Args:
        workdir: Run directory.
        writes: Whether this process writes files; exactly one of several processes does.
    """

    def __init__(self, workdir: pathlib.Path, writes: bool = True) -> None:
        self._workdir, self._writes = workdir, writes
        self._curves = _writer(workdir, writes)
        self._overview = _writer(workdir, writes=False)

    def begin(self, config: RunConfig) -> None:
        """Writes the settings of a run for the tab HPARAMS, once: resuming changes nothing.

        Args:
            config: Configuration of the run.
        """
        path = self._workdir / OVERVIEW
        is_new = not any(path.glob("events.*"))
        self._overview = _writer(path, self._writes)
        if is_new:
            settings = {name: _shown(value) for name, value in run_config.changed(config).items()}
            with self._overview.as_default(step=0):
                # Without a name, runs of the same settings would be shown as one.
                hparams.hparams(settings, trial_id=str(self._workdir.resolve()))

    def scalars(self, step: int, values: Mapping[str, Any], group: str = "") -> None:
        """Adds points to curves.

        Args:
            step: Step of the run.
            values: Values by name; None is left out.
            group: Prefix of the names.
        """
        _write(self._curves, step, {f"{group}/{n}" if group else n: values[n] for n in values})

    def best(self, step: int, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Shows metrics of the best weights so far beside the settings of the run.

        Args:
            step: Step of these weights.
            metrics: Metrics by split; None where undefined.
        """
        for split, values in metrics.items():
            named = {f"{split}/{name}": values[name] for name in values if name not in _COUNTS}
            _write(self._overview, step, named)

    def graph(self, graph: tf.Graph) -> None:
        """Shows a graph."""
        if self._writes:
            with self._overview.as_default(step=0):
                tf.summary.graph(graph.as_graph_def())

    def histograms(self, step: int, weights: Iterable[tf.Variable]) -> None:
        """Adds the distributions of weights, of large ones that of every k-th row.

        NumPy counts them: TensorFlow's own operation takes 30 times the memory of the weight.

        Args:
            step: Step of the run.
            weights: Weights; of one with more than 262,144 values rows at equal distances count.
        """
        if not self._writes:
            return
        with self._curves.as_default(step=step):
            for weight in weights:
                name = weight.name.partition(":")[0]
                content = histogram_pb(f"weights/{name}", sampled(weight))
                tf.summary.experimental.write_raw_pb(content.SerializeToString())

    def flush(self) -> None:
        """Makes the events visible to TensorBoard."""
        self._curves.flush()
        self._overview.flush()

    def close(self) -> None:
        """Closes the files of events."""
        self._curves.close()
        self._overview.close()


def sampled(weight: tf.Variable, most: int = _MOST_VALUES) -> np.ndarray:
    """Values of a weight: all, or those of rows at equal distances, the same at every call.

    Args:
        weight: Weight [rows, ...].
        most: Number of values above which rows are left out.

    Returns:
        Values in the shape of the weight, with fewer rows if need be; at least one row.

    Example:
        >>> sampled(tf.Variable(tf.range(10.0)), most=4)
        array([0., 3., 6., 9.], dtype=float32)
    """
    size = int(np.prod(weight.shape))
    if size <= most:
        return np.asarray(tf.convert_to_tensor(weight))
    rows = tf.range(0, weight.shape[0], delta=-(-size // most))
    return np.asarray(tf.nn.embedding_lookup(weight, rows))


def _writer(path: pathlib.Path, writes: bool) -> tf.summary.SummaryWriter:
    return tf.summary.create_file_writer(str(path)) if writes else tf.summary.create_noop_writer()


def _write(writer: tf.summary.SummaryWriter, step: int, values: Mapping[str, Any]) -> None:
    with writer.as_default(step=step):
        for name, value in values.items():
            if value is not None:
                tf.summary.scalar(name, value)


def _shown(value: Any) -> bool | int | float | str:
    """A setting as TensorBoard can hold it."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
