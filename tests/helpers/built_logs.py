"""Data sets of small logs, by default with all events of a user as training positives."""

import json
from unittest import mock

import numpy as np

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing import dataset
from preprocessing.reading import cores, decoded
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes

_SETTINGS = {
    "protocol": "leave_last_out",
    "train_prefixes": "all",
    "negatives": 2,
    "num_shards": 2,
}


def build(path, log, schema, order=0, **arguments):
    """Builds PATH/data.

    Args:
        path: Directory that has the log.
        log: Path of the log.
        schema: Content of schema.json.
        order: Seed of the order of elements.
        arguments: Arguments of the build that differ.
    """
    (path / "schema.json").write_text(json.dumps(schema))
    paths = {"input": log, "schema": str(path / "schema.json"), "output": str(path / "data")}
    with inline(order):
        return build_examples(BuildArguments(**(_SETTINGS | paths | arguments)))


def of_300_users(path, **arguments):
    """Generates PATH/log.csv and builds PATH/data, as a user of the command would.

    Args:
        path: Directory.
        arguments: Arguments of the build.
    """
    log = path / "log.csv"
    write(synthesize(SynthesizeArguments(users=300, items=200, interests=5)), log)
    return build_examples(BuildArguments(input=str(log), output=str(path / "data"), **arguments))


def require_any_order(write_data, path):
    """Asserts that neither partitions nor the order of elements change a byte.

    Args:
        write_data: Function that writes a log and builds it, with `build`'s arguments.
        path: Empty directory.
    """
    expected = write_data(path / "expected")
    for order, partitions in ((1, 1), (2, 7)):
        data = write_data(path / f"other-{order}", order=order, num_partitions=partitions)
        assert shard_bytes(data.path) == shard_bytes(expected.path)
        assert data.stats == expected.stats


def batches(data, **options):
    """Two epochs of training batches, shuffled."""
    arguments = {"batch_size": 16, "shuffle_seed": 3, "epochs": 2, "history_buckets": (2, 4)}
    return list(dataset.read(data, "train", **(arguments | options)))


def require_same_from_memory(data):
    """Asserts that a split gives the same batches from memory, from the disk and on more cores."""
    needed = decoded.bytes_needed(data, "train")
    with mock.patch.object(cores, "available", return_value=7):
        on_more_cores = batches(data)
    for others in (batches(data, memory_budget=needed), on_more_cores):
        for ours, theirs in zip(batches(data), others, strict=True):
            assert ours.keys() == theirs.keys()
            for key in ours:
                np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
