"""What TensorBoard finds in the directories of runs."""

import collections

import numpy as np
import pytest
from tensorboard import default
from tensorboard.plugins.hparams import metadata as hparams

from models import train
from models.config import run_config
from models.core import run_directory
from models.keras import tf
from models.training import trainer
from models.training.board import OVERVIEW, Board, sampled
from models.training.interruption import Interrupted, StopRequest


@pytest.fixture(autouse=True)
def evaluate_often(monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)


def _config(data, model="lr", ssl="none", **settings):
    content = {"data": str(data.path), "model": {"name": model}, "ssl": {"name": ssl}}
    plain = {"batch_size": 50, "max_steps": 8}
    return run_config.resolve(content | {"train": plain | settings})


class _Stops(StopRequest):
    """Asks a run to stop once it has so many rows, which `rows` tells."""

    def __init__(self, rows):
        super().__init__()
        self._rows = rows

    def __bool__(self):
        return self._rows()


def _events(path):
    """The values by tag, and the graphs, of the events of a directory."""
    values, graphs = collections.defaultdict(list), []
    for file in sorted(path.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.graph_def:
                graphs.append(tf.compat.v1.GraphDef.FromString(event.graph_def))
            for value in event.summary.value:
                values[value.tag].append((event.step, value))
    return values, graphs


def _settings(path):
    """Name and settings of a run, as its only entry for the tab HPARAMS has them."""
    ((_, value),) = _events(path / OVERVIEW)[0][hparams.SESSION_START_INFO_TAG]
    content = value.metadata.plugin_data.content
    found = hparams.parse_session_start_info_plugin_data(content)
    return found.group_name, {
        name: getattr(setting, setting.WhichOneof("kind"))
        for name, setting in found.hparams.items()
    }


def _points(values, tag):
    return [(step, float(tf.make_ndarray(value.tensor))) for step, value in values[tag]]


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two finished runs, the second with histograms."""
    home = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "EVALUATION_INTERVAL", 4)
        train.train(_config(data), home / "one", progress=False)
        config = _config(data, "din", learning_rate=0.01, histograms=True, epochs=20)
        train.train(config, home / "two", progress=False)
    return home


def test_tensorboard_starts_with_the_plugin():
    assert any("hparams" in str(plugin) for plugin in default.get_plugins())


def test_two_runs_can_be_compared_by_their_settings(runs, data):
    """TensorBoard finds what differs, and compares the metrics of the overviews alone."""
    both = {"data": str(data.path), "ssl.name": "none"}
    both |= {"train.batch_size": 50.0, "train.max_steps": 8.0}
    assert _settings(runs / "one") == (str(runs / "one"), both | {"model.name": "lr"})
    others = {"model.name": "din", "train.learning_rate": 0.01, "train.histograms": True}
    assert _settings(runs / "two") == (str(runs / "two"), both | others)


@pytest.mark.parametrize("run", ["one", "two"])
def test_the_metrics_beside_the_settings_are_those_of_the_best_weights(runs, run):
    values, graphs = _events(runs / run / OVERVIEW)
    measured = run_directory.read_metrics(runs / run)
    for split, metrics in measured.items():
        assert f"{split}/requests" not in values
        for name in ("auc", "gauc", "log_loss", "calibration_error"):
            assert _points(values, f"{split}/{name}")[-1][1] == pytest.approx(metrics[name])
    assert not [tag for tag in values if tag.startswith(("train/", "weights/"))]
    (graph,) = graphs
    assert len(graph.node) > 10
    assert graph.ByteSize() < 1 << 20
    assert not _events(runs / run)[1]


def test_weights_are_shown_at_evaluations_if_asked_for(runs):
    assert not [tag for tag in _events(runs / "one")[0] if tag.startswith("weights/")]
    values, _ = _events(runs / "two")
    table = values["weights/item_id_embedding"]
    assert [step for step, _ in table] == [4, 8]
    model = run_directory.load_model(runs / "two")
    shown = {tag.removeprefix("weights/") for tag in values if tag.startswith("weights/")}
    assert shown == {weight.name.removesuffix(":0") for weight in model.trainable_variables}
    counts = tf.make_ndarray(table[0][1].tensor)[:, 2]
    assert counts.sum() == tf.size(model.embedder.tables["item_id"])


def test_a_stopped_run_has_its_settings_and_its_graph_once(data, tmp_path):
    path = tmp_path / "run"
    stop = _Stops(lambda: len(begun.progress.history) == 1)
    begun = train.begin(_config(data), path, progress=False, stop=stop)
    with pytest.raises(Interrupted):
        begun.run()
    before = _settings(path)
    assert _points(_events(path / OVERVIEW)[0], "validation/auc")
    train.train(_config(data, max_steps=12), path, resume=True, progress=False)
    assert _settings(path) == before
    values, graphs = _events(path / OVERVIEW)
    assert len(graphs) == 1
    assert _points(values, "test/auc")[-1][1] == pytest.approx(
        run_directory.read_metrics(path)["test"]["auc"]
    )


def test_a_process_that_does_not_write_leaves_nothing(data, tmp_path):
    board = Board(tmp_path, writes=False)
    board.begin(_config(data))
    board.scalars(1, {"loss": 1.0})
    board.best(1, {"test": {"auc": 0.5, "gauc": None}})
    board.histograms(1, [tf.Variable([1.0], name="weight")])
    board.graph(tf.Graph())
    board.flush()
    board.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1,), (7,), (10, 3), (1, 50), (1000, 2, 2), (33, 5)])
def test_large_weights_are_sampled_by_rows_at_equal_distances(shape):
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    found = sampled(tf.Variable(weight), most=32)
    step = -(-weight.size // 32)
    np.testing.assert_array_equal(found, weight[::step])
    assert found.size <= max(32, weight[:1].size)
