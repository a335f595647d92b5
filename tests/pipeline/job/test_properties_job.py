"""The whole job against brute force, on logs that Hypothesis makes up.

Logs are small and nasty: few users and items, equal times, equal rows, categories that change from
event to event. The stages run in one thread, in an order that a seed chooses (`inline_runner`);
that Beam's own runner gives the same bytes is checked in test_build_examples.py.
"""

import collections
import json
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from preprocessing.data_dir import word_counts
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import read_examples, shard_bytes
from tests.helpers.small_logs import write_log
from tests.reference.job import SPLITS, Job, NothingLeftError

# Without shrinking: a failure is shown as it is found, within seconds.
SETTINGS = settings(derandomize=True, phases=(Phase.explicit, Phase.generate), database=None)
KEYS = (
    "user_id",
    "hour",
    "candidate/item_id",
    "candidate/category_id",
    "history/item_id",
    "history/category_id",
)


@st.composite
def logs(draw):
    """Events (user, item, time, category, row)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    unit = draw(st.sampled_from([1, 50_000]))
    users, items, times = draw(st.sampled_from([(3, 8, 12), (6, 14, 30), (6, 40, 6)]))
    size = draw(st.integers(20, 70))
    return [
        (f"u{user}", f"i{item}", unit * int(time), f"c{category}", row)
        for row, (user, item, time, category) in enumerate(
            zip(
                np.minimum(rng.geometric(0.3, size), users),
                rng.integers(0, items, size),
                rng.integers(0, times, size),
                rng.integers(0, 3, size),
                strict=True,
            )
        )
    ]


PROTOCOLS = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["leave_last_out", "time_split"]),
        "split_fraction": st.sampled_from([0.5, 0.8]),
        "validation_fraction": st.sampled_from([0.2, 0.5]),
        "train_prefixes": st.sampled_from(["last", "all"]),
        "min_history": st.integers(0, 2),
        "negatives": st.integers(0, 5),
        "min_user_events": st.sampled_from([1, 1, 5]),
        "min_item_events": st.sampled_from([1, 1, 2, 3]),
        "max_user_events": st.sampled_from([5, 10_000, 10_000]),
        "core_filter": st.sampled_from(["once", "fixed_point"]),
    }
)


SAMPLING = st.sampled_from(["uniform", "popularity", "available", "available_popularity"])


def _schema(directory, max_length):
    vocabulary = {"kind": "vocabulary"}
    features = [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
        {"name": "hour", "column": "timestamp", "role": "context", "dtype": "int64",
         "encoder": {"kind": "numeric", "normalisation": "none"}},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
        {"name": "category_id", "role": "item", "dtype": "string", "encoder": vocabulary},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]  # fmt: skip
    path = directory / "schema.json"
    path.write_text(json.dumps({"features": features, "history": {"max_length": max_length}}))
    return str(path)


def _build(directory, events, max_length, cut, order, output="data", **arguments):
    """Builds from two files, the log cut at `cut`, with work done in an order chosen by `order`."""
    paths = []
    for part, some in enumerate((events[:cut], events[cut:])):
        names = ("user_id", "item_id", "timestamp", "category_id")
        log = {name: [event[i] for event in some] for i, name in enumerate(names)}
        if some:
            paths.append(write_log(directory / f"{part}.csv", log))
    with inline(order):
        return build_examples(
            BuildArguments(
                input=",".join(paths),
                output=str(directory / output),
                schema=_schema(directory, max_length),
                num_shards=1,
                **arguments,
            )
        )


def _expected(events, max_length, arguments):
    try:
        return Job(events, max_length=max_length, **arguments)
    except NothingLeftError:
        return None


@settings(SETTINGS, max_examples=60)
@given(
    logs(),
    PROTOCOLS,
    st.integers(1, 5),
    st.integers(0, 50),
    st.integers(1, 3),
    SAMPLING,
)
def test_the_job_equals_brute_force(events, arguments, max_length, cut, partitions, sampling):
    only_available = sampling.startswith("available")
    expected = _expected(events, max_length, {**arguments, "only_available": only_available})
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        more = {"num_partitions": partitions, "negative_sampling": sampling}
        if expected is None:
            with pytest.raises(UserError):
                _build(directory, events, max_length, cut, 0, **arguments, **more)
            return
        data = _build(directory, events, max_length, cut, 0, **arguments, **more)
        _check_requests(data, expected, arguments["negatives"])
        _check_account(data, expected, events)
        _check_statistics(data, expected)
        assert audit(data.path) == {}


def _check_requests(data, expected, num_negatives):
    encode = {name: encoder.encode for name, encoder in data.encoders.items()}
    for split in SPLITS:
        examples = read_examples(data, split)
        assert examples.keys() == expected.requests[split].keys()
        catalogue = expected.catalogues[split]
        category_of = {
            (encode["item_id"]([item])[0], encode["category_id"]([event[3]])[0])
            for item, event in catalogue.items()
        }
        for request, (positive, history) in expected.requests[split].items():
            example = examples[request]
            for field, name in ((1, "item_id"), (3, "category_id")):
                raw = [event[field] for event in history]
                assert example[f"history/{name}"] == encode[name](raw).tolist()
            assert example["history/timestamp"] == [event[2] for event in history]
            assert example["timestamp"] == [positive[2]]
            assert example["hour"] == [positive[2]]
            assert example["user_id"] == encode["user_id"]([positive[0]]).tolist()
            pairs = list(
                zip(example["candidate/item_id"], example["candidate/category_id"], strict=True)
            )
            assert set(pairs) <= category_of
            place = example["label"].index(1)
            assert sum(example["label"]) == 1
            features = catalogue[positive[1]]
            assert pairs[place] == (
                encode["item_id"]([positive[1]])[0],
                encode["category_id"]([features[3]])[0],
            )
            drawn = [item for item, _ in pairs[:place] + pairs[place + 1 :]]
            assert len(drawn) == num_negatives
            free = encode["item_id"](sorted(expected.drawable(split, positive))).tolist()
            assert not collections.Counter(drawn) - collections.Counter(free)  # distinct, allowed
    for name in encode.keys() - {"hour"}:
        counts = collections.Counter(expected.vocabulary_values(name))
        words = sorted(counts, key=lambda word: (-counts[word], word.encode()))
        assert (data.vocab_dir / f"{name}.txt").read_text().splitlines() == words
        stored = data.stats["vocabularies"][name]
        assert word_counts(stored).tolist() == [counts[word] for word in words]


def _check_account(data, expected, events):
    account = data.manifest["conservation"]
    assert account["read"] == len(events)
    assert account["used"] == len(expected.used())
    assert account["filtered"] == dict(expected.filtered)
    stats = data.stats["splits"]
    assert {name: stats[name]["requests_left_out"] for name in SPLITS} == expected.left_out


def _check_statistics(data, expected):
    first_use = expected.first_use()
    known = {name: set(expected.vocabulary_values(name)) for name in data.stats["vocabularies"]}
    for split in SPLITS:
        stats, requests = data.stats["splits"][split], expected.requests[split].values()
        assert stats["requests"] == stats["positives"] == len(requests)
        assert stats["users"] == len({positive[0] for positive, _ in requests})
        assert stats["items"] == len({positive[1] for positive, _ in requests})
        assert stats["items_to_draw_from"] == len(expected.catalogues[split])
        lengths = collections.Counter(str(len(history)) for _, history in requests)
        assert stats["history_length"] == lengths
        period = data.stats["period"]
        assert stats["events_by_period"] == collections.Counter(
            str(event[2] // period * period) for event, use in first_use.items() if use == split
        )
        for key in KEYS:
            values, trained = expected.values(split, key), expected.values("train", key)
            described, counts = stats["features"][key], collections.Counter(values)
            assert described["count"] == len(values)
            assert described["distinct"] == len(counts)
            assert described["missing"] == 0
            if key == "hour":
                _check_numbers(described, values, trained, split)
                continue
            assert described["top_values"] == counts
            unknown = sum(value not in known[key.split("/")[-1]] for value in values)
            assert described["oov_rate"] == (unknown / len(values) if values else 0)
            if split != "train":
                assert described["drift"] == _jensen_shannon(counts, collections.Counter(trained))


def _check_numbers(described, values, trained, split):
    if values:
        assert described["mean"] == pytest.approx(np.mean(values))
        assert described["std"] == pytest.approx(np.std(values))
        # The smallest value that p percent do not exceed; in integers, because np.percentile rounds
        # 0.28 * 25 up to 8.
        places = [max(1, -(-p * len(values) // 100)) - 1 for p in range(101)]
        assert described["percentiles"] == [sorted(values)[place] for place in places]
    if split != "train" and values:
        assert described["drift"] == pytest.approx(ks_2samp(values, trained).statistic, abs=1e-6)


def _jensen_shannon(counts, others):
    if not counts or not others:
        return None
    values = sorted(counts | others)
    here, there = ([some[value] for value in values] for some in (counts, others))
    return pytest.approx(jensenshannon(here, there, base=2) ** 2, abs=1e-6)


@settings(SETTINGS, max_examples=12)
@given(logs(), PROTOCOLS, st.integers(1, 4), st.integers(2, 4), st.integers(1, 99), SAMPLING)
def test_no_order_of_work_changes_a_byte(
    events, arguments, max_length, partitions, order, sampling
):
    only_available = sampling.startswith("available")
    if _expected(events, max_length, {**arguments, "only_available": only_available}) is None:
        return
    arguments = {**arguments, "negative_sampling": sampling}
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        built = [
            _build(
                directory, events, max_length, 20, n * order, output=f"data{n}",
                num_partitions=1 + n * (partitions - 1), **arguments,
            )
            for n in range(2)
        ]  # fmt: skip
        assert shard_bytes(built[0].path) == shard_bytes(built[1].path)
        for name in ("stats.json", "manifest.json"):
            first, second = ((data.path / name).read_bytes() for data in built)
            assert first == second
