"""The audit counts the log once more, and says what was not read."""

import gzip
import json

import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import Audit
from pipeline.auditing.log import count_files
from pipeline.build_examples import build_examples
from preprocessing.data_dir import DataDir
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log

HEADER = b"user_id,item_id,timestamp,text\n"


def _rows(users, text=b"t"):
    return [
        b"u%d,i%d,%d,%b" % (u, (7 * u + n) % 50, 100 * n + u, text) for u in users for n in range(5)
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A log of many kinds of lines in four files, built from the directory that holds them."""
    directory = tmp_path_factory.mktemp("log")
    plain = _rows(range(20))
    texts = _rows(range(20, 30), b'"a, b\nc\n\nd"')
    bad = [*_rows(range(30, 40)), b"u1,i1", b"u2,i2,soon,t", b'u3,i3,5,"x"y']
    (directory / "a.csv").write_bytes(HEADER + b"\n".join(plain) + b"\n\n\n")
    (directory / "b.csv").write_bytes(b"\xef\xbb\xbf\n" + HEADER + b"\r\n".join(texts))
    (directory / "c.csv").write_bytes(gzip.compress(HEADER + b"\n".join(bad)))
    (directory / "d.csv").write_bytes(HEADER)
    (directory / "schema.json").write_text(
        json.dumps(
            {
                "features": [
                    *(
                        {
                            "name": f"{r}_id",
                            "role": r,
                            "dtype": "string",
                            "encoder": {"kind": "vocabulary"},
                        }
                        for r in ("user", "item")
                    ),
                    {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
                ]
            }
        )
    )
    with inline():
        data = build_examples(
            BuildArguments(
                input=f"{directory}/*.csv", schema=str(directory / "schema.json"),
                output=str(directory / "data"), num_shards=1, max_bad_fraction=0.1,
            )
        )  # fmt: skip
    return directory, data


@pytest.fixture
def manifest(built):
    return json.loads((built[1].path / "manifest.json").read_text())


def test_the_rows_of_every_file_add_up(built, manifest):
    accounts = {file["path"][-5:]: file for file in manifest["inputs"]}
    assert [
        (name, file["read"], file["rejected"], file["continued"]) for name, file in accounts.items()
    ] == [("a.csv", 100, 0, 0), ("b.csv", 50, 0, 150), ("c.csv", 53, 3, 0), ("d.csv", 0, 0, 0)]
    for file in accounts.values():
        assert file["read"] == file["used"] + file["filtered"] + file["rejected"]
    whole = manifest["conservation"]
    assert whole["read"] == sum(file["read"] for file in accounts.values())
    assert whole["used"] == sum(file["used"] for file in accounts.values()) == 160 + 40


def test_every_line_is_counted_by_other_means(built):
    counted = list(count_files(built[1].manifest))
    assert not any(count.is_bad for count in counted)
    assert "100 lines of rows counted, 100 rows and 0 lines" in counted[0].what
    assert "200 lines of rows counted, 50 rows and 150 lines" in counted[1].what
    assert "53 lines of rows counted, 53 rows and 0 lines" in counted[2].what
    assert "0 lines of rows counted, 0 rows" in counted[3].what


@pytest.mark.parametrize("number", range(4))
def test_rows_that_were_not_read_break_the_promise(built, manifest, number):
    """As if the reader had lost one row, of which no count but the independent one knows."""
    manifest["inputs"][number]["read"] -= 1
    assert [count.is_bad for count in count_files(manifest)] == [n == number for n in range(4)]


def test_the_audit_says_what_each_file_held_and_which_times_each_split_has(built):
    audited = Audit(built[1].path)
    assert audited.run() == {}
    remarks = audited.remarks()
    assert sum(line.startswith("log ") for line in remarks) == 4
    assert any("1 of 4 files have no rows" in line for line in remarks)
    assert any("150 lines are no rows but continue a quoted value" in line for line in remarks)
    # The third, fourth and last event of users 0 to 39 are at 200 + u, 300 + u and 400 + u.
    assert remarks[-3:] == [
        f"time         {name}: {first} to {first + 39}"
        for name, first in (("train", 200), ("validation", 300), ("test", 400))
    ]


def test_files_that_do_not_add_up_are_found(built, manifest, tmp_path):
    data = DataDir.open(built[1].path)
    data.manifest["inputs"][0]["used"] -= 1
    audited = Audit(built[1].path)
    audited._data = data
    finding = audited.run()["conservation"]
    assert "200 rows used, 199 of single files" in finding.examples
    assert any("a.csv do not add up" in example for example in finding.examples)


def test_files_that_are_gone_or_have_changed_are_said(built, manifest, tmp_path):
    manifest["inputs"][0]["path"] = str(tmp_path / "gone\x1b.csv")
    manifest["inputs"][1]["bytes"] += 1
    gone, changed, *_ = count_files(manifest)
    assert not gone.is_bad
    assert not changed.is_bad
    assert gone.what.endswith("gone\\x1b.csv: 100 rows read, not counted: it is gone")
    assert "not counted: it has changed since" in changed.what


@pytest.mark.parametrize("name", ["log.parquet", "log.jsonl.gz"])
def test_other_formats_are_counted_too(tmp_path, name):
    log = columns(random_events(users=20))
    path = write_log(tmp_path / name, log)
    with inline():
        data = build_examples(
            BuildArguments(input=path, output=str(tmp_path / "data"), num_shards=1)
        )
    (count,) = count_files(data.manifest)
    assert f"{len(log['user_id'])} lines of rows counted" in count.what
    assert not count.is_bad


@pytest.mark.parametrize("kind", ["clicks", "impressions"])
def test_rejected_rows_are_those_of_their_file(tmp_path, kind):
    """Of an impression log also rows that contradict their request, in another file or not."""
    rows = [
        f"u{u},i{(7 * u + n) % 50},{100 * n + u},r{u}-{n},1" for u in range(30) for n in range(6)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["user_id,item_id,timestamp,r,l", *rows]))
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp,r,l\nu5,i1,7,r6-1,0\nu5,i2,x,r,0\n")
    features = [
        *(
            {"name": f"{r}_id", "role": r, "dtype": "string", "encoder": {"kind": "vocabulary"}}
            for r in ("user", "item")
        ),
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]
    if kind == "impressions":
        features.append({"name": "r", "role": "request", "dtype": "string"})
        features.append({"name": "l", "role": "label", "dtype": "int64"})
    (tmp_path / "schema.json").write_text(json.dumps({"features": features}))
    with inline():
        data = build_examples(
            BuildArguments(
                input=f"{tmp_path}/*.csv", schema=str(tmp_path / "schema.json"),
                output=str(tmp_path / "data"), num_shards=1, max_bad_fraction=0.1,
            )
        )  # fmt: skip
    files = data.manifest["inputs"]
    assert [file["read"] for file in files] == [180, 2]
    assert [file["rejected"] for file in files] == [0, 2 if kind == "impressions" else 1]
