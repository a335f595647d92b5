"""The reader of data sets with vectors: the same from disk and from memory."""

import pytest

from preprocessing.reading import decoded
from tests.helpers import built_logs, vector_logs
from tests.helpers.vector_logs import PROFILE, SEARCH, TEXT


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return vector_logs.write_data(tmp_path_factory.mktemp("vector_dataset"))


def test_padding_is_zeros(data):
    for batch in built_logs.batches(data):
        requests, length = batch["history/item_id"].shape
        candidates = batch["candidate/item_id"].shape[1]
        assert batch[PROFILE].shape == (requests, 3)
        assert batch[SEARCH].shape == (requests, 2)
        assert batch[f"candidate/{TEXT}"].shape == (requests, candidates, 5)
        assert batch[f"history/{TEXT}"].shape == (requests, length, 5)
        numbers = batch[f"history/{TEXT}"].numpy()
        is_event = batch["history/item_id"].numpy() > 0
        assert not numbers[~is_event].any()
        assert numbers[is_event].any(axis=-1).all()


def test_memory_and_disk_give_the_same_batches(data):
    built_logs.require_same_from_memory(data)


def test_the_bound_on_memory_counts_the_bytes_of_vectors(data, tmp_path):
    wider = vector_logs.schema(**{TEXT: {"shape": [25]}})
    log = vector_logs.rows()
    for row in log:
        row[TEXT] = row[TEXT] * 5
    large = vector_logs.write_data(tmp_path, log, wider)
    difference = decoded.bytes_needed(large, "train") - decoded.bytes_needed(data, "train")
    events = 6 * data.num_requests("train") + data.manifest["splits"]["train"]["candidates"]
    assert difference == 80 * events
