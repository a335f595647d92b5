"""Values that are ranked and described bucket by bucket give the bytes of all values at once."""

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.log import sorted_runs, tables
from pipeline.requests import events
from preprocessing.values import value_places
from tests.helpers import all_kinds_logs, many_logs
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log

PARTITIONS = 7


def _content(data):
    return {
        str(path.relative_to(data.path)): path.read_bytes()
        for path in data.path.rglob("*")
        if path.is_file() and path.suffix not in (".html", ".md", ".json")
    }


def _facts(data):
    """What is known of a data set beside its files; where its log lies is left out."""
    manifest = {name: data.manifest[name] for name in ("conservation", "cutoffs", "tails")}
    return manifest, data.stats


def _of_all_kinds(path, **arguments):
    return all_kinds_logs.write_data(path, num_partitions=PARTITIONS, **arguments)


def _of_sets(path, **arguments):
    return many_logs.write_data(path, num_partitions=PARTITIONS, **arguments)


def _of_impressions(path, **arguments):
    content = many_logs.schema()
    content["features"].append({"name": "label", "role": "label", "dtype": "int64"})
    log = many_logs.rows(longest=14)
    for number, row in enumerate(log):
        row["label"] = int(number % 3 == 0)
    arguments |= {"negatives": 0, "protocol": "time_split", "train_prefixes": "last"}
    return many_logs.write_data(path, log, content, num_partitions=PARTITIONS, **arguments)


def _of_clicks(path, **arguments):
    path.mkdir()
    log = write_log(path / "log.csv", columns(random_events(users=60, items=40)))
    with inline(0):
        return build_examples(
            BuildArguments(
                input=log, output=str(path / "data"), num_partitions=PARTITIONS, **arguments
            )
        )


@pytest.fixture
def few_at_once(monkeypatch):
    """A bucket for each partition, of which three rows are read at once; values are searched."""
    monkeypatch.setattr(events, "PARTITIONS_PER_BUCKET", 1)
    monkeypatch.setattr(sorted_runs, "BLOCK_ROWS", 3)
    monkeypatch.setattr(value_places, "_FEW", 0)
    monkeypatch.setattr(value_places, "_MANY", 0)


@pytest.mark.parametrize(
    ("write", "arguments"),
    [
        (_of_all_kinds, {"protocol": "time_split"}),
        (_of_clicks, {"negative_sampling": "available_popularity", "protocol": "time_split"}),
        (_of_all_kinds, {"min_item_events": 3}),
        (_of_sets, {"negative_sampling": "popularity"}),
        (_of_impressions, {}),
    ],
)
def test_buckets_change_no_byte(tmp_path, request, write, arguments):
    at_once = write(tmp_path / "at_once", **arguments)
    request.getfixturevalue("few_at_once")
    in_buckets = write(tmp_path / "in_buckets", **arguments)
    assert _content(in_buckets) == _content(at_once)
    assert _facts(in_buckets) == _facts(at_once)


@pytest.mark.parametrize("sampling", ["uniform", "available"])
def test_the_driver_never_has_all_values(tmp_path, few_at_once, monkeypatch, sampling):
    """The values of categories are read from one bucket at a time, or merged block by block."""
    largest = 0

    def merged(paths, order):
        nonlocal largest
        for piece in sorted_runs_merged(paths, order):
            largest = max(largest, piece.num_rows)
            yield piece

    def refuse(directory, key):
        raise AssertionError(f"all of {directory} was read")

    sorted_runs_merged = sorted_runs.merged
    monkeypatch.setattr(sorted_runs, "merged", merged)
    monkeypatch.setattr(tables, "read_buckets", refuse)
    rarest = 2 if sampling == "uniform" else 1
    data = _of_clicks(tmp_path / "log", negative_sampling=sampling, min_item_events=rarest)
    assert 0 < largest <= 2 * 3 * PARTITIONS
    assert len(data.encoders["item_id"].vocabulary) > 20
