"""pipeline.stats.findings: each rule at its boundary, on statistics of builds and numbers alone."""

import html
import json

import numpy as np
import pytest

from pipeline import data_card
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.stats import findings
from preprocessing.schema import Schema
from preprocessing.splits import SPLITS
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import write_log

VOCABULARY = {"kind": "vocabulary"}
NUMERIC = {"kind": "numeric", "normalisation": "none"}


def _schema(is_impression_log=True, price=None):
    label = [{"name": "label", "role": "label", "dtype": "int64"}] if is_impression_log else []
    return Schema.from_json(
        {
            "features": [
                {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
                {"name": "device", "role": "context", "dtype": "string", "default": "unknown",
                 "encoder": VOCABULARY},
                {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
                {"name": "seller", "role": "item", "dtype": "string",
                 "encoder": {"kind": "hash", "buckets": 1000}},
                {"name": "price", "role": "item", "dtype": "float32",
                 "encoder": {"kind": "numeric"}, **(price or {})},
                {"name": "size", "role": "item", "dtype": "int64",
                 "encoder": {"kind": "bucketised", "boundaries": [10.0, 20.0]}},
                *label,
                {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
            ],
            "history": {"features": ["item_id", "seller"]},
        }
    )  # fmt: skip


def _sound():
    """Statistics that nothing speaks against."""
    words = {"count": 2000, "missing": 0, "defaulted": 0, "distinct": 2, "oov_rate": 0.0,
             "top_values": {"a": 1500, "b": 500}}  # fmt: skip
    hashed = {key: value for key, value in words.items() if key != "oov_rate"}
    price = {"count": 2000, "missing": 0, "defaulted": 0, "distinct": 9,
             "percentiles": np.linspace(1, 9, 101).tolist()}  # fmt: skip
    split = {
        "requests": 2000,
        "candidates": 2000,
        "positives": 1000,
        "history_length": {"0": 10, "5": 1990},
        "features": {
            "user_id": words,
            "device": words,
            "candidate/item_id": words,
            "history/item_id": words,
            "candidate/seller": hashed,
            "history/seller": hashed,
            "candidate/price": price,
            "candidate/size": {**price, "percentiles": np.linspace(5, 25, 101).tolist()},
        },
    }
    return {
        "splits": {name: json.loads(json.dumps(split)) for name in SPLITS},
        "encoders": {"size": {"boundaries": [10.0, 20.0]}, "price": {}, "seller": {}, "device": {},
                     "user_id": {}, "item_id": {}},
    }  # fmt: skip


def _found(change, schema=None):
    stats = _sound()
    change(stats["splits"])
    return findings.of_data(schema or _schema(), stats)


def _set(key, splits=SPLITS, **figures):
    """Changes what some splits say of a key."""

    def change(by_split):
        for name in splits:
            by_split[name]["features"][key] |= figures

    return change


def _set_split(name, **figures):
    return lambda by_split: by_split[name].update(figures)


def test_nothing_speaks_against_sound_data():
    assert _found(lambda by_split: None) == []


@pytest.mark.parametrize(
    ("change", "beginning", "consequence"),
    [
        (
            _set_split("validation", requests=0, candidates=0, positives=0),
            "validation has no requests",
            "weights cannot be chosen by its AUC",
        ),
        (
            _set_split("test", requests=0, candidates=0, positives=0),
            "test has no requests, so no metric of it exists",
            "longer log",
        ),
        (
            _set_split("validation", positives=0),
            "validation has no positive among its 2,000 candidates: its AUC, GAUC and ranking",
            "and weights cannot be chosen by its AUC; check the column of the label",
        ),
        (
            _set_split("test", positives=2000),
            "test has no negative among its 2,000 candidates: its AUC, GAUC and ranking metrics",
            'check the column of the label and its "positive"',
        ),
        (
            _set_split("train", positives=0),
            "train has no positive among its 2,000 candidates",
            "a model learns to say 0 to everything",
        ),
        (
            _set_split("train", history_length={"0": 2000}),
            "no training request has a history",
            "models of sequences have nothing to read",
        ),
    ],
)
def test_a_split_that_cannot_serve(change, beginning, consequence):
    (line,) = _found(change)
    assert line.startswith(beginning)
    assert consequence in line


@pytest.mark.parametrize(
    "change",
    [
        _set_split("test", positives=800),
        _set_split("test", positives=1200),
        _set_split("train", positives=1),
        _set_split("train", positives=1999),
        _set_split("train", history_length={"0": 1999, "1": 1}),
    ],
)
def test_one_of_each_kind_is_enough(change):
    assert _found(change) == []


def _unknown(positives, negatives):
    """1,000 candidates of each label, so many of them unknown items."""
    counted = {"positives": 1000, "negatives": 1000}
    return counted | {"unknown_positives": positives, "unknown_negatives": negatives}


@pytest.mark.parametrize(
    ("unknown", "is_impression_log", "parts"),
    [
        ((286, 46), False, ("AUC of 0.620 (28.6% of the positives are unknown items, 4.6% of the",
                            "by up to 0.24", "compare models by their AUC over known items")),
        ((46, 286), False, ("AUC of 0.380", "by up to 0.24", "--negative_sampling=available")),
        ((46, 286), True, ("AUC of 0.380", "compare models by their AUC over known items")),
        ((148, 46), False, ("AUC of 0.551", "by up to 0.10")),
    ],
)  # fmt: skip
def test_labels_that_follow_from_whether_an_item_is_known(unknown, is_impression_log, parts):
    change = _set_split("test", unknown_items=_unknown(*unknown))
    (line,) = _found(change, _schema(is_impression_log))
    assert line.startswith("test: whether training knows an item tells positives from negatives")
    for part in parts:
        assert part in line


def test_a_bit_that_tells_little_or_nothing_is_no_finding():
    def change(by_split):
        by_split["train"]["unknown_items"] = _unknown(900, 0)  # nothing is chosen or judged by it
        by_split["validation"]["unknown_items"] = _unknown(99, 0)
        one_sided = _unknown(0, 900) | {"positives": 0}
        by_split["test"]["unknown_items"] = one_sided

    assert _found(change) == []


def test_requests_left_out_are_said():
    (line,) = _found(_set_split("train", requests_left_out=500))
    assert line.startswith(
        "train leaves out 500 of 2,500 requests, for which there were fewer items"
    )


@pytest.mark.parametrize(("label", "positives"), [(0, 0), (1, 2000)])
def test_labels_of_one_kind_throughout_are_one_line(label, positives):
    def change(by_split):
        for name in SPLITS:
            by_split[name]["positives"] = positives

    (line,) = _found(change)
    assert line.startswith(f"all 6,000 labels are {label}: a model learns to say {label}")
    (line,) = _found(change, _schema(is_impression_log=False))
    assert line.endswith("build with --negatives of at least 1.")


def test_too_few_candidates_for_an_auc():
    """The exact variance of the AUC of random scores (Mann and Whitney), drawn here."""
    rng = np.random.default_rng(0)
    label = np.repeat([1, 0], [40, 60])
    ranks = rng.random((20_000, 100)).argsort(axis=1).argsort(axis=1) + 1
    aucs = (ranks[:, label == 1].sum(axis=1) - 40 * 41 / 2) / (40 * 60)
    half = 1.96 * aucs.std()
    for split in SPLITS[1:]:
        (line,) = _found(_set_split(split, requests=100, candidates=100, positives=40))
        assert line.startswith(f"{split} has 40 positives and 60 negatives: by chance alone")
        assert f"moves by {half:.2f} up or down" in line
        assert ("weights are chosen by it" in line) == (split == "validation")
    # With as many of both, 1.96 / sqrt(6 n) is 0.05 at n = 256.1.
    assert not _found(_set_split("test", candidates=514, positives=257))
    assert len(_found(_set_split("test", candidates=510, positives=255))) == 1


@pytest.mark.parametrize(
    ("figures", "share"),
    [
        ({"defaulted": 2000}, "all"),
        ({"defaulted": 1980}, "at least 99% of the"),
        ({"missing": 1000, "defaulted": 990}, "at least 99% of the"),
        ({"defaulted": 1979}, None),
    ],
)
def test_a_feature_that_the_log_does_not_have(figures, share):
    lines = _found(_set("device", **figures))
    expected = (
        f"device: {share} values of train, validation and test are missing in the log (the default "
        "'unknown' stands in): it tells nothing; check its column."
    )
    assert lines == ([] if share is None else [expected])


def test_a_feature_that_stops_in_a_later_split_names_the_split():
    lines = _found(_set("candidate/price", ["test"], missing=2000))
    assert lines == [
        "price: all values of test are missing in the log: it tells nothing; check its column."
    ]


def test_a_key_that_is_bad_alone_is_named():
    (line,) = _found(_set("candidate/item_id", ["validation", "test"], oov_rate=1.0))
    assert line.startswith(
        "candidate/item_id: all values of validation and test are out of the training vocabulary: "
        "a model cannot tell them apart"
    )


@pytest.mark.parametrize(
    ("rate", "share"), [(1.0, "all"), (0.995, "at least 99% of the"), (0.99, "at least 99% of the")]
)
def test_values_that_training_never_saw(rate, share):
    (line,) = _found(_set("device", ["test"], oov_rate=rate))
    assert line.startswith(f"device: {share} values of test are out of the training vocabulary")
    assert not _found(_set("device", ["test"], oov_rate=0.989))


def test_values_too_rare_for_the_vocabulary():
    (line,) = _found(_set("device", oov_rate=1.0))
    assert line.startswith("device: all values of train, validation and test are out of")
    assert "min_count" in line


@pytest.mark.parametrize(
    ("change", "beginning"),
    [
        (
            _set("device", ["train"], top_values={"a|b\x1b": 2000}),
            r"device: every training value is 'a|b\x1b'",
        ),
        (
            _set("candidate/price", ["train"], percentiles=[7.5] * 101),
            "price: every training value is 7.5",
        ),
        (
            _set("candidate/size", ["train"], percentiles=np.linspace(10, 19.9, 101).tolist()),
            "size: all training values (10 to 19.9) fall into one interval",
        ),
    ],
)
def test_a_feature_that_is_constant(change, beginning):
    (line,) = _found(change)
    assert line.startswith(beginning)
    assert "it tells nothing apart" in line


@pytest.mark.parametrize(
    "change",
    [
        _set("device", ["train"], top_values={"a": 1999, "b": 1}),
        _set("candidate/price", ["train"], percentiles=[7.5] * 100 + [7.6]),
        _set("candidate/price", ["train"], percentiles=[7.5] * 101, missing=1),
        _set("candidate/size", ["train"], percentiles=np.linspace(9.9, 19, 101).tolist()),
        _set("candidate/seller", ["train"], top_values={"a": 2000}),  # the history has others
    ],
)
def test_two_values_are_not_constant(change):
    assert not _found(change)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 0.0), (-3.0, -1.0), (0.0, 0.0)])
def test_weights_that_are_never_above_zero(low, high):
    schema = _schema(price={"encoder": NUMERIC})
    numbers = np.linspace(low, high, 101).tolist()
    (line,) = _found(_set("candidate/price", ["train"], percentiles=numbers), schema)
    assert line.startswith(f"price: no training value is above 0 (they are {low:g} to {high:g})")
    assert "train.sample_weight" in line
    above = _set("candidate/price", ["train"], percentiles=[*numbers[:-1], 0.001])
    assert not _found(above, schema)


def test_negative_numbers_that_are_normalised_are_numbers_like_others():
    assert not _found(_set("candidate/price", percentiles=np.linspace(-9, -1, 101).tolist()))


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_that_float32_rounds(sign):
    numbers = sorted(sign * number for number in np.linspace(1, 1e10, 101))
    (line,) = _found(_set("candidate/price", ["test"], percentiles=numbers))
    assert line.startswith("price: values reach 1e+10, where float32 numbers lie 1,024 apart")
    numbers = np.linspace(1, 2**24 - 1, 101).tolist()
    assert not _found(_set("candidate/price", percentiles=numbers))
    assert _found(_set("candidate/price", percentiles=[*numbers[:-1], 2.0**24]))
    whole = {"dtype": "int64"}
    assert not _found(
        _set("candidate/price", percentiles=[*numbers[:-1], 1e10]), _schema(price=whole)
    )


def test_numbers_that_drown_the_others():
    for dtype in ("float32", "int64"):
        schema = _schema(price={"encoder": NUMERIC, "dtype": dtype})
        assert not _found(_set("candidate/price", percentiles=np.linspace(1, 999, 101)), schema)
        (line,) = _found(_set("candidate/price", percentiles=np.linspace(1, 1000, 101)), schema)
        assert line.startswith("price: values reach 1,000 and are not normalised")
        assert "training may diverge" in line
    assert not _found(_set("candidate/price", percentiles=np.linspace(1, 1000, 101)))


def test_a_hash_with_too_few_buckets():
    """Half of n values have a bucket of their own where n / buckets is the logarithm of 2."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        buckets = np.bincount(rng.integers(0, 1000, 3000), minlength=1000)
        shares.append(buckets[buckets > 1].sum() / 3000)
    (line,) = _found(_set("history/seller", ["train"], distinct=3000))
    assert line.startswith(
        f"seller: about {np.mean(shares):.0%} of its 3,000 training values share"
    )
    assert "1,000 buckets" in line
    assert len(_found(_set("history/seller", ["train"], distinct=695))) == 1
    assert not _found(_set("history/seller", ["train"], distinct=693))


def test_a_build_records_what_it_finds(tmp_path):
    """A log with most of what can be wrong; stats.json and the data set say it."""
    rng = np.random.default_rng(1)
    rows = 600
    log = {
        "user_id": [f"u{n % 40}" for n in range(rows)],
        "device": [""] * rows,
        "item_id": [f"i{n}" for n in rng.integers(0, 50, rows)],
        "seller": [f"s{n}" for n in rng.integers(0, 3000, rows)],
        "price": (1e10 + rng.integers(0, 100, rows)).tolist(),
        "size": [3] * rows,
        "label": [int(n % 3 == 0 and n < 480) for n in range(rows)],
        "timestamp": list(range(rows)),
    }
    schema = _schema().to_json()
    schema["features"][3]["encoder"]["buckets"] = 20
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    arguments = BuildArguments(
        input=write_log(tmp_path / "log.csv", log),
        output=str(tmp_path / "data"),
        schema=str(tmp_path / "schema.json"),
        protocol="time_split",
        min_history=0,
        num_shards=1,
    )
    with inline():
        data = build_examples(arguments)
    assert data.findings == findings.of_data(data.schema, data.stats) == data.stats["findings"]
    beginnings = [
        "validation has 16 positives and",
        "test has no positive among its 120 candidates",
        "device: all values of train, validation and test are missing in the log (the default",
        "seller: about 100% of its",
        "price: every training value is 1e+10",
        "price: values reach 1e+10, where float32",
        "size: every training value is 3",
    ]
    assert len(data.findings) == len(beginnings)
    for line, beginning in zip(data.findings, beginnings, strict=True):
        assert line.startswith(beginning)
    page = data_card.write_card(data.path)
    shown, listed = html.unescape(page.read_text()), page.with_suffix(".md").read_text()
    for line in data.findings:
        assert f"<li>{line}</li>" in shown
        assert f"* {line}\n" in listed
