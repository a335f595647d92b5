"""What a process remembers of its part in a run: time by phase, memory, where it ran."""

import shlex
import sys

import pytest

from models.core import provenance, run_directory
from models.keras import tf
from models.training import sessions
from models.training.memory import MemoryEstimate


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    return now


class _Worker:
    def __init__(self, session, clock):
        self.session, self._clock = session, clock

    @sessions.phase("training")
    def train(self, seconds):
        self._clock[0] += seconds
        with pytest.raises(ZeroDivisionError):
            self.evaluate()
        self._clock[0] += seconds
        return "done"

    @sessions.phase("evaluation")
    def evaluate(self):
        self._clock[0] += 5.0
        return 1 / 0


def test_every_second_belongs_to_one_phase(tmp_path, clock):
    session = sessions.Session(tmp_path)
    clock[0] += 2.0
    assert _Worker(session, clock).train(3.0) == "done"
    clock[0] += 1.0
    session.save(7)
    (entry,) = run_directory.read_sessions(tmp_path)
    assert entry["seconds"] == {"preparation": 3.0, "training": 6.0, "evaluation": 5.0}
    assert entry["last_step"] == 7


def test_a_process_that_resumes_adds_its_entry(tmp_path):
    for step in (3, 8):
        session = sessions.Session(tmp_path)
        session.expect(MemoryEstimate(1, 2, 3, 4, copies=2))
        session.save(step - 1)
        session.save(step)
    entries = run_directory.read_sessions(tmp_path)
    assert [entry["last_step"] for entry in entries] == [3, 8]
    assert entries[0]["memory_estimate"]["total"] == 20
    assert 0 < entries[0]["memory_before"] <= entries[0]["memory_peak"]


def test_what_a_warm_start_took_over_is_remembered(tmp_path):
    session = sessions.Session(tmp_path)
    session.began_with(["item_id: 3 rows taken over", "22 other weights taken over, 0 new"])
    session.save(0)
    (entry,) = run_directory.read_sessions(tmp_path)
    assert entry["warm_start"][1] == "22 other weights taken over, 0 new"


def test_of_several_processes_one_writes(tmp_path):
    session = sessions.Session(tmp_path, writes=False)
    session.expect(MemoryEstimate(1, 2, 3, 4))
    session.save(3)
    assert run_directory.read_sessions(tmp_path) == []


@pytest.mark.parametrize(
    ("main", "program", "expected"),
    [
        ("models.train", "/x/models/train.py", "python -m models.train"),
        ("serving.goldens", "/x/__main__.py", "python -m serving.goldens"),
        (None, "/x/bin/ctr-train", "ctr-train"),
        (None, "mine.py", "python mine.py"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch, main, program, expected):
    spec = None if main is None else type("Spec", (), {"name": main})
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [program, "--data=a b", "--set=x=1"])
    assert provenance.command() == f"{expected} '--data=a b' --set=x=1"
    assert shlex.split(provenance.command())[-2] == "--data=a b"


def test_code_versions_and_machine(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert provenance.versions()["tensorflow"] == tf.__version__
    machine = provenance.machine()
    assert machine["cores"] >= 1
    assert machine["memory"] > 1 << 28
    assert machine["environment"]["OMP_NUM_THREADS"] == "3"


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert set(provenance.code()) == {"version"}
