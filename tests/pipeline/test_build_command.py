"""The commands as a user types them."""

import pathlib
import subprocess
import sys

import pytest

from pipeline.job.runner import check_options
from preprocessing.errors import UserError
from tests.helpers.small_logs import columns, random_events, write_log

ROOT = pathlib.Path(__file__).parents[2]


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_build_then_audit(tmp_path):
    log = write_log(tmp_path / "log.csv", columns(random_events()))
    data = tmp_path / "data"
    done = _run("pipeline.build_examples", f"--input={log}", f"--output={data}", "--num_shards=2",
                "--direct_num_workers=2", "--direct_running_mode=multi_threading")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"name": "category_id"' in done.stdout
    assert "rows read" in done.stderr
    assert "WARNING" not in done.stderr
    audited = _run("pipeline.audit", str(data))
    assert audited.returncode == 0, audited.stderr
    assert "FAILED" not in audited.stdout
    assert audited.stdout.count(" ok: ") == 14


def test_a_mistake_is_one_line(tmp_path):
    log = write_log(tmp_path / "log.csv", columns(random_events()))
    (tmp_path / "log.csv").write_bytes((tmp_path / "log.csv").read_bytes() + b"bad,row\n" * 99)
    done = _run("pipeline.build_examples", f"--input={log}", f"--output={tmp_path / 'data'}")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Reading")]
    assert line.startswith("error: Expected at most 1.00% bad rows, found 99 of ")


def test_flags_of_nobody_are_refused_and_those_of_beam_are_not():
    check_options(["--runner=FlinkRunner", "--direct_num_workers=2", "--job_name", "x"], ["output"])
    with pytest.raises(UserError, match="found '--ouptut=x'. Fix: did you mean --output?"):
        check_options(["--ouptut=x"], ["output", "input"])
    with pytest.raises(UserError, match="found '--epochs=5'. Fix: write --set=train.epochs=5."):
        check_options(["--epochs=5"], ["output"], lambda name, _: f"write --set=train.{name}=5.")
    with pytest.raises(UserError, match="found 'DATA'. Fix: see --help"):
        check_options(["DATA"], ["output"])
