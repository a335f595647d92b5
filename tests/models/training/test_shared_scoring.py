"""models.training.shared_scoring: several processes score what one scores, each its batches.

Processes are threads here, which exchange values at a barrier; tests/e2e/test_shared_evaluation.py
has real ones.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.core import run_directory
from models.core.factory import build_model
from models.distributed.distribution import Distribution
from models.evaluation import scoring
from models.evaluation.metrics import ranking_metrics
from models.evaluation.scoring import Scorer
from models.training.shared_scoring import SharedScorer
from preprocessing.errors import UserError
from preprocessing.reading.parts import Part
from tests.helpers import small_models


class _Process(Distribution):
    """One of several synchronous processes of a test."""

    has_peers = True
    place = property(lambda self: self._place)
    is_chief = property(lambda self: self._place[0] == 0)

    def __init__(self, place, barrier, values):
        super().__init__("one_device")
        self._place, self._barrier, self._values = place, barrier, values

    def exchange(self, value):
        self._values[self._place[0]] = json.dumps(value)
        self._barrier.wait(60)
        found = [json.loads(text) for text in self._values]
        self._barrier.wait(60)
        return found


def _together(count, call):
    """What `call(process)` returns, or the error that it raises, for each of some processes."""
    barrier, values = threading.Barrier(count), [None] * count
    processes = [_Process((index, count), barrier, values) for index in range(count)]

    def outcome(process):
        try:
            return call(process)
        except UserError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(outcome, processes))


@pytest.fixture(scope="module")
def model(data):
    built = build_model(small_models.config("din"), data)
    small_models.randomise(built)
    return built


def _require_equal(found, expected):
    for name, value in expected._asdict().items():
        if name == "ids":
            assert found.ids.keys() == value.keys()
            for key, ids in value.items():
                np.testing.assert_array_equal(found.ids[key], ids)
                assert found.ids[key].dtype == ids.dtype
        elif value is not None:
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
            assert getattr(found, name).dtype == value.dtype


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize(("count", "batch_size"), [(2, 16), (3, 16), (2, 512), (3, 128)])
def test_scores_and_metrics_are_those_of_one_process(
    data, model, tmp_path, monkeypatch, count, batch_size, memory
):
    """Also with fewer batches than processes."""
    monkeypatch.setattr(scoring, "BATCH_SIZE", batch_size)
    expected = Scorer(model, data).score("validation")
    collected = [0] * count

    def call(process):
        index, _ = process.place
        scorer = Scorer(model, data, memory_budget=memory, turn=Part(*process.place))
        collect = scorer._collect

        def counting(features, logits):
            collected[index] += int(logits.shape[0])
            return collect(features, logits)

        scorer._collect = counting
        shared = SharedScorer(process, tmp_path)
        first = shared.score(scorer, "validation")
        again = shared.score(scorer, "validation", held=False, with_ids=False)
        shared.close()
        return first, again

    (found, again), *others = _together(count, call)
    assert others == [(None, None)] * (count - 1)
    _require_equal(found, expected)
    _require_equal(again, expected._replace(ids={}))
    assert ranking_metrics(again) == ranking_metrics(expected)
    requests = data.num_requests("validation")
    assert sum(collected) == 2 * requests
    assert max(collected) <= 2 * batch_size * -(-requests // (batch_size * count))
    assert not (tmp_path / run_directory.SCORING).exists()


def test_an_error_of_one_process_ends_all(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", 16)

    def call(process):
        scorer = Scorer(model, data, turn=Part(*process.place))
        if not process.is_chief:

            def refused(*_):
                raise UserError("Expected an undamaged shard.", "copy it.")

            scorer._collect = refused
        return SharedScorer(process, tmp_path).score(scorer, "validation")

    errors = _together(2, call)
    assert [str(error) for error in errors] == ["Expected an undamaged shard. Fix: copy it."] * 2


def test_scores_that_are_not_finite_end_all(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", 16)

    def call(process):
        scorer = Scorer(model, data, turn=Part(*process.place))
        if not process.is_chief:
            collect = scorer._collect
            scorer._collect = lambda features, logits: collect(features, logits * np.nan)
        return SharedScorer(process, tmp_path).score(scorer, "validation")

    for error in _together(2, call):
        assert "Expected finite scores, found NaN or infinity" in str(error)


def test_a_directory_that_is_not_shared_is_named(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_SIZE", 16)

    def call(process):
        scorer = Scorer(model, data, turn=Part(*process.place))
        directory = tmp_path / str(process.place[0])
        return SharedScorer(process, directory).score(scorer, "validation")

    for error in _together(2, call):
        assert "Expected the scores of every process in" in str(error)
        assert "the same --workdir" in str(error)
