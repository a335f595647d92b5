"""Every kind of page fits phones, desks and paper, and can be read and used with keys alone."""

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

KINDS = ["report", "data card", "experiment", "backtest", "explore"]
FILES = KINDS[:-1]
PAPER = 688
"""Width of A4 less its margins in pixels."""
MEANS = "Test metrics, mean ± standard deviation over seeds"
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
    titles = [
        "model",
        "AUC",
        "paper",
        "difference",
        "AUC, known items",
        "GAUC",
        "log loss",
        "paper",
        "difference",
        "learning rate",
        "seeds",
        "minutes",
    ]  # of miss/4
    spread, paper = "0.7810 ± 0.0049*", ("0.8858", "-0.1048")
    cells = [spread, *paper, spread, spread, spread, *paper, "0.001", "3", "8.1"]
    means = [["PPMI-SVD, 10 wide (no model)", *cells], ["FiGNN-MISS", *cells]]
    notes = [f"built with --input={PATH} --negative_sampling=available_popularity"]
    content = {
        "id": "miss/4", "title": "MISS with other models", "quick": "A quick run.",
        "claim": "It is better.", "command": f"python -m pipeline.experiment --workdir={PATH}",
        "facts": [("code", "0.1.0")], "settings": {"model": {"name": PATH}},
        "data": Grid("Requests", 2, ["data set", "build", "train"], [[PATH, "0" * 64, "1"]], notes),
        "sections": [
            Section("data", [Grid("Metrics", 1, names, rows, notes), Grid(MEANS, 1, titles, means)])
        ],
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


_NUMBERED = """() => {
  document.querySelectorAll("details").forEach((folded) => folded.open = true);
  const found = document.querySelectorAll("a, summary, [tabindex]");
  found.forEach((node, place) => node.dataset.place = place);
  return found.length;
}"""
"""Opens what is folded, numbers what can have the focus, and counts it."""

_BROKEN_NUMBERS = """() => {
  const broken = [], range = document.createRange();
  for (const cell of document.querySelectorAll("table:not(.crowded) td.n")) {
    const node = cell.firstChild;
    for (const number of node ? node.data.matchAll(/[\\d.,]+/g) : []) {
      range.setStart(node, number.index);
      range.setEnd(node, number.index + number[0].length);
      if (range.getClientRects().length > 1) broken.push(number[0]);
    }
  }
  return broken;
}"""
"""Numbers on two lines."""


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
@pytest.mark.parametrize("kind", KINDS)
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


def test_means_and_spreads_fit_a_desk(browser, addresses):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.goto(addresses["experiment"])
    box = page.get_by_role("region", name=MEANS)
    assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth")
    page.close()


@pytest.mark.parametrize("kind", FILES)
def test_all_of_a_page_is_on_paper(browser, addresses, kind):
    """White in the dark too, without what is for screens, nothing folded, no table cut."""
    page = browser.new_page(viewport={"width": PAPER, "height": 900}, color_scheme="dark")
    page.goto(addresses[kind])
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    contrasts = page.evaluate(browsers.CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER
    tables = [table.bounding_box() for table in page.locator("table").all()]
    assert all(box["height"] > 10 and box["x"] + box["width"] <= PAPER for box in tables)
    assert page.evaluate(_BROKEN_NUMBERS) == []
    assert not any(one.is_visible() for one in page.locator("nav, .skip").all())
    page.close()


@pytest.mark.parametrize("kind", FILES)
def test_keys_lead_through_a_page_in_its_order(browser, addresses, kind):
    """Everything that can have the focus gets it, and is marked while it does."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(addresses[kind])
    count = page.evaluate(_NUMBERED)
    assert count > 2
    for place in range(count):
        page.keyboard.press("Tab")
        assert page.evaluate("Number(document.activeElement.dataset.place)") == place
        width = "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
        assert page.evaluate(width) >= 2
    page.close()


@pytest.mark.parametrize("kind", ["report", "data card"])
def test_contents_can_be_skipped(browser, addresses, kind):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.goto(addresses[kind])
    skip = page.get_by_role("link", name="Skip the contents")
    assert skip.bounding_box()["width"] <= 1
    page.keyboard.press("Tab")
    assert skip.bounding_box()["width"] > 80
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('nav, .skip')")
    heading = page.locator("h2[id]").last
    page.get_by_role("navigation").get_by_role("link").last.click()
    bar = page.get_by_role("navigation").bounding_box()
    assert heading.bounding_box()["y"] >= bar["y"] + bar["height"]
    page.close()
