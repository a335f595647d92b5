"""What a run tells on standard error: bars on a terminal, lines of a log elsewhere."""

import io
import re
import sys

import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.training import records, trainer


@pytest.fixture
def config(data, monkeypatch):
    """Pre-training of a pass, then twelve steps with an evaluation after every four."""
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    monkeypatch.setattr(trainer, "LOG_EVERY", 2)
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": "din", "embedding_size": 4},
            "ssl": {"name": "miss"},
            "train": {"batch_size": 50, "max_steps": 12, "pretrain_epochs": 1, "patience": 9},
        }
    )


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_a_line_for_each_evaluation(config, tmp_path, capsys):
    train.train(config, tmp_path / "run")
    said = capsys.readouterr().err
    assert "\r" not in said
    first, *lines = [line for line in said.splitlines() if "step " in line]
    assert re.fullmatch(
        r"pretraining: step 6  epoch 1\.00  train/\S*loss [\d.]+.*  validation/loss [\d.]+", first
    )
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(lines) == len(history) == 3
    for line, (_, row) in zip(lines, history.iterrows(), strict=True):
        assert line.startswith(f"step {row['step']:.0f}  epoch {row['epoch']:.2f}  ")
        for column in ("train/loss", "train/ssl_loss", "validation/auc", "validation/log_loss"):
            assert f"  {column} {row[column]:.4f}" in line
        speed = f"  {row['speed/samples_per_second']:,.0f} samples/s"
        assert re.search(re.escape(speed) + r"  at most \d\d:\d\d left$", line)
    assert lines[-1].endswith("at most 00:00 left")


def test_a_terminal_has_bars_and_no_such_lines(config, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    train.train(config, tmp_path / "run")
    said = sys.stderr.getvalue()
    assert "\repoch 1:" in said
    assert "samples/s" not in said


def test_what_is_not_measured_is_left_out():
    row = {"step": 3, "epoch": 0.5, "seconds": 9.0, "train/loss": 0.5, "train/gradient_norm": 2.0}
    row |= {"validation/auc": None, "validation/log_loss": 0.25, "validation/mrr": 0.5}
    assert records.line(row) == (
        "step 3  epoch 0.50  train/loss 0.5000  validation/log_loss 0.2500"
    )
    assert records.line(row, 3723.0).endswith("  at most 1:02:03 left")


def test_a_loss_without_further_terms_is_told_once():
    row = {"step": 3, "epoch": 0.5, "train/loss": 0.5, "train/log_loss": 0.5}
    assert records.line(row) == "step 3  epoch 0.50  train/loss 0.5000"
    row["train/log_loss"] = 0.4
    assert records.line(row).endswith("train/loss 0.5000  train/log_loss 0.4000")
