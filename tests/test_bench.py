"""The benchmarks: how times are compared and reported, and a run of seconds."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.deminet import DemiNetConfig
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.bench import figures, flops, processes, runner, training_data, training_peers

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a call moves it on."""
    now = [0.0]
    monkeypatch.setattr(figures.time, "perf_counter", lambda: now[0])
    return now


def test_calls_take_turns_after_a_first_one_that_does_not_count(clock):
    calls, seconds = [], {"ours": iter([9, 3, 1, 2]), "baseline": iter([9, 8, 40, 10])}

    def call(name):
        calls.append(name)
        clock[0] += next(seconds[name])

    times = figures.compare(
        lambda: call("ours"), lambda: call("baseline"), rounds=3, ours_units=10, baseline_units=2
    )
    assert calls == ["ours", "baseline"] * 4
    assert times.ours == pytest.approx((0.1, 0.2))
    assert times.baseline == pytest.approx((4.0, 5.0))

    speedup = times.speedup("x", "b", at_least=40)
    assert (speedup.value, speedup.median) == pytest.approx((40.0, 25.0))
    cost = times.cost("x", "b", at_most=0.025)
    assert (cost.value, cost.median) == pytest.approx((0.025, 0.04))


@pytest.mark.parametrize(
    ("bound", "value", "ok"), [(">=", 2.0, True), (">=", 1.9, False), ("<=", 2.1, False)]
)
def test_a_miss_is_told(tmp_path, monkeypatch, capsys, bound, value, ok):
    figure = figures.Figure(
        name="speed",
        value=value,
        median=value,
        unit="times",
        target=figures.Target(bound, 2.0),
        baseline="the old one",
        detail="1 ms : 2 ms",
    )
    monkeypatch.setattr(runner, "BENCHMARKS", {"fast": lambda quick: [figure]})
    runner.run(tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == {
        "speed": {
            "value": value,
            "unit": "times",
            "target": 2.0,
            "ok": ok,
            "baseline": "the old one",
            "command": "python -m tests.bench --only=fast",
        }
    }
    printed = capsys.readouterr().out
    assert ("MISSED" in printed) == (not ok)
    assert f"Targets missed: {'none' if ok else 'speed'}." in printed


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2 s"), (0.01234, "12.3 ms"), (5.6e-6, "5.6 µs")]
)
def test_durations_are_readable(seconds, text):
    assert figures.readable(seconds) == text


@pytest.mark.parametrize(
    ("interests", "forward", "step"), [(4, 2.02e6, 14.8e6), (8, 3.46e6, 21.8e6)]
)
def test_operations_of_deminet_are_those_counted_by_hand(interests, forward, step):
    dims = Dims(user_fields=1, history_features=2, extra_fields=0, embedding_size=16, max_length=50)
    counted = flops.deminet(DemiNetConfig(interests=interests), dims, length=50)
    assert counted.forward(1) == pytest.approx(forward, rel=0.03)
    assert counted.training_step(1, views=3) == pytest.approx(step, rel=0.03)


def _process(code):
    lines = ["import sys", f"sys.path.insert(0, {str(processes.PEERS)!r})", "import protocol", code]
    return processes.TrainingProcess([sys.executable, "-c", "\n".join(lines)])


def test_processes_take_turns_and_answer():
    turns = _process(
        """
done = []
def train():
    print("a library says something")
    done.append(1)
    return {"turns": len(done)}
protocol.serve(train)
"""
    )
    with turns:
        for count in (1, 2):
            turns()
            assert turns.result == {"turns": count}


def test_why_a_process_died_is_told():
    process = _process("protocol.serve(lambda: 1 / 0)")
    with process, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        process()


def test_a_peer_that_cannot_be_installed_is_skipped_with_the_reason(tmp_path, monkeypatch, capsys):
    (tmp_path / "absent.txt").write_text("absent==1.0\n")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.setattr(processes, "PEERS", tmp_path)

    def fail(command, **kwargs):
        raise subprocess.CalledProcessError(1, command, stderr="Looking.\nNo such version.\n")

    monkeypatch.setattr(processes.subprocess, "run", fail)
    assert processes.peer_python("absent") is None
    expected = "skipped absent, which cannot be installed: No such version.\n"
    assert capsys.readouterr().out.endswith(expected)


def test_peers_get_the_same_ids(tmp_path):
    drawn = training_data.draw(requests=12, candidates=3, items=1000)
    training_data.write_data_set(tmp_path / "data", drawn, items=1000)
    training_data.write_samples(tmp_path / "samples.npz", drawn)
    data = DataDir.open(tmp_path / "data")
    (batch,) = dataset.read(data, "train", batch_size=12, shuffle_seed=None)
    with np.load(tmp_path / "samples.npz") as samples:
        assert max(column.max() for column in samples.values()) <= 5000
        np.testing.assert_array_equal(samples["user_id"], np.repeat(batch["user_id"], 3))
        np.testing.assert_array_equal(samples["label"], np.ravel(batch["label"]))
        for name in ("item_id", "category_id"):
            np.testing.assert_array_equal(samples[name], np.ravel(batch[f"candidate/{name}"]))
            np.testing.assert_array_equal(
                samples[f"hist_{name}"], np.repeat(batch[f"history/{name}"], 3, axis=0)
            )
            assert samples[name].max() < data.encoders[name].cardinality
            assert samples[name].min() > 0


def test_every_peer_is_held_to_the_target_and_the_fastest_is_the_one_of_the_other_cases():
    (table, *_) = training_peers._TABLES
    ours = {suffix: figures.Spread(1.0, 1.0) for suffix in training_peers._CASES}
    peers = {"deepctr": figures.Spread(2.0, 5.0), "fuxictr": figures.Spread(3.0, 4.0)}
    found = {figure.name: figure for figure in training_peers._figures(table, ours, peers)}
    assert [name for name, figure in found.items() if figure.target] == [
        "training_100k_deepctr",
        "training_100k_fuxictr",
    ]
    assert [figure.ok for figure in found.values() if figure.target] == [False, True]
    assert found["training_100k_pairs"].value == 3.0
    assert "FuxiCTR" in found["training_100k_large"].baseline


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"found 'codek'.*did you mean 'codec'"):
        runner.run(tmp_path / "bench.json", only=["codek"])


def test_output_needs_a_directory(tmp_path):
    with pytest.raises(UserError, match="existing directory"):
        runner.run(tmp_path / "none" / "bench.json")


@pytest.mark.slow
def test_the_command_measures_and_writes(tmp_path):
    output = tmp_path / "bench.json"
    # The others train models, which is slow.
    names = "codec,many_codec,many_bag,lazy_adam,build_examples,topic,serving_payload"
    flags = [f"--output={output}", "--quick", f"--only={names}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(output.read_text())
    assert list(records) == [
        *(
            "codec",
            "many_codec",
            "many_bag",
            "lazy_adam",
            "lazy_adam_rows",
            "build_examples",
            "build_polars",
        ),
        *("build_examples_last", "build_polars_last", "build_scaling"),
        *("topic", "serving_payload", "serving_latency"),
    ]
    for name, record in records.items():
        assert list(record) == ["value", "unit", "target", "ok", "baseline", "command"]
        assert math.isfinite(record["value"])
        assert record["value"] > 0
        assert f"\n{name} " in done.stdout
        assert record["command"].endswith(" --quick")
    assert records["codec"]["value"] > 5  # whatever else the machine does
