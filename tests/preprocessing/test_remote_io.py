"""preprocessing.remote_io: lazy, and one line when tensorflow-io does not work."""

import sys

import pytest
import tensorflow as tf

from preprocessing import remote_io
from preprocessing.errors import UserError


@pytest.mark.parametrize("path", ["/tmp/data", "data", "gs://bucket/data", "file:///tmp"])
def test_local_paths_and_native_schemes_import_nothing(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    remote_io.register(path)


def test_registers_the_scheme_or_names_the_lane_where_it_works():
    try:
        remote_io.register("s3://bucket/data")
    except UserError as error:
        assert "default lane (requirements.lock)" in str(error)  # noqa: PT017
    else:
        assert "s3" in tf.io.gfile.get_registered_schemes()


@pytest.mark.parametrize("scheme", ["s3", "az", "hdfs", "http", "https"])
def test_missing_tensorflow_io_is_one_line_with_the_fix(monkeypatch, scheme):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["file", "gs"])
    with pytest.raises(UserError) as caught:
        remote_io.register(f"{scheme}://bucket/data")
    message = str(caught.value)
    assert f"{scheme}://bucket/data" in message
    assert "requirements.lock" in message
    assert "\n" not in message


def test_libraries_that_do_not_load_are_one_line_with_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", sys)  # imports, but registers nothing
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["file", "gs"])
    with pytest.raises(UserError, match="plugins do not load under this TensorFlow"):
        remote_io.register("s3://bucket/data")
