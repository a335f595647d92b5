"""Builds that are killed, run out of space or may not write: nothing wrong is left behind."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.errors import UserError, explained_write_errors
from tests.helpers.small_logs import columns, random_events, write_log

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def directory(tmp_path):
    write_log(tmp_path / "log.csv", columns(random_events(users=15)))
    return tmp_path


def _scenario(name, directory):
    """What `dying_builds.py` reports, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.dying_builds", name, str(directory)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_killed_build_never_looks_complete_and_its_rerun_is_byte_identical(directory):
    found, _ = _scenario("random_kills", directory)
    assert len(found["outcomes"]) == 20
    assert all(outcome["right"] for outcome in found["outcomes"])
    assert sum(outcome["killed"] for outcome in found["outcomes"]) >= 10
    assert found["rerun_is_equal"]


@pytest.mark.slow
def test_twenty_killed_builds_are_resumed_and_repeat_no_finished_step(directory):
    stages = {"read": "Reading", "fit": "Counting values", "write": "Writing"}
    outcomes = _scenario("resumed_kills", directory)[0]["outcomes"]
    assert len(outcomes) == 20
    assert all(outcome["right"] for outcome in outcomes)
    assert sum(bool(outcome["finished"]) for outcome in outcomes if outcome["killed"]) >= 5
    for outcome in outcomes:
        for step in outcome["finished"]:
            assert stages.get(step) not in outcome["stages"], outcome


@pytest.mark.slow
def test_death_at_any_rename_leaves_nothing_that_looks_complete(directory):
    found, _ = _scenario("every_rename", directory)
    assert found["renames"] > 20
    assert found["wrong"] == []
    assert found["rerun_is_equal"]


def test_a_full_disk_is_one_clear_error_wherever_it_strikes(directory):
    found, errors = _scenario("full_disk", directory)
    assert len(found) == 5
    assert all(outcome == {"status": 3, "complete": None} for outcome in found.values()), errors
    lines = [line for line in errors.splitlines() if line.startswith("UserError")]
    assert lines == [
        f"UserError: --output: expected to write {directory / 'data'}, found: File too large. "
        f"{directory / 'data'} holds no data set now, only parts of one, with which --resume goes "
        "on (ctr-run does so by itself). Fix: free space or rights there, or choose another "
        "place."
    ] * 5  # fmt: skip


def test_the_command_says_so_in_one_line(directory):
    # Set in the new process itself: what runs between fork and exec can wait for another thread.
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "-m", "pipeline.build_examples",
         f"--input={directory / 'log.csv'}", f"--output={directory / 'data'}", "--num_shards=1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        # Python would leave bytecode cut at the limit in the environment, for every later process.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert errors == [done.stderr.splitlines()[-1]]
    assert "found: File too large." in errors[0]
    assert "Fix: free space" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (directory / "data" / "_COMPLETED").exists()


@pytest.mark.parametrize("output", ["/sys/data", "log.csv/data"])
def test_a_place_that_cannot_be_written_to_is_named(directory, output):
    target = directory / output
    arguments = BuildArguments(input=str(directory / "log.csv"), output=str(target))
    with pytest.raises(UserError, match=rf"--output: expected to write {target}, found: "):
        build_examples(arguments)


def test_other_errors_stay_what_they_are():
    for error in (FileNotFoundError(2, "gone"), RuntimeError("a bug"), UserError("mistake")):
        with pytest.raises(type(error)) as caught, explained_write_errors("--output", "data"):
            raise error
        assert caught.value is error
    quoted = RuntimeError("in a worker: OSError: [Errno 28] No space left on device")
    with (
        pytest.raises(UserError, match="No space left on device"),
        explained_write_errors("--output", "data"),
    ):
        raise quoted


def test_a_pattern_that_matches_nothing_is_named_before_anything_is_made(tmp_path):
    pattern = str(tmp_path / "logs" / "*.csv")
    with pytest.raises(UserError, match=r"--input: expected .*found none|no file"):
        build_examples(BuildArguments(input=pattern, output=str(tmp_path / "data")))
    assert list(tmp_path.iterdir()) == []
