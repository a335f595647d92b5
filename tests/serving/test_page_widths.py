"""Every kind of page fits phones and desks and can be read, in light and dark, in a browser."""

import pytest

from models.core import run_directory
from models.evaluation import scoring
from models.reporting import html_report, run_report
from models.reporting.html_report import Grid, Section
from pipeline import data_card
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.experiments import backtest_page
from serving import embedded_server
from tests.helpers import browsers
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log
from tests.helpers.toy_runs import write_run

pytestmark = browsers.NEEDS_CHROMIUM

PATH = "/a/directory/with/a/name/as/long/as/names/of/directories/that/schedulers/make/become"


def _data(directory):
    with inline():
        return build_examples(
            BuildArguments(
                input=write_log(directory / "log.csv", columns(random_events(users=40))),
                output=str(directory / "data"),
                num_shards=1,
            )
        )


def _experiment(directory):
    """A table as wide as they become, of rows with long names."""
    names = [f"column {n}" for n in range(14)]
    rows = [[f"a_model_of_a_long_name_{n} (no model)", *("+0.1234",) * 13] for n in range(3)]
    notes = [f"built with --input={PATH} --negative_sampling=available_popularity"]
    content = {
        "id": "miss/4", "title": "MISS with other models", "quick": "A quick run.",
        "claim": "It is better.", "command": f"python -m pipeline.experiment --workdir={PATH}",
        "facts": [("code", "0.1.0")], "settings": {"model": {"name": PATH}},
        "data": Grid("Requests", 2, ["data set", "build", "train"], [[PATH, "0" * 64, "1"]], notes),
        "sections": [Section("data", [Grid("Metrics", 1, names, rows, notes)])],
    }  # fmt: skip
    return html_report.write("pipeline", "experiment", content, directory / "experiment.html")


def _backtest(directory, run):
    (directory / "runs").mkdir(parents=True)
    (directory / "runs" / "first-1").symlink_to(run)
    ways = ("continued", "from scratch")
    rows = [
        {"way": way, "day": day, "seed": 1, "auc": 0.7, "gauc": 0.6, "log_loss": 0.5, "steps": 100,
         "requests": 1000, "build_seconds": 1.0, "train_seconds": 2.0}
        for way in ways for day in range(1, 15)
    ]  # fmt: skip
    command = f"python -m pipeline.backtest '--input={PATH}/*.csv' --workdir={PATH}"
    return backtest_page.write_page(directory, rows, ways, "Latest days: 7", command)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory, toy_version, toy_data):
    """The address of a page of each kind."""
    path = tmp_path_factory.mktemp("pages")
    data = _data(path)
    run = path / "run"
    write_run(run, data, "din", "miss")
    scorer = scoring.Scorer(run_directory.load_model(run), data)
    for split in ("validation", "test"):
        scoring.record(run, split, scorer.score(split), data)
    files = {
        "report": run_report.write_report(run, run / "report.html"),
        "data card": data_card.write_card(data.path),
        "experiment": _experiment(path),
        "backtest": _backtest(path / "backtest", run),
    }
    with embedded_server.running(toy_version.parent, "ctr", explore=str(toy_data.path)) as running:
        explore = f"{running.root}/explore#user=user+1"
        yield {kind: file.as_uri() for kind, file in files.items()} | {"explore": explore}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["report", "data card", "experiment", "backtest", "explore"])
def test_no_page_scrolls_sideways_and_all_text_can_be_read(browser, addresses, kind, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(addresses[kind])
    if kind == "explore":
        page.get_by_role("radio").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((folded) => folded.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title()
    contrasts = page.evaluate(browsers.CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts
    page.close()
