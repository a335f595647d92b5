"""The importance of inputs in a report: what stands there, and when it does."""

import pandas as pd
import pytest

from models.core import run_directory
from models.evaluation import importance
from models.reporting import importance_figures, run_report
from tests.helpers import toy_runs

TABLE = pd.DataFrame(
    {
        "feature": ["item_id", "age", "whole history"],
        "part": ["candidate", "user", "history"],
        "auc_drop": [0.1, 0.01, -0.002],
        "low": [0.08, -0.01, float("nan")],
        "high": [0.12, 0.03, float("nan")],
        "gauc_drop": [0.2, 0.0, float("nan")],
        "log_loss_rise": [0.3, 0.0, -0.1],
        "auc": 0.7,
        "requests": 128,
        "split_requests": 1000,
    }
)


def test_the_figure_has_a_bar_per_input_and_says_which_include_0():
    section = importance_figures.section({"validation": TABLE})
    (figure,), (grid,) = section.figures, section.grids
    assert figure.title == "Drop in AUC by input, validation"
    assert "a seeded sample of 128 of the 1,000 requests of validation" in figure.caption
    assert figure.text == (
        "item_id (candidate): 0.1000 [0.0800, 0.1200]; age (user): 0.0100 [-0.0100, 0.0300]; "
        "whole history: -0.0020 n/a."
    )
    for text in ("item_id (candidate)", "age (user)", "whole history"):
        assert figure.svg.count(text) == 1
    assert "var(--blue, #" in figure.svg
    assert "var(--ink-of-figures, #" in figure.svg
    assert grid.rows == [
        ["item_id", "candidate", "0.1000", "[0.0800, 0.1200]", "0.2000", "0.3000", ""],
        ["age", "user", "0.0100", "[-0.0100, 0.0300]", "0.0000", "0.0000", "includes 0"],
        ["whole history", "history", "-0.0020", "n/a", "n/a", "-0.1000", ""],
    ]


def test_without_a_table_there_is_no_section():
    assert importance_figures.section({}) is None


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    """A run whose validation was measured; the report draws nothing of the model's inside."""
    monkeypatch.setattr(run_report.interest_figures, "figures", lambda run, split: [])
    path = toy_runs.write_run(tmp_path / "run", data, "lr")
    importance.of_run(path, "validation", progress=False)
    return path


def _pages(run):
    page = run_report.write_report(run, run / "report.html")
    return page.read_text(), page.with_suffix(".md").read_text()


def test_the_report_shows_it_as_long_as_it_belongs_to_the_weights(run):
    html, markdown = _pages(run)
    assert html.count("<b>Drop in AUC by input, validation.</b>") == 1
    assert "## Importance\n" in markdown
    first = importance.read_current(run, "validation").iloc[0]
    cells = f"| {first['feature']} | {first['part']} | {first['auc_drop']:.4f} | "
    assert f"{cells}[{first['low']:.4f}, {first['high']:.4f}] |" in markdown

    model = run_directory.load_model(run)
    for weight in model.embedder.trainable_variables:
        weight.assign(-weight)
    run_directory.save_best(run_directory.best_checkpoint(model, run))
    run_directory.write_metrics(run, {"test": {"auc": 0.5}})
    for page in _pages(run):
        assert "Drop in AUC by input" not in page
        assert "## Importance\n" not in page
