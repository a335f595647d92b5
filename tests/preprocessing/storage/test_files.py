"""Paths of this machine and of object stores; the stores are directories that stand in for them."""

import io
import pathlib
import pickle

import pyarrow as pa
import pytest
from pyarrow import fs

from preprocessing.errors import UserError
from preprocessing.storage import files, remote_path
from preprocessing.storage.remote_path import RemotePath


@pytest.fixture(params=["s3", "gs"])
def bucket(request, tmp_path, monkeypatch):
    """An empty bucket of each kind."""
    (tmp_path / "remote" / "bucket").mkdir(parents=True)
    stand_in = _ObjectStore(str(tmp_path / "remote"), fs.LocalFileSystem())
    monkeypatch.setattr(remote_path, "_file_system", lambda bucket: stand_in)
    return files.path(f"{request.param}://bucket")


class _ObjectStore(fs.SubTreeFileSystem):
    """Makes directories as they are needed."""

    def open_output_stream(self, path, **options):
        self.create_dir(str(pathlib.PurePosixPath(path).parent))
        return super().open_output_stream(path, **options)


def _names(paths):
    return [path.name for path in paths]


def test_a_remote_path_is_used_like_a_local_one(bucket, tmp_path):
    for root in (bucket / "a", tmp_path / "a"):
        path = root / "b.txt"
        assert (path.name, path.stem, path.suffix) == ("b.txt", "b", ".txt")
        assert path.parent == root
        assert path.with_name("c").name == "c"
        assert path.with_suffix(".md").name == "b.md"
        assert not path.exists()
        path.unlink(missing_ok=True)
        for call in (path.read_bytes, path.unlink, path.stat, lambda path=path: path.open("rb")):
            with pytest.raises(FileNotFoundError):
                call()
        root.mkdir(exist_ok=True)
        path.write_text("ü\n", encoding="utf-8")
        (root / "empty").touch()
        assert path.is_file()
        assert not path.is_dir()
        assert root.is_dir()
        assert not root.is_file()
        assert path.read_text(encoding="utf-8") == "ü\n"
        assert path.stat().st_size == 3
        assert (root / "empty").read_bytes() == b""
        assert _names(sorted(root.iterdir())) == ["b.txt", "empty"]
        assert _names(root.glob("*.txt")) == ["b.txt"]
        assert _names(files.children(root)) == ["b.txt", "empty"]
        path.unlink()
        assert not path.exists()
        files.remove_tree(root)
        files.remove_tree(root)
        assert not root.exists()


def test_names_of_remote_paths():
    path = files.path("s3://bucket//a/b/")
    assert str(path) == "s3://bucket/a/b"
    assert str(path.bucket) == str(path.parent.parent) == "s3://bucket"
    assert path == pickle.loads(pickle.dumps(path)) == RemotePath("s3://bucket/a/b")
    assert len({path, RemotePath("s3://bucket/a/b"), RemotePath("gs://bucket/a/b")}) == 2
    assert files.path(path) is path
    assert isinstance(files.path("data/s3"), pathlib.Path)


def test_the_content_is_seekable_text(bucket, tmp_path):
    def look(path):
        path.write_bytes(b"a\nb\nc\n" * 1000)
        with path.open("rb") as file:
            yield file.readline()
            yield file.tell()
            yield file.readlines(1500)
            yield file.seek(6)
            yield io.TextIOWrapper(file).readlines()

    assert list(look(bucket / "log.csv")) == list(look(tmp_path / "log.csv"))
    with pytest.raises(ValueError, match="only reading"):
        bucket.open("wb")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b not really gzip", b"x" * 100_000])
def test_bytes_are_stored_as_they_are(bucket, tmp_path, content):
    for path in (bucket / "x.gz", tmp_path / "y" / "x.gz"):
        files.write_bytes(path, content)
        assert path.read_bytes() == content
        with files.create(path) as file:
            file.write(content)
            file.write(content)
        assert path.read_bytes() == content * 2


def test_a_new_file_is_complete_or_not_there(bucket, tmp_path):
    for path in (bucket / "new", tmp_path / "new"):
        path.write_bytes(b"old")
        with pytest.raises(RuntimeError, match="stop"):
            _write_half(path)
        assert path.read_bytes() == b"old"
        assert _names(path.parent.glob("*new*")) == ["new"]


def _write_half(path):
    with files.create(path) as file:
        file.write(b"half")
        assert path.read_bytes() == b"old"
        raise RuntimeError("stop")


def test_arrow_reads_both(bucket, tmp_path):
    table = pa.table({"x": [1, 2]})
    for path in (bucket / "t.arrow", tmp_path / "t.arrow"):
        with files.create(path) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        with files.random_access(path) as source:
            assert pa.ipc.open_file(source).read_all().equals(table)


def test_patterns(bucket, tmp_path):
    for root in (bucket, tmp_path / "local"):
        for name in ("a/1.csv", "a/2.csv", "a/.3.csv", "b/1.csv", "b/1.json", "b/c/1.csv"):
            files.write_bytes(root / name, b"x")

        def found(pattern, root=root):
            return [
                str(p)[len(str(root)) + 1 :] for p in files.find(f"{root}/{pattern}", "--input")
            ]

        assert found("a/*.csv") == ["a/1.csv", "a/2.csv"]
        assert found("*/1.csv") == ["a/1.csv", "b/1.csv"]
        assert found("?/c/[0-9].csv") == ["b/c/1.csv"]
        assert found("*/2.csv") == ["a/2.csv"]
        assert found("b/*.parquet") == []
        assert found("b/nothing") == ["b/nothing"]


def test_relative_and_absolute():
    base = pathlib.Path("/runs/1")
    for url in ("s3://bucket/data", "gs://bucket/data"):
        assert files.absolute(url, base) == files.relative(url, base) == url
    assert files.absolute("../../data", base) == "/data"
    assert files.relative("/data", base) == "../../data"


@pytest.mark.parametrize("location", ["s3:/b/k", "s3:///k", "az://c/k", "hdfs:/k", "file:///k"])
def test_what_is_no_path(location):
    with pytest.raises(UserError, match=f"--data: expected a path, .* found {location}"):
        files.path(location, "--data")
    with pytest.raises(UserError, match="--workdir: expected a path of this machine"):
        files.require_local(location, "--workdir")
    files.require_local("runs/1", "--workdir")


def test_an_object_store_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(remote_path, "_file_system", remote_path._file_system.__wrapped__)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(
        UserError, match="expected an address with its scheme, .* http://127.0.0.1:9"
    ):
        RemotePath("s3://bucket/key").exists()

    def refuse(bucket):
        raise OSError("AWS Error ACCESS_DENIED")

    monkeypatch.setattr(remote_path, "_file_system", refuse)
    with pytest.raises(
        UserError, match="access to s3://bucket/key, found: AWS Error ACCESS_DENIED"
    ):
        RemotePath("s3://bucket/key").read_bytes()
