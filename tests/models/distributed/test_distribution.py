"""One replica and two give the same losses, gradients and weights.

Logical devices must be set up before TensorFlow starts, so the replicas live in a process of their
own.
"""

import json

import numpy as np
import pytest

from models.distributed import distribution
from models.distributed.distribution import Distribution
from models.keras import tf
from preprocessing.errors import UserError
from tests.helpers.python_runs import python

STEPS = 20
_START = """
import json, sys
import numpy as np
from models.keras import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.helpers import event_models, many_models, small_models, vector_models
from models.distributed.distribution import Distribution
from models.training.steps import Steps
"""
_REPLICAS = """
model_name, ssl, requests, steps, path = sys.argv[1:]
schemas = {"sets": many_models, "vectors": vector_models, "events": event_models}
small_models = schemas.get(ssl, small_models)
ssl = "none" if ssl in schemas else ssl
for name in ("one_device", "mirrored"):
    distribution = Distribution(name)
    settings = ["train.l2=0.01", "train.clip_norm=0.5", "train.oov_rate=0.05"]
    settings += ["train.joint=true"] * (ssl != "none")  # Beside steps of its own.
    with distribution.strategy.scope():
        model = small_models.model(small_models.config(model_name, ssl, *settings))
        model.build_optimizers()
    features = small_models.batch(requests=int(requests))
    dataset = tf.data.Dataset.from_tensor_slices(features).batch(8).repeat()
    batches = distribution.batches(dataset)
    kinds = [model.ssl_step] * (ssl != "none") + [model.main_step]
    kinds = [Steps(kind, distribution.strategy) for kind in kinds]
    logs = [
        [{k: float(v) for k, v in train(batches, 1).items()} for train in kinds]
        for _ in range(int(steps))
    ]
    optimizers = [model.optimizer, model.embedding_optimizer]
    optimizers += [model.ssl_optimizer, model.ssl_embedding_optimizer] * (ssl != "none")
    values = [*model.variables, *(value for each in optimizers for value in each.variables)]
    np.savez(f"{path}/{name}.npz", *[value.numpy() for value in values])
    labels = next(distribution.batches(dataset))["label"]
    parts = distribution.strategy.experimental_local_results(labels)
    shares = [int(part.shape[0]) for part in parts]
    print(json.dumps([distribution.replicas, shares, [value.name for value in values], logs]))
"""
_TABLES_ON_CPU = """
losses = []
for on_cpu in (False, True):
    distribution = Distribution("one_device", tables_on_cpu=on_cpu)
    with tf.device("CPU:1" if on_cpu else "CPU:0"), distribution.strategy.scope():
        run = small_models.config("din", "none", f"train.tables_on_cpu={str(on_cpu).lower()}")
        model = small_models.model(run)
        model.build_optimizers()
        train = Steps(model.main_step, distribution.strategy)
        batches = distribution.batches(tf.data.Dataset.from_tensors(small_models.batch()).repeat())
        losses.append([float(train(batches, 1)["loss"]) for _ in range(3)])
ends = lambda values: sorted({v.device[-5:] for v in values if v.shape.rank})
print(json.dumps({
    "losses": losses,
    "tables": ends([*model.embedder.tables.values(), *model.embedding_optimizer.variables]),
    "others": ends([*model.backbone.variables, *model.optimizer.variables]),
}))
"""


def _run(program, *arguments):
    """The JSON lines that a program prints in a process with two logical CPUs."""
    return [json.loads(line) for line in python("-c", _START + program, *arguments).splitlines()]


@pytest.mark.parametrize(
    ("model", "ssl", "requests"),
    [
        # Eight requests, eight, and one, which leaves the other replica without any.
        ("din", "none", 17),
        pytest.param("din", "sets", 17, marks=pytest.mark.slow),
        pytest.param("din", "vectors", 17, marks=pytest.mark.slow),
        pytest.param("din", "events", 17, marks=pytest.mark.slow),
        # With 17, rounding decides one entry's gradient under MISS, and a unit of DemiNet crosses a
        # kink of its activation, where the gradient jumps and the loss does not. One replica whose
        # weights begin 1e-7 larger ends as far from itself; with the numbers below, within 3e-7.
        pytest.param("din", "miss", 25, marks=pytest.mark.slow),
        pytest.param("deminet", "none", 21, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_equal_one(model, ssl, requests, tmp_path):
    """Batch normalisation, L2, self-supervision in the sum of both losses and in steps of its own,
    gathered negatives, clipping, uneven batches."""
    one, two = _run(_REPLICAS, model, ssl, requests, STEPS, tmp_path)
    assert (one[0], two[0]) == (1, 2)
    assert (one[1], two[1]) == ([8], [4, 4])
    assert one[2] == two[2]
    assert len(one[3]) == STEPS
    for step, (expected, found) in enumerate(zip(one[3], two[3], strict=True)):
        for of_two, of_one in zip(found, expected, strict=True):
            # MISS' loss of a single pair is 0, up to the rounding of two logits of about 10.
            assert of_two == pytest.approx(of_one, rel=1e-5, abs=2e-6), step
    with (
        np.load(tmp_path / "one_device.npz") as expected,
        np.load(tmp_path / "mirrored.npz") as found,
    ):
        for name, key in zip(one[2], expected.files, strict=True):
            np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_tables_stay_in_main_memory():
    """The second logical CPU plays the GPU."""
    (found,) = _run(_TABLES_ON_CPU)
    assert found["tables"] == ["CPU:0"]
    assert found["others"] == ["CPU:1"]
    np.testing.assert_allclose(found["losses"][0], found["losses"][1], rtol=1e-6)


def test_unknown_strategy_is_refused():
    names = ", ".join(distribution.STRATEGIES)
    with pytest.raises(UserError, match=f"one of {names}, found 'mirorred'") as error:
        Distribution("mirorred")
    assert "mirrored" in str(error.value)


def test_alone_a_process_agrees_with_itself():
    alone = Distribution("auto")
    assert alone.is_chief
    assert not alone.has_peers
    assert alone.exchange({"a": 1}) == [{"a": 1}]
    assert alone.of_chief(lambda: 3.5) == 3.5
    alone.require_equal({"train.seed": 1})
    alone.join()


def test_other_settings_of_a_worker_are_named(monkeypatch):
    alone = Distribution("one_device")
    settings = [{"train.seed": 1, "train.l2": 0.0}, {"train.seed": 1, "train.l2": 0.5}]
    monkeypatch.setattr(alone, "exchange", lambda _: settings)
    with pytest.raises(UserError, match="same train.l2 .* found 0.0 in the first and 0.5 in numb"):
        alone.require_equal(settings[0])


def test_tables_on_the_cpu_are_for_one_device(monkeypatch):
    monkeypatch.setattr(
        distribution,
        "_one_process",
        lambda *_: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    )
    with pytest.raises(UserError, match="one device with train.tables_on_cpu"):
        Distribution("mirrored", tables_on_cpu=True)
