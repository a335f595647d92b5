"""Hours, weekdays and gaps in the graph, against the columns of the job."""

import numpy as np
import pyarrow as pa
import pytest

from models.keras import tf
from pipeline.requests import event_times as job
from preprocessing.encoders import encoder_files, fitting
from preprocessing.schema import Schema
from preprocessing.sequences import Windows
from preprocessing.transforms import RawEncoder
from serving.exporting.event_times import with_gaps, with_request_features
from tests.helpers import event_logs


class _Rows:
    """Histories of some requests, as `pipeline.requests.event_times` wants rows."""

    def __init__(self, request_times, histories):
        self.timestamps = request_times
        self.event_times = np.concatenate([np.zeros(0, np.int64), *histories])
        self._lengths = [len(times) for times in histories]

    def windows(self, requests):
        splits = np.concatenate([[0], np.cumsum(self._lengths)])
        assert len(requests) == len(self._lengths)
        return Windows(np.arange(splits[-1]), splits)


@pytest.fixture(scope="module", params=["seconds", "milliseconds", "nanoseconds"])
def schema(request):
    return Schema.from_json(event_logs.schema(*event_logs.TIMES, unit=request.param))


@pytest.fixture(scope="module")
def fitted(schema):
    names = [feature for feature in schema.encoded_features if feature.derived is not None]
    nothing = pa.array([], pa.int64())
    return {feature.name: fitting.fit(feature, nothing, np.zeros(0, np.int64)) for feature in names}


@pytest.fixture(scope="module")
def encoder(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab")
    for one in fitted.values():
        encoder_files.save_vocabulary(one, path)
    return RawEncoder(fitted, path)


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_gives_the_ids_of_the_job(schema, fitted, encoder, seed):
    rng = np.random.default_rng(seed)
    ticks = {"seconds": 1, "milliseconds": 1000, "nanoseconds": 10**9}[schema.timestamp.unit]
    lengths = rng.integers(0, 7, 40)
    histories = [
        np.sort(rng.integers(-(2**31), 2**31, length) * ticks + rng.integers(0, ticks, length))
        for length in lengths
    ]
    latest = np.array([times.max(initial=0) for times in histories])
    request_times = latest + (2.0 ** rng.uniform(0, 31, 40)).astype(np.int64) * (ticks // 2 or 1)
    columns = job.gaps(_Rows(request_times, histories), schema, np.arange(40))
    mask = np.arange(7) < lengths[:, None]
    time_BL = np.full((40, 7), -1)
    time_BL[mask] = np.concatenate(histories)
    features = {
        "timestamp": tf.constant(request_times),
        "history/timestamp": tf.constant(time_BL),
        "history/item_id": tf.constant(mask.astype(np.int64)),
    }
    found = with_gaps(schema, encoder, with_request_features(schema, encoder, features))
    for name in ("age", "pause"):
        ids_BL = found[f"history/{name}"].numpy()
        np.testing.assert_array_equal(ids_BL[mask], fitted[name].encode(columns[name]))
        assert not ids_BL[~mask].any()
    rows = pa.table({"x": request_times})
    rows = job.with_request_features(rows, schema, request_times)
    for name in ("hour", "weekday"):
        expected = fitted[name].encode(rows[name].combine_chunks())
        np.testing.assert_array_equal(found[name].numpy(), expected)


def test_a_missing_time_is_missing_and_what_follows_from_it(schema, encoder):
    features = {
        "timestamp": tf.constant([-1, 5000], tf.int64),
        "history/timestamp": tf.constant([[1000, 2000], [-1, 3000]], tf.int64),
        "history/item_id": tf.ones([2, 2], tf.int64),
    }
    found = with_gaps(schema, encoder, with_request_features(schema, encoder, features))
    assert found["hour"].numpy()[0] == 0
    assert found["weekday"].numpy()[0] == 0
    assert found["history/age"].numpy()[0].tolist() == [0, 0]
    assert found["history/age"].numpy()[1, 0] == 0
    assert found["history/age"].numpy()[1, 1] > 0
    assert found["history/pause"].numpy()[1].tolist() == [0, 0]
    assert found["history/pause"].numpy()[0, 1] > 0
