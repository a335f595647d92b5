"""pipeline.data_card: what the card says, and that it can be opened anywhere."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from pipeline import data_card
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.data_dir import DataDir
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log

DAY = 86_400


def _build(directory, log, features=None, **arguments):
    more = {}
    if features is not None:
        vocabulary = {"kind": "vocabulary"}
        keys = [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
        ]
        path = directory / "schema.json"
        path.write_text(json.dumps({"features": keys + features}))
        more["schema"] = str(path)
    with inline():
        return build_examples(
            BuildArguments(
                input=write_log(directory / "log|1.csv", log),
                output=str(directory / "data"),
                num_shards=1,
                **more,
                **arguments,
            )
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A log with dates, a value that needs escaping, a number that is sometimes missing."""
    events = random_events(users=40, days=90)
    log = columns(events)
    log["timestamp"] = [1_700_000_000 + DAY * time for time in log["timestamp"]]
    log["item_id"] = [f"<b>{item}|" if item == "i5" else item for item in log["item_id"]]
    log["price"] = [None if n % 4 == 0 else float(n % 7) for n in range(len(events))]
    features = [
        {"name": "price", "role": "item", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]
    return _build(tmp_path_factory.mktemp("card"), log, features, protocol="time_split")


@pytest.fixture(scope="module")
def card(data):
    path = data_card.write_card(data.path)
    assert path == data.path / "data_card.html"
    return {ending: path.with_suffix(f".{ending}").read_text() for ending in ("html", "md")}


def test_the_page_is_well_formed_and_needs_no_network(card):
    page = card["html"]
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)
    urls = set(re.findall(r"""(?:src|href)=["']([^"'#]+)""", page))
    assert not urls
    assert "@import" not in page
    assert "<b>i5" not in page
    assert "&lt;b&gt;i5|" in page
    assert page.count("<svg") == 4
    for title in ("Popularity", "Histories", "Time", "Unknown values"):
        assert f"<b>{title}.</b>" in page


def test_contents_name_every_section(card):
    navigation = re.search(r"<nav .*?</nav>", card["html"], re.DOTALL)[0]
    named = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', navigation)
    sections = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', card["html"])
    assert named == sections
    assert {"figures", "splits", "files", "arguments"} < {anchor for anchor, _ in sections}
    assert "base" not in {anchor for anchor, _ in sections}


def test_both_files_say_what_the_statistics_say(data, card):
    for name in ("train", "validation", "test"):
        stats = data.stats["splits"][name]
        cells = [f"{stats[key]:,}" for key in ("requests", "candidates", "positives", "users")]
        assert f"| {name} | {' | '.join(cells)} |" in card["md"]
        assert (
            f"<td>{name}</td>" + "".join(f'<td class="n">{c}</td>' for c in cells) in card["html"]
        )
        unknown = stats["unknown_items"]
        shares = [
            unknown[f"unknown_{label}"] / unknown[label] for label in ("positives", "negatives")
        ]
        auc = (1 + shares[0] - shares[1]) / 2
        bit = f"| {name} | {shares[0]:.2%} | {shares[1]:.2%} | {auc:.3f} |"
        assert bit in _section(card["md"], "Items that training does not know")
    drift = data.stats["splits"]["test"]["features"]["history/item_id"]["drift"]
    (row,) = (line for line in _section(card["md"], "Splits compared") if "history/item" in line)
    assert row.endswith(f"| {drift:.3f} |")
    account = data.manifest["conservation"]
    assert f"| read | {account['read']:,} |" in card["md"]
    for rule, count in account["filtered"].items():
        assert f"| filtered: {rule} | {count:,} |" in card["md"]


def _section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()


def test_dates_missing_numbers_and_bars_in_values(card):
    assert re.search(r"\| 202[34]-\d\d-\d\d \|", card["md"])
    (row,) = (line for line in _section(card["md"], "Training values") if "candidate/price" in line)
    assert "| numeric |" in row
    assert "mean" in row
    assert "| 0.00% |" not in row
    assert r"\|" in "".join(_section(card["md"], "Training values"))


def test_the_card_is_deterministic_and_no_part_of_the_data(data, card):
    before = {path: path.read_bytes() for path in data.path.iterdir() if path.is_file()}
    data_card.write_card(data.path)
    assert {path: path.read_bytes() for path in data.path.iterdir() if path.is_file()} == before
    for ending in ("html", "md"):
        (data.path / f"data_card.{ending}").unlink()
    assert DataDir.open(data.path).fingerprint == data.fingerprint
    data_card.write_card(data.path)


def test_a_log_without_times_and_a_hashed_item(tmp_path):
    log = columns(random_events(users=30))
    del log["timestamp"]
    schema = {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string",
             "encoder": {"kind": "hash", "buckets": 9}},
            {"name": "item_id", "role": "item", "dtype": "string",
             "encoder": {"kind": "hash", "buckets": 50}},
        ]
    }  # fmt: skip
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    with inline():
        data = build_examples(
            BuildArguments(
                input=write_log(tmp_path / "log.csv", log), output=str(tmp_path / "data"),
                schema=str(path), num_shards=1,
            )
        )  # fmt: skip
    page = data_card.write_card(data.path).read_text()
    assert page.count("<svg") == 1  # no vocabulary, no dates: the lengths of histories are left


def test_neither_the_card_nor_its_command_loads_tensorflow(data):
    program = f"""
import sys
from pipeline import data_card
sys.argv = ["data_card", {str(data.path)!r}]
try:
    data_card.console_main()
finally:
    assert not any(name in sys.modules for name in ("tensorflow", "apache_beam"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"data card: {data.path}/data_card.html\n"
