"""One replica and two give the same losses and weights.

Logical devices must be set up before TensorFlow starts, so the replicas live in a process of their
own.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from models import distribution
from preprocessing.errors import UserError

_PROGRAM = """
import json, sys
sys.path.insert(0, "tests")
from models.keras import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import builders
from models import distribution

result = {}
for name in ("one_device", "mirrored"):
    strategy = distribution.strategy(name)
    with strategy.scope():
        run = builders.config("din", "none", "train.l2=0.01", "train.clip_norm=0.5")
        model = builders.model(run)
        dmr = builders.model(builders.config("dmr"))
    step = model.make_train_function()
    # Two batches of eight requests; the last one is uneven: five requests on two replicas.
    features = builders.batch(requests=21)
    dataset = tf.data.Dataset.from_tensor_slices(features).batch(8)
    iterator = iter(strategy.experimental_distribute_dataset(dataset))
    losses = [{k: float(v) for k, v in step(iterator).items()} for _ in range(3)]
    weights = {w.name: w.numpy().ravel().tolist() for w in model.trainable_variables}
    # DMR's further loss has negatives from the whole batch; tracing its step would take long.
    batch = next(iter(strategy.experimental_distribute_dataset(dataset)))
    terms = strategy.run(lambda batch: dmr._total(dmr.loss_terms(batch, [0, 1]), [])[1], (batch,))
    term = strategy.experimental_local_results(terms["next_item"])[0]
    result[name] = [strategy.num_replicas_in_sync, [*losses, {"next_item": float(term)}], weights]
print(json.dumps(result))
"""


def test_two_replicas_equal_one():
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    replicas, losses, weights = found["one_device"]
    other_replicas, other_losses, other_weights = found["mirrored"]
    assert (replicas, other_replicas) == (1, 2)
    for one, two in zip(losses, other_losses, strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    for name, values in weights.items():
        np.testing.assert_allclose(other_weights[name], values, atol=1e-5, err_msg=name)


def test_unknown_strategy_is_refused():
    with pytest.raises(UserError, match="one of auto, one_device, mirrored, found 'mirorred'"):
        distribution.strategy("mirorred")
