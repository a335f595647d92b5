"""Sets that are none, and figures of sets that the requests do not confirm, are found."""

import json
import shutil

import numpy as np
import pytest

from pipeline.audit import audit
from pipeline.auditing.requests import not_sets
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from tests.helpers import many_logs
from tests.helpers.small_data_sets import rewrite_split


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return many_logs.write_data(tmp_path_factory.mktemp("sound_sets"), num_shards=1).path


@pytest.fixture
def data(sound, tmp_path):
    return DataDir.open(shutil.copytree(sound, tmp_path / "data"))


def test_what_is_no_set():
    sets = [[0, 0, 0, 0], [5, 3, 1, 0], [5, 0, 0, 0], [2, 5, 7, 9], [5, 3, 5, 0], [5, 0, 3, 0]]
    assert not_sets(np.array(sets), 3).tolist() == [False, False, False, True, True, True]
    assert not_sets(np.array([sets, sets]), 4).shape == (2, 6)


@pytest.mark.parametrize(
    ("key", "ids", "why"),
    [
        ("tags", [3, 3], "tags is no set of at most 4 values"),
        ("tags", [1, 2, 3, 4, 5], "tags is no set of at most 4 values"),
        ("tags", [3, 21], "tags is out of range"),
        ("candidate/genres", None, "candidate/genres is no set of at most 3 values"),
    ],
)
def test_a_set_that_is_none_is_found(data, key, ids, why):
    def change(examples):
        values = examples[0].context.feature[key].int64_list.value
        if ids is None:  # one value of the first candidate more, which it has already
            lengths = examples[0].context.feature["candidate/genres/lengths"].int64_list.value
            changed = [values[0], *values]
            lengths[0] += 1
        else:
            changed = ids
        del values[:]
        values.extend(changed)

    rewrite_split(data, "test", change)
    found = audit(data.path)["ids"]
    assert found.count == 1
    assert found.examples[0].endswith(why)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("splits train features tags count", "train: tags: count is "),
        ("splits train features languages missing", "train: languages: missing is "),
        ("splits test features history/genres oov_rate", "test: history/genres: oov_rate is "),
        ("splits test features tags hash_buckets 3", "test: tags: hash_buckets is "),
    ],
)
def test_a_figure_that_the_sets_do_not_confirm_is_found(data, path, message):
    *path, last = (int(key) if key.isdigit() else key for key in path.split())
    figures = data.stats
    for key in path:
        figures = figures[key]
    figures[last] += 1
    data_dir.write_json(data.path / "stats.json", data.stats)
    data.manifest["files"]["stats.json"] = data_dir.sha256_file(data.path / "stats.json")
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    (example,) = audit(data.path)["statistics"].examples
    assert example.startswith(message)


def test_counts_of_words_may_lose_as_many_as_were_cut_and_no_more(data):
    assert data.stats["cut"]["genres"] > 0
    data.stats["cut"]["genres"] = 0
    data_dir.write_json(data.path / "stats.json", data.stats)
    data.manifest["files"]["stats.json"] = data_dir.sha256_file(data.path / "stats.json")
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    (example,) = audit(data.path)["statistics"].examples
    assert "vocabulary of genres: " in example
