"""Pieces of work: how they are dealt out, and their metrics, as docs/operations.md lists them."""

import json
import pathlib
import re
import subprocess
import sys

from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job.pieces import Pieces
from tests.helpers.beam_metrics import of_manifest, recorded
from tests.helpers.impression_logs import VOCABULARY
from tests.helpers.small_logs import columns, random_events, write_log

ROOT = pathlib.Path(__file__).parents[3]


def _clicks(tmp_path, **more):
    log = columns(random_events(users=25, days=100))
    log["user_id"][:2] = ["", ""]
    path = write_log(tmp_path / "log.csv", log)
    return BuildArguments(
        input=path, output=str(tmp_path / "data"), num_shards=3, max_bad_fraction=0.5, **more
    )


def _impressions(tmp_path):
    rows = 40
    requests = [f"r{row // 4}" for row in range(rows)]
    users = [f"u{row // 4 % 3}" for row in range(rows)]
    users[1] = "u9"  # contradicts its request
    log = {
        "user_id": users,
        "item_id": [f"i{row % 7}" for row in range(rows)],
        "time": [row // 4 for row in range(rows)],
        "session": requests,
        "click": [int(row % 4 == 0) for row in range(rows)],
    }
    schema = {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
            {"name": "time", "role": "timestamp", "dtype": "int64"},
            {"name": "session", "role": "request", "dtype": "string"},
            {"name": "click", "role": "label", "dtype": "int64"},
        ]
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    return BuildArguments(
        input=write_log(tmp_path / "log.jsonl", log),
        schema=str(tmp_path / "schema.json"),
        output=str(tmp_path / "data"),
        num_shards=2,
        max_bad_fraction=0.5,
    )


def _checked(arguments):
    """Builds, compares with the manifest, and returns the number of pieces by name."""
    with recorded() as found:
        data = build_examples(arguments)
    assert found.counters() == of_manifest(data.manifest)
    assert found.counters()["rows_rejected"] > 0
    pieces = found.pieces()
    shards = [shard for split in data.manifest["splits"].values() for shard in split["shards"]]
    assert pieces["write_milliseconds"] == len(shards)
    return pieces


def test_counters_are_the_numbers_of_the_manifest(tmp_path):
    names = set()
    for name, options in (("one", ("--direct_num_workers=1",)), ("many", ())):
        (tmp_path / name).mkdir()
        arguments = _clicks(
            tmp_path / name, protocol="time_split", num_partitions=4, beam_options=options
        )
        pieces = _checked(arguments)
        assert pieces["read_milliseconds"] == 1
        assert pieces["sort_milliseconds"] == pieces["encode_milliseconds"] == 4
        names |= pieces.keys()
    filters = {"min_item_events": 2, "core_filter": "fixed_point"}
    (tmp_path / "core").mkdir()
    names |= _checked(_clicks(tmp_path / "core", protocol="time_split", **filters)).keys()
    (tmp_path / "impressions").mkdir()
    names |= _checked(_impressions(tmp_path / "impressions")).keys()
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+_milliseconds)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(names)


def test_pieces_of_work_are_all_there_once_also_equal_ones():
    with test_pipeline.TestPipeline(runner=FnApiRunner()) as pipeline:
        dealt = pipeline | Pieces(["a", "b", "b"])
        assert dealt.element_type is str
        assert_that(dealt, equal_to(["a", "b", "b"]))


def test_beam_is_no_concern_of_the_garbage_collector_which_goes_on():
    program = (
        "import gc; import pipeline.job.runner; "
        "print(gc.isenabled(), gc.get_freeze_count() > 10 * len(gc.get_objects()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split() == ["True", "True"]
