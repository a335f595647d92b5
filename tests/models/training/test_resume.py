"""Work is never lost: SIGTERM, kill -9, damaged checkpoints, full disks."""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.core.checkpoints import Checkpoints
from models.core.factory import build_model, compile_model
from models.evaluation.scoring import Scorer
from models.keras import tf
from models.training import trainer
from models.training.interruption import Interrupted, on_stop_signals
from models.training.updates import Updates
from preprocessing.errors import UserError
from tests.helpers.python_runs import python


def _config(data, **settings):
    """Six steps per epoch, twelve steps."""
    plain = {"batch_size": 50, "max_steps": 12, "learning_rate": 0.01}
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": "tests.reference.counting_model:CountingLR", "embedding_size": 4},
            "train": plain | settings,
        }
    )


@pytest.fixture(autouse=True)
def evaluate_often(monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)


def _last(path):
    return max((path / "checkpoints").glob("*.index"), key=lambda p: int(p.stem[5:]))


def _weights(path):
    """Everything in the last checkpoint but for the clock."""
    reader = tf.train.load_checkpoint(str(_last(path).with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in name and not name.startswith("state")
    }


def _require_same(whole, parts):
    """Weights and tables of both runs are equal to the last bit."""
    expected, found = _weights(whole), _weights(parts)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    tables = [pd.read_csv(path / "metrics.csv") for path in (whole, parts)]
    timed = ["seconds", *tables[0].filter(like="speed/").columns]
    pd.testing.assert_frame_equal(*(table.drop(columns=timed) for table in tables))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "EVALUATION_INTERVAL", 4)
        train.train(_config(data), path, progress=False)
    return path


@pytest.fixture(scope="module")
def model(data):
    run = _config(data)
    built = build_model(run, data)
    compile_model(built, run)
    built.build_optimizers()
    return built


def test_every_request_is_trained_on_once_per_epoch(whole, data):
    counts = _weights(whole)["model/backbone/counts/.ATTRIBUTES/VARIABLE_VALUE"]
    users = data.encoders["user_id"].cardinality - data.encoders["user_id"].num_oov - 1
    assert users == data.num_requests("train") == 300
    assert sorted(counts, reverse=True)[: users + 1] == [2.0] * users + [0.0]


@pytest.mark.parametrize("place", ["step", pytest.param("evaluation", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("number", "name", "status"), [(signal.SIGTERM, "SIGTERM", 0), (signal.SIGINT, "Ctrl-C", 130)]
)
def test_a_signal_writes_a_checkpoint_and_ends_well(
    data, whole, tmp_path, monkeypatch, place, number, name, status
):
    """In the seventh step, and in the evaluation that follows the eighth."""
    path = tmp_path / "a run"
    owner, method = {
        "step": (Updates, "__call__"),
        "evaluation": (Scorer, "_collect"),
    }[place]
    original = getattr(owner, method)
    calls = iter(range(1, 1000))
    fatal = {"step": 7, "evaluation": 2}[place]

    def signalled(*args, **kwargs):
        if next(calls) == fatal:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, signalled)
        with pytest.raises(Interrupted) as stopped:
            train.train(_config(data), path, progress=False)
    assert stopped.value.code == status
    done = {"step": 7, "evaluation": 8}[place]
    assert stopped.value.message == (
        f"stopped by {name} at step {done}; resume with "
        f"python -m models.train --workdir='{path}' --resume"
    )
    assert _last(path).stem == f"ckpt-{done}"
    train.train(_config(data), path, resume=True, progress=False)
    _require_same(whole, path)


def test_a_second_ctrl_c_does_not_wait(data, tmp_path, monkeypatch):
    def signalled(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the step went on")

    monkeypatch.setattr(Updates, "__call__", signalled)
    with pytest.raises(Interrupted) as stopped:
        train.train(_config(data), tmp_path / "run", progress=False)
    assert stopped.value.code == 130
    assert stopped.value.message == (
        "stopped by Ctrl-C; resume with "
        f"python -m models.train --workdir={tmp_path / 'run'} --resume"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_as_before_outside_of_a_run(number):
    before = signal.getsignal(number)
    with on_stop_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.number == number
    assert signal.getsignal(number) is before


def test_ctrl_c_that_a_shell_keeps_away_is_kept_away():
    """Shells let what runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with on_stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def _damage(path, how):
    """Flips a bit in the middle, cuts the file short, or removes it."""
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        (".data-00000-of-00001", "flip"),
        (".data-00000-of-00001", "cut"),
        (".data-00000-of-00001", "remove"),
        (".index", "flip"),
        (".index", "cut"),
    ],
)
def test_a_damaged_checkpoint_gives_way(model, whole, tmp_path, capsys, suffix, how):
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    last = _last(tmp_path)
    _damage(last.with_suffix(suffix), how)
    assert Checkpoints(model, last.parent).restore()["step"] == 8
    assert int(model.optimizer.iterations) == 8
    told = capsys.readouterr().err
    assert f"{last.with_suffix('')} is damaged" in told
    assert told.endswith("ckpt-8.\n")
    assert not list(last.parent.glob("ckpt-12*"))


@pytest.mark.slow
def test_a_run_with_a_damaged_checkpoint_ends_as_any_other(data, whole, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    _damage(_last(path), "remove")
    train.train(_config(data), path, resume=True, progress=False)
    _require_same(whole, path)


def test_damage_everywhere_is_an_error(model, whole, tmp_path):
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    for file in (tmp_path / "checkpoints").glob("*.data*"):
        _damage(file, "flip")
    with pytest.raises(UserError, match="can be read; .*ckpt-12 is damaged .*ckpt-8 is damaged"):
        Checkpoints(model, tmp_path / "checkpoints").restore()


def test_a_full_disk_leaves_the_checkpoint_before(model, tmp_path, monkeypatch):
    checkpoints = Checkpoints(model, tmp_path)
    checkpoints.save(1, {"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # A bound on the size of files stops the writer half-way, as a full disk does. Python would cut
    # bytecode there too and leave it in the environment.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"File too large.*ckpt-1 is as it was.*free space"):
            checkpoints.save(2, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert checkpoints.restore() == {"step": 1}
    checkpoints.save(2, {"step": 2})
    assert checkpoints.restore() == {"step": 2}


def test_what_killed_writers_left_behind_goes(model, tmp_path):
    Checkpoints(model, tmp_path).save(3, {})
    (tmp_path / "ckpt-4_temp").mkdir()
    (tmp_path / "ckpt-4_temp" / "part-0").touch()
    (tmp_path / "ckpt-4.data-00000-of-00001").touch()
    (tmp_path / "ckpt-3.index.tempstate123").touch()
    (tmp_path / "notes.txt").touch()
    checkpoints = Checkpoints(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ckpt-3.index",
        "ckpt-3.data-00000-of-00001",
        "notes.txt",
    }
    for number in (4, 5):
        checkpoints.save(number, {})
    assert {path.stem for path in tmp_path.glob("*.index")} == {"ckpt-4", "ckpt-5"}


def test_checkpoints_between_evaluations(data, tmp_path, monkeypatch):
    """They come when the last one is old enough."""
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda it, step, state: saved.append(step) or save(it, step, state)
    )
    monkeypatch.setattr(Updates, "__call__", lambda *args: {"loss": 0.5})
    run = _config(data, max_steps=4, checkpoint_minutes=1e-9)
    trainer.Trainer(run, tmp_path, progress=False).fit()
    assert saved == [1, 2, 3, 4, 4]


_SERVER = """
import os, signal, sys, threading, time
sys.path[:0] = {path!r}
from models import train
from models.config import run_config
from models.keras import tf
from models.training import trainer
from models.training.updates import Updates

trainer.EVALUATION_INTERVAL = 2
trainer.LOG_EVERY = 3


def die(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(seconds):
    threading.Thread(target=die, args=(seconds,), daemon=True).start()


def run(file, workdir, place, seconds):
    if place == "start":
        die_after(float(seconds))
    elif place == "step":
        update = Updates.__call__

        def first(*args):
            Updates.__call__ = update
            die_after(float(seconds))
            return update(*args)

        Updates.__call__ = first
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    train.train(run_config.resolve(run_config.load(file)), workdir, resume=True, progress=False)


for line in sys.stdin:
    child = os.fork()
    if not child:
        run(*line.rstrip().split("\t"))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class _Children:
    """Runs in processes that are forked after all imports; time is that of their processor."""

    def __init__(self):
        code = _SERVER.format(path=[str(pathlib.Path(__file__).parents[3])])
        self._server = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(self, file, workdir, place="never", seconds=0.0):
        """Exit status of a run that is killed so many seconds after its start or first step."""
        self._server.stdin.write(f"{file}\t{workdir}\t{place}\t{seconds}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self):
        self._server.stdin.close()
        self._server.wait()


@pytest.mark.slow
def test_thirty_kills_change_nothing(data, tmp_path):
    """In every phase: start, pre-training, training, evaluation, writing of checkpoints."""
    moments = random.Random(6)
    kills, chains = 0, 0
    children = _Children()
    settings = {"deterministic": True, "max_steps": 60, "patience": 100}
    plain = _config(data, **settings).to_json()
    stages = {"pretrain_epochs": 2, "ssl_steps": 1}
    phases = {**plain, "ssl": {"name": "rule"}, "train": plain["train"] | stages}
    for content in (plain, phases):
        file, whole = tmp_path / "config.json", tmp_path / f"whole-{content['ssl']['name']}"
        file.write_text(json.dumps(content))
        assert children.train(file, whole) == 0
        goal = kills + 15
        while kills < goal:
            path = tmp_path / f"run-{chains}"
            chains += 1
            status = -signal.SIGKILL
            while status:
                assert status == -signal.SIGKILL
                place = "never" if kills == goal else moments.choice(["step"] * 4 + ["start"])
                seconds = moments.uniform(0.0, {"step": 1.0, "start": 3.0, "never": 0.0}[place])
                status = children.train(file, path, place, seconds)
                kills += status != 0
            _require_same(whole, path)
            shutil.rmtree(path)
    children.close()
    assert kills == 30
    counts = _weights(whole)["model/backbone/counts/.ATTRIBUTES/VARIABLE_VALUE"]
    assert counts.sum() == 60 / 6 * data.num_requests("train")


@pytest.mark.slow
def test_deterministic_runs_of_many_gradient_terms_are_equal(data, tmp_path):
    """Graph attention adds up gradients whose buffers other operations read at the same time."""
    paths = [tmp_path / name for name in ("first", "second")]
    for path in paths:
        flags = ["--deterministic", "--model=deminet", "--max_steps=150"]
        flags += ["--set=train.batch_size=50", "--set=train.patience=100"]
        command = ["-m", "models.train", f"--data={data.path}", f"--workdir={path}", *flags]
        python(*command, TF_NUM_INTRAOP_THREADS="2")
    _require_same(*paths)


@pytest.mark.slow
def test_determinism_that_comes_too_late_is_said(data, tmp_path):
    code = (
        "import sys, tensorflow as tf; tf.constant(1.0) + 1.0;"
        "from models import train; from models.config import run_config;"
        "config = run_config.resolve(run_config.load(sys.argv[1]));"
        "train.train(config, sys.argv[2], progress=False)"
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(_config(data, deterministic=True, max_steps=2).to_json()))
    runs = {"0": "note: TensorFlow was in use before --deterministic", "1": ""}
    for threads, note in runs.items():
        done = subprocess.run(
            [sys.executable, "-c", code, file, tmp_path / f"run{threads}"],
            env=os.environ | {"TF_NUM_INTEROP_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.count("note: ") == bool(note)
        assert note in done.stderr
