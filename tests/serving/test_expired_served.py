"""A model of a data set with expired values: they are unknown values in every way to a score."""

import numpy as np
import pytest

from preprocessing.encoders.fitted import VocabularyEncoder
from serving.client import Client
from serving.exporting import raw_requests
from serving.exporting.sample_requests import sample_requests
from serving.exporting.signatures import SCORES, SERVING_DEFAULT
from tests.helpers import expiring, toy_runs
from tests.helpers.served_models import require_parity


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return expiring.chain(tmp_path_factory.mktemp("expired_served"), range(7))[-1]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return toy_runs.write_run(tmp_path_factory.mktemp("expired_run") / "run", data, "din")


def _words(data, name, is_expired):
    encoder = data.encoders[name]
    assert isinstance(encoder, VocabularyEncoder)
    return encoder.vocabulary.to_numpy(zero_copy_only=False)[encoder.is_expired == is_expired]


def test_all_ways_agree(run, version):
    require_parity(run, version, split="validation")


def test_expired_values_have_the_scores_of_unknown_ones(data, running, servable):
    expired, live = (_words(data, "item_id", flag) for flag in (True, False))
    assert len(expired) >= 3
    requests = sample_requests(data, "validation", 3)
    with Client(running.url) as client:
        for request in requests:
            like = request["candidates"][0]

            def score(items, request=request, like=like, client=client):
                candidates = [like | {"item_id": str(item)} for item in items]
                return client.score(request | {"candidates": candidates})

            unknown = score(["never seen", "nor this"])
            np.testing.assert_allclose(score(expired[:3]), unknown[0], atol=1e-6)
            assert np.ptp(score(live[:5])) > 1e-6
    batch = next(raw_requests.batches(data, "validation", 4))
    raw = dict(batch.raw)
    users = _words(data, "user_id", True)
    assert len(users)
    scores = []
    for user in (users[0], "nobody"):
        raw["user_id"] = np.array([str(user).encode()] * len(raw["user_id"]), object)
        scores.append(servable.predict(SERVING_DEFAULT, raw)[SCORES])
    np.testing.assert_array_equal(scores[0], scores[1])
