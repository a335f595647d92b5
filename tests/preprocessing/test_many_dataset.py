"""The reader of data sets with sets: one more axis, the same from disk and from memory."""

import pytest

from preprocessing.reading import decoded
from tests.helpers import built_logs, many_logs
from tests.helpers.many_logs import GENRES, LANGUAGES, TAGS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return many_logs.write_data(tmp_path_factory.mktemp("many_dataset"))


def test_sets_are_padded_to_their_largest_number(data):
    for batch in built_logs.batches(data):
        requests, length = batch["history/item_id"].shape
        candidates = batch["candidate/item_id"].shape[1]
        assert batch[LANGUAGES].shape == (requests, 2)
        assert batch[TAGS].shape == (requests, 4)
        assert batch[f"candidate/{GENRES}"].shape == (requests, candidates, 3)
        assert batch[f"history/{GENRES}"].shape == (requests, length, 3)
        ids = batch[f"history/{GENRES}"].numpy()
        assert not ids[batch["history/item_id"].numpy() == 0].any()
        assert not ((ids[..., 1:] != 0) & (ids[..., :-1] == 0)).any()


def test_memory_and_disk_give_the_same_batches(data):
    built_logs.require_same_from_memory(data)


def test_the_bound_on_memory_counts_every_value(data, tmp_path):
    narrow = {GENRES: {"max": 1}, LANGUAGES: {"max": 1}, TAGS: {"max": 1}}
    small = many_logs.write_data(tmp_path, content=many_logs.schema(**narrow))
    requests = data.num_requests("train")
    candidates = data.manifest["splits"]["train"]["candidates"]
    more_values = requests * (1 + 3 + 6 * 2) + candidates * 2
    difference = decoded.bytes_needed(data, "train") - decoded.bytes_needed(small, "train")
    assert difference == 8 * more_values
