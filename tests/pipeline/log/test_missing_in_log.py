"""Values that the log does not have: counted by split, whether or not a default stands in."""

import json
import re

import numpy as np
import pytest

from models.reporting import data_sets
from pipeline import data_card, validate
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.data_dir import missing_share
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import read_examples
from tests.helpers.small_logs import columns, random_events, write_log

VOCABULARY = {"kind": "vocabulary"}
KEYS = ("device", "candidate/brand", "history/brand")


def _build(directory, labelled, every=3, **arguments):
    """Each default but that of `shop` is no value of the log, so that examples show where it is.

    `shop` lacks what `brand` lacks, and half of its other values are its default.
    """
    directory.mkdir()
    events = random_events(users=60, longest=10)
    log = columns(events)
    del log["category_id"]
    rng = np.random.default_rng(5)
    has = rng.integers(0, every, len(events)) > 0
    log["brand"] = [f"b{n % 7}" if some else "" for n, some in enumerate(has)]
    log["shop"] = [f"s{n % 2}" if some else "" for n, some in enumerate(has)]
    log["device"] = [None if n % 4 == 0 else f"d{n % 3}" for n in range(len(events))]
    log["price"] = [None if n % 5 == 0 else float(n) for n in range(len(events))]
    log["click"] = rng.integers(0, 2, len(events)).tolist()
    features = [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
        {"name": "device", "role": "context", "dtype": "string", "default": "none",
         "encoder": VOCABULARY},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
        {"name": "brand", "role": "item", "dtype": "string", "default": "none",
         "encoder": VOCABULARY},
        {"name": "shop", "role": "item", "dtype": "string", "default": "s1", "encoder": VOCABULARY},
        {"name": "price", "role": "item", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
        *([{"name": "click", "role": "label", "dtype": "int64"}] if labelled else []),
    ]  # fmt: skip
    schema = directory / "schema.json"
    history = {"features": ["item_id", "brand", "shop"], "max_length": 5}
    schema.write_text(json.dumps({"features": features, "history": history}))
    with inline():
        return build_examples(
            BuildArguments(
                input=write_log(directory / "log.csv", log),
                output=str(directory / "data"),
                schema=str(schema),
                num_shards=1,
                **arguments,
            )
        )


@pytest.fixture(scope="module", params=["clicks", "labelled"])
def data(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("missing") / "log"
    return _build(directory, request.param == "labelled", protocol="time_split", min_history=0)


def test_defaults_are_counted_by_key_and_split(data):
    for split, stats in data.stats["splits"].items():
        examples = read_examples(data, split).values()
        for key in KEYS:
            encoder = data.encoders[key.rpartition("/")[2]]
            (default,) = encoder.encode(["none"]).tolist()
            assert default > encoder.num_oov
            values = [
                value
                for example in examples
                for value, label in zip(
                    example[key],
                    example["label"] if key.startswith("candidate/") else [1] * len(example[key]),
                    strict=True,
                )
                if label or data.schema.is_impression_log
            ]
            described = stats["features"][key]
            assert described["count"] == len(values)
            assert described["defaulted"] == values.count(default) > 0
            assert described["missing"] == 0


def test_a_value_that_equals_the_default_is_not_missing(data):
    for stats in data.stats["splits"].values():
        for side in ("candidate", "history"):
            brand, shop = (stats["features"][f"{side}/{name}"] for name in ("brand", "shop"))
            assert shop["defaulted"] == brand["defaulted"]
            assert shop["top_values"]["s1"] > shop["defaulted"]


def test_the_card_and_the_report_show_missing_and_defaulted_apart(data):
    data_card.write_card(data.path)
    card = (data.path / "data_card.md").read_text()
    described = data.stats["splits"]["train"]["features"]
    for key in (*KEYS, "candidate/price", "user_id"):
        some = described[key]
        share = f"{(some['missing'] + some['defaulted']) / some['count']:.2%}"
        defaulted = f"{some['defaulted'] / some['count']:.2%}" if key in KEYS else ""
        row = re.search(rf"^\| {key} \| .*$", card, re.MULTILINE)[0]
        assert row.split(" | ")[3:5] == [share, defaulted]
    assert described["candidate/price"]["missing"] > 0
    grid = next(grid for grid in data_sets.grids(data) if grid.title == "Features")
    missing = {row[0]: row[4] for row in grid.rows}
    assert missing["device"] == f"{missing_share(described['device']):.2%}" != "0.00%"


def test_validate_compares_what_the_logs_do_not_have(data, tmp_path):
    other = _build(
        tmp_path / "other", data.schema.is_impression_log, 6, protocol="time_split", min_history=0
    )
    rows = {row.name: row for row in validate.compare(data, other)}
    for name, key in (("device", "device"), ("brand", "history/brand")):
        here, there = (some.stats["splits"]["train"]["features"][key] for some in (data, other))
        assert rows[name].missing == here["defaulted"] / here["count"]
        assert rows[name].missing_there == there["defaulted"] / there["count"]
    assert rows["brand"].missing > rows["brand"].missing_there
    assert rows["user_id"].missing is None  # a row without a user is rejected
