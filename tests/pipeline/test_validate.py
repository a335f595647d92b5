"""pipeline.validate: schema differences and drift against an earlier data set."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from pipeline import validate
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.stats import drift, statistics
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import write_log

VOCABULARY = {"kind": "vocabulary"}
FEATURES = [
    {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
    {"name": "age", "role": "user", "dtype": "float32", "encoder": {"kind": "numeric"}},
    {"name": "device", "role": "context", "dtype": "string",
     "encoder": {"kind": "hash", "buckets": 50}},
    {"name": "item_id", "role": "item", "dtype": "string",
     "encoder": {"kind": "vocabulary", "min_count": 2}},
    {"name": "price", "role": "item", "dtype": "float32",
     "encoder": {"kind": "bucketised", "boundaries": [5.0]}},
    {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
]  # fmt: skip


def _build(directory, name, first_item, price, missing, users=40, events=6, features=FEATURES):
    """Items start at a number; a share of the ages is missing; items have a price of their own."""
    rng = np.random.default_rng(len(name))
    size = users * events
    items = first_item + rng.integers(0, 12, size)
    ages = rng.integers(20, 60, users).astype(float)
    ages[: int(missing * users)] = np.nan
    log = {
        "user_id": [f"u{n % users}" for n in range(size)],
        "age": [ages[n % users] for n in range(size)],
        "device": [f"d{n}" for n in rng.integers(0, 5, size)],
        "item_id": [f"i{item}" for item in items],
        "price": [price + float(item) for item in items],
        "timestamp": list(range(size)),
    }
    schema = directory / f"{name}.json"
    schema.write_text(json.dumps({"features": features, "history": {"max_length": 20}}))
    arguments = BuildArguments(
        input=write_log(directory / f"{name}.parquet", log),
        output=str(directory / name),
        schema=str(schema),
        train_prefixes="all",
        num_shards=1,
    )
    with inline():
        return build_examples(arguments)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("validate")


@pytest.fixture(scope="module")
def old(directory):
    return _build(directory, "old", 0, 0.0, 0.0)


@pytest.fixture(scope="module")
def new(directory):
    """Half of the items are new, everything costs 4 more, a quarter of the ages is missing."""
    return _build(directory, "new", 6, 4.0, 0.25, events=9)


def _by_name(drifts):
    return {row.name: row for row in drifts}


def test_a_data_set_does_not_drift_from_itself(old):
    drifts = validate.compare(old, old)
    assert [row.name for row in drifts] == [
        "user_id", "age", "device", "item_id", "price", "history_length",
    ]  # fmt: skip
    assert all(row.distance == 0 for row in drifts)
    assert not any(row.unknown for row in drifts)


def test_drift_is_that_of_the_training_values(old, new):
    found = _by_name(validate.compare(new, old))
    counts = [_word_counts(data) for data in (new, old)]
    words = sorted({*counts[0], *counts[1]})
    shares = [[some.get(word, 0) for word in words] for some in counts]
    assert found["item_id"].distance == pytest.approx(jensenshannon(*shares, base=2) ** 2, abs=1e-6)
    lost = sum(n for word, n in counts[0].items() if word not in counts[1])
    assert found["item_id"].unknown == pytest.approx(lost / sum(counts[0].values()))
    assert found["item_id"].unknown > 0.3
    assert found["user_id"].unknown == 0
    # A missing number is the smallest: where a quarter is missing the distributions differ by it.
    assert found["age"].distance >= 0.25
    assert found["age"].missing == pytest.approx(0.25)
    assert found["age"].missing_there == 0
    prices = [_history_prices(data) for data in (new, old)]
    assert found["price"].distance == pytest.approx(ks_2samp(*prices).statistic, abs=0.011)
    assert 0 < found["device"].distance < 0.1
    assert found["history_length"].distance > 0.2


def _word_counts(data):
    """Words of the item vocabulary and the share that is too rare for it, from the statistics."""
    described = data.stats["vocabularies"]["item_id"]
    words = (data.vocab_dir / "item_id.txt").read_text().splitlines()
    counts = [
        int(count)
        for count in sorted(described["words_by_count"], key=int, reverse=True)
        for _ in range(described["words_by_count"][count])
    ]
    return dict(zip(words, counts, strict=True)) | {"(rare)": described["rare"]}


def _history_prices(data):
    """A hundred prices in training histories, in the place of all."""
    return data.stats["splits"]["train"]["features"]["history/price"]["percentiles"][1:]


def test_the_table_marks_what_exceeds_its_limit(old, new):
    drifts = validate.compare(new, old)
    names = [row.name for row in drifts]
    limits = validate.parse_limits("0.05,age:0.9,user_id:1", names)
    assert limits == {**dict.fromkeys(names, 0.05), "age": 0.9, "user_id": 1.0}
    marked = {
        line.split()[0]
        for line in validate.table(drifts, limits).splitlines()
        if line.endswith("EXCEEDED")
    }
    assert {"item_id", "price", "history_length"} <= marked
    assert not {"age", "user_id"} & marked
    assert validate.parse_limits(None, names) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "expected numbers from 0 to 1, found 'much'"),
        ("2", "expected numbers from 0 to 1, found '2'"),
        ("nan", "expected numbers from 0 to 1, found 'nan'"),
        ("item:0.1", r"expected features of both data sets .*, found 'item'. Fix: .*'item_id'"),
    ],
)
def test_wrong_limits_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        validate.parse_limits(text, ["user_id", "item_id"])


def test_features_of_one_side_or_of_another_encoder_are_left_out(directory, old):
    other = [
        feature | {"encoder": {"kind": "hash", "buckets": 9}} if feature["name"] == "device"
        else feature
        for feature in FEATURES
        if feature["name"] != "age"
    ]  # fmt: skip
    data = _build(directory, "other", 0, 0.0, 0.0, features=other)
    assert [row.name for row in validate.compare(old, data)] == [
        "user_id", "item_id", "price", "history_length",
    ]  # fmt: skip
    text, is_alike = validate.report(old.path, data.path)
    assert not is_alike
    assert "schema: features[device].encoder.buckets: 50 here, 9 there\n" in text


def test_limits_decide(old, new):
    assert validate.report(old.path, old.path, "0")[1]
    assert validate.report(new.path, old.path)[1]
    text, is_alike = validate.report(new.path, old.path, "0.01")
    assert not is_alike
    assert "EXCEEDED" in text
    with pytest.raises(UserError, match="expected features of both data sets"):
        validate.report(new.path, old.path, "colour:0.1")


def test_the_command_tells_by_its_status_and_loads_little(old, new):
    program = f"""
import sys
from pipeline import validate
sys.argv = ["validate", {str(new.path)!r}, "--against={old.path}", "--max_drift=0.01"]
assert not any(name in sys.modules for name in ("tensorflow", "matplotlib", "apache_beam"))
validate.console_main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == validate.report(new.path, old.path, "0.01")[0]


def test_statistics_of_an_earlier_version_are_refused(old):
    stats = {key: value for key, value in old.stats.items() if key != "vocabularies"}
    with pytest.raises(UserError, match="Expected the key 'vocabularies' in .*stats.json"):
        statistics.require(dataclasses.replace(old, stats=stats))


def test_distances_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts, others = rng.integers(0, 5, (2, 9))
        counts[0], others[8] = 1, 1
        assert drift.jensen_shannon(counts, others) == pytest.approx(
            jensenshannon(counts, others, base=2) ** 2, abs=1e-6
        )
        values = [np.repeat(np.arange(9), some) for some in (counts, others)]
        assert drift.kolmogorov_smirnov(counts, others) == pytest.approx(
            ks_2samp(*values).statistic, abs=1e-6
        )
    apart = np.array([3, 0]), np.array([0, 5])
    assert drift.jensen_shannon(*apart) == drift.kolmogorov_smirnov(*apart) == 1
    nothing = np.zeros(2, np.int64)
    assert drift.jensen_shannon(apart[0], nothing) is None
    assert drift.kolmogorov_smirnov(nothing, apart[0]) is None
