"""models.training.sharing and what goes with it: readers of their own shards, and their steps."""

import json
import types

import numpy as np
import pytest

from models.config import run_config
from models.config.training import TrainConfig
from models.distributed import equal_widths
from models.distributed.distribution import Distribution
from models.distributed.tf_cluster import Cluster
from models.keras import tf
from models.training import sharing
from models.training.batches import training_batches
from models.training.memory import estimate
from models.training.progress import Progress
from preprocessing.errors import UserError
from preprocessing.reading import parts
from preprocessing.reading.parts import Part
from tests.helpers.python_runs import python


def test_one_process_reads_everything_whatever_the_setting(data):
    alone = Distribution("one_device")
    part = sharing.part_of(TrainConfig(sharding="files"), alone)
    assert sharing.part_of(TrainConfig(), alone) == parts.WHOLE == part
    assert sharing.remark(data, TrainConfig(sharding="files"), part) == ""


@pytest.mark.parametrize(
    ("kind", "index", "place"),
    [("chief", 0, (0, 3)), ("worker", 0, (1, 3)), ("worker", 1, (2, 3))],
)
def test_the_chief_is_the_first_reader(kind, index, place):
    distribution = Distribution("one_device")
    addresses = {"worker": ("a:1", "b:1"), "chief": ("c:1",)}
    distribution.cluster = Cluster(addresses, kind, index)
    assert distribution.place == place
    assert sharing.part_of(TrainConfig(sharding="files"), distribution) == Part(*place)
    assert sharing.part_of(TrainConfig(), distribution) == parts.WHOLE


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="train.sharding to be one of batches, files, found 'file'"):
        TrainConfig(sharding="file")
    with pytest.raises(UserError, match="sharding=batches with --distribute=parameter_server"):
        TrainConfig(sharding="files", distribute="parameter_server")


def _progress(**values):
    return Progress(**{"pretrained": True, "parts": 2, **values})


def test_a_pass_ends_with_as_many_readers_as_it_began_with():
    sharing.require_whole_pass(_progress(step=7), Part(1, 2), 5)
    sharing.require_whole_pass(_progress(step=10), Part(1, 3), 5)
    sharing.require_whole_pass(_progress(step=10, ssl_step=3), parts.WHOLE, 5)
    with pytest.raises(UserError, match="the first 2 of 5 steps of this pass, found .* 3 pr") as e:
        sharing.require_whole_pass(_progress(step=7), Part(1, 3), 5)
    assert "--max_steps=10" in str(e.value)
    with pytest.raises(UserError, match="2 processes, .* found train.sharding=batches or a sin"):
        sharing.require_whole_pass(_progress(step=7), parts.WHOLE, 5)
    with pytest.raises(UserError, match="pass of pre-training"):
        sharing.require_whole_pass(_progress(pretrained=False, ssl_step=7), Part(0, 3), 5)


def test_checkpoints_from_before_there_were_parts_are_of_one_reader():
    progress = Progress()
    progress.restore({"step": 3, "pretrained": True})
    sharing.require_whole_pass(progress, parts.WHOLE, 5)


def test_a_line_says_what_processes_read(data):
    train = TrainConfig(sharding="files", batch_size=50)
    line = sharing.remark(data, train, Part(0, 2))
    sizes = [parts.share(data, "train", 50, Part(index, 2)).requests for index in range(2)]
    assert line == (
        f"train.sharding=files: 2 processes with {min(sizes)} to {max(sizes)} training requests "
        "each."
    )


def test_memory_is_that_of_the_part_of_a_batch(data):
    content = {"data": str(data.path), "model": {"name": "din"}, "train": {"batch_size": 64}}
    config = run_config.resolve(content)
    two = types.SimpleNamespace(
        replicas=2, cluster=types.SimpleNamespace(peers={"worker 1": ""}), asynchronous=False
    )
    whole = estimate(config, data, two)
    share = parts.share(data, "train", 64, Part(0, 2))
    assert estimate(config, data, two, Part(0, 2)).activations == pytest.approx(
        whole.activations * share.batch_size / 32
    )


def test_batches_go_on_in_the_middle_of_a_pass(data):
    train = TrainConfig(batch_size=50, data_memory=0)
    part = Part(1, 2)

    def names_after(done):
        batches = training_batches(data, train, done, 3, part=part)
        return [batch["request_id"].numpy().tolist() for batch in batches]

    names = [names_after(done) for done in (0, 8)]
    assert len(names[0]) == 3 * -(-data.num_requests("train") // 50)
    assert names[1] == names[0][8:]


def test_alone_batches_keep_their_widths():
    features = {
        "user_id": tf.constant([1, 2]),
        "history/item_id": tf.constant([[1, 2, 3], [4, 0, 0]]),
        "vectors": tf.ones([2, 3, 4]),
    }
    specs = {
        "user_id": tf.TensorSpec([None], tf.int32),
        "history/item_id": tf.TensorSpec([None, None], tf.int32),
        "vectors": tf.TensorSpec([None, None, 4]),
    }
    padded = tf.function(equal_widths.padded_alike, input_signature=[specs], autograph=False)
    for name, value in padded(features).items():
        np.testing.assert_array_equal(value, features[name], err_msg=name)


def test_replicas_of_other_widths_are_padded_to_the_widest():
    """Two replicas are two logical CPUs, which need a process of their own."""
    program = """
import json
from models.keras import tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from models.distributed.distribution import Distribution
from models.distributed.equal_widths import with_equal_widths
strategy = Distribution("mirrored").strategy
batches = iter([{"a": tf.ones([2, 3], tf.int64), "b": tf.ones([2, 1, 2]), "c": tf.constant(["x"])},
                {"a": tf.ones([0, 5], tf.int64), "b": tf.ones([0, 4, 2]), "c": tf.constant(["y"])}])
spec = {"a": tf.TensorSpec([None, None], tf.int64), "b": tf.TensorSpec([None, None, 2]),
        "c": tf.TensorSpec([None], tf.string)}
values = list(batches)
dataset = lambda context: tf.data.Dataset.from_generator(lambda: values, output_signature=spec)
step = with_equal_widths(lambda features: features)
run = tf.function(lambda batches: strategy.run(step, (next(batches),)), autograph=False)
found = run(iter(strategy.distribute_datasets_from_function(dataset)))
local = {name: strategy.experimental_local_results(value) for name, value in found.items()}
print(json.dumps({name: [part.numpy().sum(axis=-1).tolist() if name == "b" else part.shape.as_list()
                         for part in parts] for name, parts in local.items()}))
"""
    expected = {"a": [[2, 5], [0, 5]], "b": [[[2, 0, 0, 0]] * 2, []], "c": [[1], [1]]}
    assert json.loads(python("-c", program).splitlines()[-1]) == expected
