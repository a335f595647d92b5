"""Every self-supervised loss and its gradient are the same on one replica and on two.

Logical devices must be set up before TensorFlow starts, so the replicas live in a process of their
own. Both draw the same pairs, and negatives come from the whole batch.
"""

import json

import numpy as np
import pytest

from tests.helpers.python_runs import python

NAMES = ("miss", "rule", "irssl", "s3rec", "cl4srec")

_PROGRAM = """
import json, sys
from models.keras import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.helpers import small_models
from models.distributed.distribution import Distribution

features = small_models.batch(requests=11)
features["user_id"] = tf.constant([2, 3, 4, 5, 6, 7, 8, 3, 9, 4, 10])  # two users twice

def step(model, batch):
    with tf.GradientTape() as tape:
        total, logs = model.ssl_loss(batch, tf.constant([3, 5]))
    weights = [model.embedder.tables["item_id"], *model.ssl.trainable_variables]
    return logs["loss"], [tf.convert_to_tensor(g) for g in tape.gradient(total, weights)]

result = {}
for name in sys.argv[1:]:
    for kind in ("one_device", "mirrored"):
        strategy = Distribution(kind).strategy
        with strategy.scope():
            model = small_models.model(small_models.config("din", name, "ssl.alpha=1.0"))
            small_models.randomise(model)
        # Eleven requests on two replicas: unequal shares.
        dataset = tf.data.Dataset.from_tensor_slices(features).batch(11)
        batch = next(iter(strategy.experimental_distribute_dataset(dataset)))
        loss, gradients = strategy.run(step, (model, batch))
        local = strategy.experimental_local_results
        summed = [sum(g.numpy() for g in local(gradient)) for gradient in gradients]
        result[f"{name}/{kind}"] = {
            "shares": [int(users.shape[0]) for users in local(batch["user_id"])],
            "losses": [float(value) for value in local(loss)],
            "gradients": [gradient.ravel().tolist() for gradient in summed],
        }
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def found():
    return json.loads(python("-c", _PROGRAM, *NAMES).splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_equal_one(found, name):
    one, two = found[f"{name}/one_device"], found[f"{name}/mirrored"]
    assert one["shares"] == [11]
    assert two["shares"] == [6, 5]
    np.testing.assert_allclose(two["losses"], one["losses"] * 2, rtol=1e-6)
    assert any(np.any(gradient) for gradient in one["gradients"])
    for other, expected in zip(two["gradients"], one["gradients"], strict=True):
        scale = max(np.abs(expected).max(), 1.0)
        np.testing.assert_allclose(other, expected, atol=1e-6 * scale)
