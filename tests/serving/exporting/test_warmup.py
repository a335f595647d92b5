import shutil

import numpy as np
import pytest

from models.keras import tf
from serving.exporting import warmup
from serving.tfserving.models.servable import Servable
from serving.tfserving.protos import prediction_log_pb2
from serving.tfserving.status import Code, ServingError

ROW = {"x": np.array([1.0, 2.0], np.float32)}


@pytest.fixture
def version(exported, tmp_path):
    return shutil.copytree(exported / "00000123", tmp_path / "1")


def write_raw(version, records):
    path = version / warmup.WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def failure(version):
    with pytest.raises(ServingError) as caught:
        warmup.replay(Servable(version))
    return caught.value


def test_W1_written_requests_are_replayed(version):
    names = np.array([b"a"], object)
    describe = {"ids": np.array([[1, 2]]), "names": names}
    warmup.write(version, [("serving_default", ROW), ("describe", describe), ("", ROW)])
    assert warmup.replay(Servable(version)) == 3


def test_same_requests_give_the_same_file(version):
    contents = []
    for _ in range(2):
        warmup.write(version, [("serving_default", ROW)] * 2)
        contents.append((version / warmup.WARMUP_FILE).read_bytes())
    assert contents[0] == contents[1]


def test_W2_missing_file_is_fine(version):
    assert warmup.replay(Servable(version)) == 0


def test_W2_failing_request_fails_the_load(version):
    warmup.write(version, [("gather", {"ids": np.array([99])})])
    assert "99 is not in [0, 10)" in failure(version).message


def test_W2_unknown_signature_fails_the_load(version):
    warmup.write(version, [("none", ROW)])
    assert failure(version).message == 'Serving signature name: "none" not found in signature def'


def test_W2_unparsable_record_fails_the_load(version):
    write_raw(version, [b"\xff\xff"])
    assert "Failed to parse warmup record 0" in failure(version).message


def test_W2_other_file_format_fails_the_load(version):
    path = version / warmup.WARMUP_FILE
    path.parent.mkdir()
    path.write_bytes(b"not a TFRecord file at all")
    error = failure(version)
    assert error.code is Code.DATA_LOSS
    assert "Please verify your warmup data is in TFRecord format." in error.message


def test_W2_too_many_records_fail_the_load(version):
    write_raw(version, [b""] * (warmup.MAX_RECORDS + 1))
    assert "exceeds the maximum (1000)" in failure(version).message


def test_W2_session_run_log_is_unimplemented(version):
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    write_raw(version, [log.SerializeToString()])
    assert failure(version).code is Code.UNIMPLEMENTED


def test_W2_empty_records_are_passed_over(version):
    write_raw(version, [b"", b""])
    assert warmup.replay(Servable(version)) == 0
