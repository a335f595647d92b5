"""Logs and data sets on S3, played by a server on this machine."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pyarrow.fs
import pytest
import tensorflow as tf
from moto.server import ThreadedMotoServer

from models.config.run_config import resolve
from models.train import train
from pipeline import run as pipeline_run
from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.storage import files, tensorflow_files
from tests.helpers.small_logs import columns, random_events, write_log

_IS_DEFAULT_LANE = tf.__version__.startswith("2.17.")


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket; the environment says where it is."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        url = f"s3://logs-{port}"  # file systems are kept by bucket
        options = "allow_bucket_creation=true"
        store, path = pyarrow.fs.FileSystem.from_uri(f"{url}?{options}")
        store.create_dir(path)
        yield files.path(url)
    server.stop()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    log = columns(random_events(seed=6, users=40))
    log["item_id"][:2] = ["", "\r\n"]  # two bad rows
    path = tmp_path_factory.mktemp("local") / "log.csv"
    write_log(path, log)
    return path


@pytest.fixture(scope="module")
def data(bucket, log) -> DataDir:
    """A data set that was built from a log on S3 to S3."""
    for name in ("one.csv", "two.csv.txt"):
        (bucket / "logs" / name).upload(log)
    return build_examples(_arguments(f"{bucket}/logs/*.csv", f"{bucket}/data"))


def _arguments(input_: str, output: str, **more) -> BuildArguments:
    return BuildArguments(
        input=input_, output=output, num_shards=2, num_partitions=2, max_bad_fraction=0.1, **more
    )


def _contents(directory) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in files.children(directory) if path.is_file()}


def test_a_data_set_on_s3_is_that_of_this_machine(bucket, data, log, tmp_path):
    local = build_examples(_arguments(str(log), str(tmp_path / "data")))
    found, expected = _contents(data.path), _contents(local.path)
    # The manifest tells the input and its files, the rejected rows tell their file.
    assert data.manifest.pop("arguments") != local.manifest.pop("arguments")
    for (account,) in (data.manifest["inputs"], local.manifest["inputs"]):
        assert account.pop("path").endswith(".csv")
    assert data.manifest == local.manifest
    del found["manifest.json"], expected["manifest.json"]
    assert found == expected
    assert _contents(data.vocab_dir) == _contents(local.vocab_dir)
    rejected, expected = _contents(data.path / "rejected"), _contents(local.path / "rejected")
    assert len(expected) == 1
    for name, content in rejected.items():
        assert (
            content.replace(f"{bucket}/logs/one.csv".encode(), str(log).encode()) == expected[name]
        )
    assert not (data.path / "_work").exists()
    assert audit(str(data.path)) == {}


@pytest.mark.slow
def test_an_interrupted_build_on_s3_is_refused_and_built_again(bucket, data, log, tmp_path):
    arguments = _arguments(str(log), f"{bucket}/again", work_dir=str(tmp_path / "work"))
    first = build_examples(arguments)
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(UserError, match="found a complete one.*--overwrite"):
        build_examples(arguments)
    (first.path / "_COMPLETED").unlink()
    with pytest.raises(UserError, match="found no _COMPLETED"):
        DataDir.open(f"{bucket}/again")
    assert build_examples(arguments).fingerprint == first.fingerprint
    (first.path / "train-00000-of-00002.tfrecord.gz").write_bytes(b"")
    with pytest.raises(UserError, match="train-00000-of-00002.tfrecord.gz with SHA-256"):
        DataDir.open(f"{bucket}/again")
    with pytest.raises(UserError, match="expected a file at .*/nothing.csv, found nothing"):
        build_examples(_arguments(f"{bucket}/nothing.csv", str(tmp_path / "x")))
    with pytest.raises(UserError, match="access to s3://nobody/data"):
        build_examples(_arguments(str(log), "s3://nobody/data"))


@pytest.mark.slow
@pytest.mark.skipif(not _IS_DEFAULT_LANE, reason="tensorflow-io belongs to the default lane")
def test_training_reads_s3_and_ends_with_status_0(data, tmp_path):
    command = [sys.executable, "-m", "models.train", f"--data={data.path}", "--model=lr"]
    command += [f"--workdir={tmp_path / 'run'}", "--max_steps=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test: AUC" in done.stdout
    assert (tmp_path / "run" / "metrics.json").exists()


def test_without_tensorflow_io_training_names_the_default_lane(monkeypatch):
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: ["gs", ""])
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    tensorflow_files.enable(files.path("data"))
    tensorflow_files.enable(files.path("gs://bucket/data"))
    with pytest.raises(UserError, match=r"Expected tensorflow-io to read .* default lane"):
        tensorflow_files.enable(files.path("s3://logs/data"))


def test_a_run_on_s3_is_refused_before_anything_is_made(tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    arguments = _arguments(str(log), "s3:/logs/run/data")
    config = resolve({"data": arguments.output, "model": {"name": "lr"}})
    for run in (
        lambda url: pipeline_run.run(arguments, config, url),
        lambda url: train(config, url),
    ):
        with pytest.raises(UserError, match="--workdir: expected a path of this machine"):
            run("s3://logs/run")
    assert list(tmp_path.iterdir()) == []
