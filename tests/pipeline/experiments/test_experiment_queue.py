"""The queue of an experiment, with a script in place of training."""

import fcntl
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from models.core import run_directory
from pipeline.experiments import scheduler
from pipeline.experiments.planned_runs import PlannedRun
from pipeline.experiments.recipe import TITLES, Row

# Called as `python -m models.train --config=... --workdir=DIR --resume`. Runs named "slow" never
# end, those named "bad" fail.
_SCRIPT = """#!/bin/bash
run=${4#--workdir=}
echo "$$ $TF_NUM_INTRAOP_THREADS $OMP_NUM_THREADS ${@: -1}" >> "$run.calls"
mkdir -p "$run"
case "$run" in
  *slow*) exec sleep 600 ;;
  *bad*) echo "error: it went wrong"; exit 1 ;;
  *) sleep 0.3 ;;
esac
echo 'METRICS' > "$run/metrics.json"
"""
_METRICS = json.dumps({"test": dict.fromkeys(TITLES, 0.7)})


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A function that plans runs of given names."""
    script = tmp_path / "python"
    script.write_text(_SCRIPT.replace("METRICS", _METRICS))
    script.chmod(0o755)
    monkeypatch.setattr(scheduler.sys, "executable", str(script))
    monkeypatch.setattr(scheduler, "_POLL_SECONDS", 0.02)
    held_out = types.SimpleNamespace(num_requests=lambda split: int(split == "test"))
    data = types.SimpleNamespace(name="data", data=held_out)

    def save(path):
        path.write_text("{}")

    def plan(*names):
        config = types.SimpleNamespace(save=save, model_name="din", ssl_name="none")
        row = Row(label="DIN", settings={})
        return [PlannedRun(row, data, 1, config, tmp_path / "runs" / name) for name in names]

    return plan


def _calls(run):
    file = run.path.with_name(f"{run.name}.calls")
    return file.read_text().splitlines() if file.exists() else []


def _wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_run_is_done_once_with_one_thread(queue):
    planned = queue("a", "b", "a", "c")
    assert scheduler.run_all(planned, jobs=2, progress=False) == []
    for run in planned:
        (call,) = _calls(run)
        assert call.split()[1:] == ["1", "1", "--resume"]
        assert run.is_finished


def test_finished_runs_are_not_repeated(queue):
    planned = queue("a", "b")
    planned[0].path.mkdir(parents=True)
    (planned[0].path / "metrics.json").write_text(_METRICS)
    scheduler.run_all(planned, jobs=2, progress=False)
    scheduler.run_all(planned, jobs=2, progress=False)
    assert [len(_calls(run)) for run in planned] == [0, 1]


def test_a_trial_that_diverges_is_settled_and_any_other_run_has_failed(queue):
    """Numbers that are not finite say that a learning rate is too high, and not twice."""
    planned = queue("bad-trial", "bad-run")
    planned[0] = planned[0]._replace(is_trial=True)
    for run in planned:
        run.path.mkdir(parents=True)
        (run.path / run_directory.DIVERGED).write_text("Expected finite numbers, found NaN.")
    failures = scheduler.run_all(planned, jobs=2, progress=False)
    assert [failure.name for failure in failures] == ["bad-run"]
    assert [len(_calls(run)) for run in planned] == [0, 1]


def test_a_run_of_an_earlier_version_is_measured_anew(queue):
    """Its metrics lack a column of the table."""
    (run,) = queue("a")
    run.path.mkdir(parents=True)
    (run.path / "metrics.json").write_text(json.dumps({"test": {"auc": 0.6}}))
    scheduler.run_all([run], jobs=1, progress=False)
    assert len(_calls(run)) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_as_many_at_a_time_as_asked(queue, monkeypatch, jobs):
    most, running = [0], []
    start = scheduler._start

    def counted(run):
        process = start(run)
        running.append(process)
        most[0] = max(most[0], sum(each.poll() is None for each in running))
        return process

    monkeypatch.setattr(scheduler, "_start", counted)
    scheduler.run_all(queue("a", "b", "c", "d"), jobs=jobs, progress=False)
    assert most[0] == jobs


def test_a_failure_is_reported_and_the_others_go_on(queue):
    planned = queue("bad", "a")
    (failure,) = scheduler.run_all(planned, jobs=1, progress=False)
    assert failure.name == "bad"
    assert failure.last_line == "error: it went wrong"
    assert planned[1].is_finished


def test_a_run_that_another_queue_is_at_is_left_to_it(queue):
    run, other = queue("a", "b")
    run.path.parent.mkdir()
    log = run.path.with_name("a.log")
    with log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        worker = threading.Thread(
            target=lambda: (
                _wait_for(lambda: other.is_finished),
                run.path.mkdir(),
                (run.path / "metrics.json").write_text(_METRICS),
            )
        )
        worker.start()
        scheduler.run_all([run, other], jobs=2, progress=False)
        worker.join()
    assert _calls(run) == []
    assert len(_calls(other)) == 1


def test_a_run_holds_its_lock_as_long_as_it_lives(queue):
    (run,) = queue("slow")
    process = scheduler._start(run)
    try:
        assert scheduler._start(run) is None
    finally:
        process.terminate()
        process.wait()
    started = []
    # What the script itself has started may live a moment longer.
    _wait_for(lambda: started.append(scheduler._start(run)) or started[-1] is not None)
    started[-1].terminate()
    started[-1].wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_interrupted_queue_ends_its_runs(queue, number):
    planned = queue("slow-1", "slow-2")
    before = signal.getsignal(number)

    def interrupt():
        _wait_for(lambda: all(_calls(run) for run in planned))
        os.kill(os.getpid(), number)

    worker = threading.Thread(target=interrupt)
    worker.start()
    with pytest.raises(KeyboardInterrupt):
        scheduler.run_all(planned, jobs=2, progress=False)
    worker.join()
    for run in planned:
        pid = int(_calls(run)[0].split()[0])
        assert not pathlib.Path(f"/proc/{pid}").exists()
    assert signal.getsignal(number) == before


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_knows_when_it_will_be_done(queue, monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    planned = queue("a", "b", "c")
    planned[0].path.mkdir(parents=True)
    (planned[0].path / "metrics.json").write_text(_METRICS)
    (planned[0].path / "metrics.csv").write_text("step,seconds\n1,30\n2,3600\n")
    bar = scheduler._Bar(planned, jobs=2, progress=True)
    bar.update(planned[1:], {})
    with bar.shown:
        assert "about 1:00:00 to go" in bar.shown.postfix  # Two runs of an hour, two at a time.
    assert "1/3 runs" in sys.stderr.getvalue()


def test_a_log_has_a_line_for_each_run(queue, capsys):
    planned = queue("a", "b", "c")
    bar = scheduler._Bar(planned, jobs=2, progress=True)
    with bar.shown:
        bar.update(planned, {})
        bar.done(planned[1], 65.0)
    assert capsys.readouterr().err == f"1/3 runs  {planned[1].name}  01:05\n"


@pytest.mark.slow
def test_training_goes_on_where_it_was_killed(tmp_path):
    """The command, killed with its training, then run again to the end."""
    from pipeline.experiments import quick

    data = quick.build_data("leave_last_out", tmp_path)
    command = [
        sys.executable,
        "-m",
        "pipeline.experiment",
        "--table=miss/fig5",
        f"--data={data}",
        "--seeds=1",
        "--learning_rate=0.001",
        f"--workdir={tmp_path / 'work'}",
    ]
    root = pathlib.Path(__file__).parents[3]
    started = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    _wait_long_for(lambda: list((tmp_path / "work").glob("runs/*/checkpoints/*.index")))
    started.send_signal(signal.SIGTERM)
    _, error = started.communicate()
    assert started.returncode == 130, error
    assert "run the same command to continue" in error
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 finished" in done.stdout
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("work/runs/*/metrics.json")}
    assert len(before) == 3
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert before == {file: file.stat().st_mtime_ns for file in before}


def _wait_long_for(condition):
    for _ in range(6):
        try:
            _wait_for(condition)
        except AssertionError:
            continue
        return
    raise AssertionError("waited three minutes")
