"""The report of a run: what it says, what it leaves out, and how it looks in a real browser."""

import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from models.config import run_config
from models.core import run_directory
from models.core.factory import build_model, compile_model
from models.evaluation import confidence_intervals, scoring
from models.reporting import run_report
from models.training import memory, sessions
from preprocessing.data_dir import DataDir
from preprocessing.splits import SPLITS
from tests.helpers import browsers, small_models

LARGEST_PAGE = 3 << 20


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run that has all that a report can show: random weights, real scores, a made-up history."""
    path = tmp_path_factory.mktemp("runs") / "run"
    content = {
        "data": str(data.path),
        "model": {"name": "deminet", "embedding_size": 4, "interests": 2},
        "ssl": {"name": "miss"},
        "train": {"max_steps": 40, "pretrain_epochs": 3, "schedule": "cosine", "decay_steps": 40},
    }
    layers = [("flag", {"train": {"max_steps": 40}}), ("--set", {"train": {"schedule": "cosine"}})]
    resolved = run_config.resolve(content)
    session = sessions.Session(path)
    model = build_model(resolved, data)
    compile_model(model, resolved)
    small_models.randomise(model, scale=0.3)
    run_directory.begin(path, resolved, data, run_config.origins(resolved, layers))
    run_directory.best_checkpoint(model, path).save()
    scorer = scoring.Scorer(model, data)
    metrics = {
        split: scoring.record(path, split, scorer.score(split), data) for split in SPLITS[1:]
    }
    _history(metrics["validation"]["auc"]).to_csv(path / "metrics.csv", index=False)
    losses = {"loss": [5.0, 4.0, 3.5], "miss_interest": [4.8, 4.1, 3.6]}
    pretraining = {"step": [3, 6, 9], "epoch": [1, 2, 3]} | {
        f"{split}/{name}": values for split in SPLITS[:2] for name, values in losses.items()
    }
    pd.DataFrame(pretraining).to_csv(path / "pretraining.csv", index=False)
    session.expect(memory.MemoryEstimate(5 << 20, 10 << 20, 0, 3 << 20))
    session.began_with(["22 other weights taken over, 0 new"])
    with session.phase("training"), session.phase("evaluation"):
        pass
    session.save(40)
    return path


def _history(auc):
    """metrics.csv with the columns of the model and of self-supervision."""
    down, up = np.array([0.7, 0.6, 0.62, 0.65]), np.array([0.2, 0.4, 0.5, 0.6])
    views = {f"miss_interest/{name}": up for name in ("similarity", "alignment", "valid_share")}
    diagnostics = {
        **{f"edge_density_{name}": up for name in ("earlier", "later", "similar")},
        **{"view_cosine": up, "expert_usage_entropy": up, "miss_interest/uniformity": -up},
        **views,
        **{f"embedding_gradient/{name}": up for name in ("log_loss", "ssl")},
        "embedding_gradient/ssl_to_log_loss": [11.0, 0.1, 0.1, 0.1],
    }
    columns = {
        "step": [10, 20, 30, 40],
        "epoch": [1.0, 2.0, 3.0, 4.0],
        "seconds": [1.0, 2.0, 3.0, 4.0],
        "train/loss": down + 0.5,
        "train/log_loss": down,
        "train/interest_consistency": up / 1000,
        "train/interest_consistency_ratio": up,
        "train/miss_interest": down * 6,
        "train/gradient_norm": up,
        "validation/auc": [auc - 0.1, auc, auc - 0.02, auc - 0.01],
        "validation/gauc": [0.5, 0.6, 0.61, 0.6],
        "validation/log_loss": down,
        "validation/normalised_entropy": down,
        **{f"diagnostics/{name}": values for name, values in diagnostics.items()},
        "speed/samples_per_second": [9e3, 1e4, 1.1e4, 1e4],
        "speed/input_wait": [0.01, 0.02, 0.01, 0.01],
    }
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The HTML file, and the content of both files."""
    path = run_report.write_report(run, tmp_path_factory.mktemp("report") / "report.html")
    return path, path.read_text(), path.with_suffix(".md").read_text()


def _titles(markdown):
    return re.findall(r"^## (.+)$", markdown, re.MULTILINE)


def test_sections_stand_in_the_order_of_a_reader(written):
    _, html, markdown = written
    titles = _titles(markdown)
    assert [title for title in titles if title != "Look at this first"] == [
        "Model card",
        "Limits",
        "Metrics",
        "Slices",
        "Training",
        "Inside the model",
        "Data",
        "Time and memory",
        "Configuration",
        "Reproduce",
    ]
    assert re.findall(r"<h2[^>]*>(.+?)</h2>", html) == titles
    links = re.findall(r'<a href="#([^"]+)">', html)
    assert links == re.findall(r'<h2 id="([^"]+)">', html)
    assert '<a class="skip" href="#model-card">' in html


def test_metrics_are_those_of_evaluation(run, written):
    _, html, markdown = written
    stored = run_directory.read_metrics(run)
    scores = scoring.read_scores(run, "test")
    intervals = confidence_intervals.estimate(scores)
    auc, around = intervals["auc"], f"[{intervals['auc'].low:.4f}, {intervals['auc'].high:.4f}]"
    assert auc.value == pytest.approx(stored["test"]["auc"])
    assert f"| AUC | {stored['validation']['auc']:.4f} | {auc.value:.4f} | {around} |" in markdown
    assert f"<b>{auc.value:.4f}</b><span>{around}</span>" in html
    assert f"| log loss | {stored['validation']['log_loss']:.4f} |" in markdown
    assert f"| requests | {stored['validation']['requests']:,} |" in markdown
    slices = scoring.analyse(run, "test", progress=False).slices
    for _, row in slices.iterrows():
        cells = f"| {row['dimension']} | {row['slice']} | {row['candidates']:,} | "
        (line,) = (line for line in markdown.splitlines() if line.startswith(cells))
        value = "n/a" if np.isnan(row["auc"]) else f"{row['auc']:.4f}"
        assert f"| {value} |" in line


def test_both_files_have_the_same_figures_with_numbers(written):
    _, html, markdown = written
    titles = re.findall(r"<figcaption><b>(.+?)\.</b>", html)
    assert html.count("<svg") == html.count("<figure>") == len(titles) == len(set(titles))
    assert {
        *("Calibration", "ROC", "AUC by history length", "AUC by item popularity"),
        *("Log loss", "Validation AUC", "Further loss terms", "Gradient norm", "Learning rate"),
        *("Pre-training", "Pre-training, miss interest", "Views of miss interest"),
        *(
            "Relations",
            "Likeness inside the model",
            "Attention and experts",
            "Pull at the embeddings",
            "Histories",
        ),
        *("Interests", "Confidence", "Relations of events"),
    } <= set(titles)
    assert re.findall(r"^\*\*(.+?)\.\*\* ", markdown, re.MULTILINE) == titles
    for text in re.findall(r'role="img" aria-label="(.+?)"', html):
        title, _, said = text.partition(": ")
        assert title in titles
        assert re.search(r"\d", said), text
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ET.fromstring(svg)
        assert "mathdefault" not in svg


def test_the_page_needs_no_network_and_is_small(written):
    path, html, _ = written
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", html)
    assert "@import" not in html
    assert path.stat().st_size < LARGEST_PAGE


def test_every_setting_with_its_origin(run, written):
    _, _, markdown = written
    stored = json.loads((run / "config.json").read_text())
    rows = dict(re.findall(r"^\| (train\.\w+) \| (.+) \|$", markdown, re.MULTILINE))
    assert len(rows) == len(stored["train"])
    assert rows["train.max_steps"] == "40 | flag"
    assert rows["train.schedule"] == '"cosine" | --set'
    assert rows["train.plateau_patience"] == "2 | default"
    chosen = _chosen(markdown)
    assert "train.schedule" in chosen
    assert "train.plateau_patience" not in chosen


def _chosen(markdown):
    return markdown.split("### Chosen for this run")[1].split("###")[0]


def test_time_memory_and_how_it_came_about(run, written):
    _, _, markdown = written
    (session,) = run_directory.read_sessions(run)
    phases = session["seconds"]
    for text in (
        f"| preparation | {phases['preparation']:,.1f} |",
        f"| all | {sum(phases.values()):,.1f} |",
        "| estimate: all (upper bound) | 18.0 MiB |",
        "| most held at once |",
        f"# This run was trained by\n{session['command']}\n",
        f"| tensorflow | {session['versions']['tensorflow']} |",
        "| samples (candidates) per second | 10,000 | 9,000 | 11,000 |",
        "The kept weights were reached after 2 s at step 20 (epoch 2.0)",
        "| 22 other weights taken over, 0 new |",
    ):
        assert text in markdown
    assert f"--config={run / 'config.json'}" in markdown
    assert "python -m pipeline.build_examples" in markdown


def test_what_a_run_lacks_is_left_out(run, data, tmp_path):
    def write(path):
        page = run_report.write_report(path, path / "report.html")
        html = page.read_text()
        assert html.count("<svg") == html.count("<figure>") > 0
        return html, page.with_suffix(".md").read_text()

    path = shutil.copytree(run, tmp_path / "run")
    stored = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(stored | {"data": str(data.path)}))
    history = pd.read_csv(path / "metrics.csv")
    plain = [c for c in history.columns if not c.startswith(("diagnostics/", "speed/"))]
    history[plain].to_csv(path / "metrics.csv", index=False)
    shutil.rmtree(path / "best")
    for name in ("sessions.json", "origins.json", "pretraining.csv", "scores-test.parquet"):
        (path / name).unlink()
    metrics = run_directory.read_metrics(path)
    (path / "metrics.json").write_text(json.dumps({"validation": metrics["validation"]}))
    html, markdown = write(path)
    assert not {"Time and memory", "Inside the model"} & set(_titles(markdown))
    assert "<b>Pre-training.</b>" not in html
    assert "test AUC" not in html
    assert "<b>Calibration.</b>" in html
    assert f"| AUC | {metrics['validation']['auc']:.4f} | [" in markdown
    assert "train.schedule" in _chosen(markdown)
    assert "train.patience" not in _chosen(markdown)

    (path / "metrics.json").unlink()
    (path / "scores-validation.parquet").unlink()
    html, markdown = write(path)  # As if stopped after some evaluations.
    assert f"<b>{history['validation/auc'].max():.4f}</b>" in html
    assert "<b>Calibration.</b>" not in html
    assert "<b>Validation AUC.</b>" in html


def test_values_of_the_log_are_text(run, written, data, tmp_path, monkeypatch):
    """Categories with markup, dollars and bars."""
    nasty = "<img src=x> $1|$2 & more"
    real = DataDir.open

    def renamed(*arguments, **options):
        opened = real(*arguments, **options)
        encoder = opened.encoders["category_id"]
        monkeypatch.setattr(
            type(encoder), "decode", lambda self, ids: np.array([nasty] * np.size(ids), object)
        )
        return opened

    monkeypatch.setattr(DataDir, "open", renamed)
    monkeypatch.setattr(run_report.interest_figures, "figures", lambda run, split: [])
    page = run_report.write_report(run, tmp_path / "report.html")
    html, markdown = page.read_text(), page.with_suffix(".md").read_text()
    assert "<img" not in html
    assert "&lt;img src=x&gt; $1|$2 &amp; m" in html
    assert r"| <img src=x> $1\|$2 & more |" in markdown


@pytest.fixture(scope="module", params=["light", "dark"])
def page(browser, written, request):
    """The report in a browser, which must not complain or ask for anything else."""
    page = browser.new_page(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    page.problems, page.requests = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text))
    page.on("request", lambda asked: page.requests.append(asked.url))
    page.goto(written[0].as_uri())
    for folded in page.locator("summary").all():
        folded.click()
    yield page
    page.close()


class TestPage:
    """In Chromium, in light and dark."""

    pytestmark = browsers.NEEDS_CHROMIUM

    def test_nothing_is_missing_and_nothing_is_fetched(self, page, written):
        images = page.locator("figure [role=img]")
        assert images.count() == written[1].count("<figure>")
        for box in images.locator("svg").all():
            assert box.bounding_box()["height"] > 40
        assert page.problems == []
        assert [url for url in page.requests if not url.startswith("data:")] == [
            written[0].as_uri()
        ]

    @pytest.mark.parametrize("width", [390, 1280])
    def test_it_never_scrolls_sideways(self, page, width):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == width

    def test_text_can_be_read(self, page):
        contrasts = page.evaluate(browsers.CONTRASTS)
        assert len(contrasts) >= 10
        assert min(contrasts.values()) >= 4.5, contrasts

    def test_contents_lead_to_their_section(self, page):
        page.set_viewport_size({"width": 390, "height": 844})
        page.get_by_role("link", name="Configuration").click()
        top = page.get_by_role("heading", name="Configuration").bounding_box()["y"]
        bar = page.get_by_role("navigation").bounding_box()
        assert bar["y"] + bar["height"] <= top < 400
