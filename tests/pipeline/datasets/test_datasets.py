"""Published logs in their raw formats: what becomes of every row."""

import collections
import datetime
import gzip
import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.datasets import ADAPTERS, item_history, read_canonical
from pipeline.datasets.amazon_reviews import _parse
from pipeline.datasets.item_history import ItemHistory
from pipeline.log import readers
from pipeline.log.csv_dialect import Dialect
from pipeline.log.input_files import list_inputs
from pipeline.log.row_checks import LINE, TIME, validate
from preprocessing.errors import UserError
from tests.helpers import published_logs
from tests.helpers.small_data_sets import read_examples, shard_bytes

DAY = 86_400
FIRST = int(datetime.datetime(2017, 11, 25, tzinfo=published_logs.CHINA).timestamp())


def _events(first=FIRST, users=25, items=30, steps=36, step=DAY // 4, seed=0):
    """(user, item, time): distinct times of a user, items more than once."""
    rng = np.random.default_rng(seed)
    rows = [
        (user + 1, int(item) + 100, first + int(place) * step)
        for user in range(users)
        for length in [rng.integers(1, 10)]
        for item, place in zip(
            rng.integers(0, items, length), rng.permutation(steps)[:length], strict=True
        )
    ]
    return [rows[i] for i in rng.permutation(len(rows))]


def _category(item):
    return item % 7


def _canonical(name, log, metadata=None, behaviours=()):
    """Events that the adapter makes of a log as a frame, and the counts of all other rows."""
    kind = ADAPTERS[name]
    schema = kind.schema(behaviours)
    items = None
    if metadata is not None:
        files = list_inputs(metadata, "--metadata")
        snapshots, _ = item_history.collect(kind.read_items(files), pytest.fail)
        items = ItemHistory(snapshots)
    frames, filtered, rejected = [], collections.Counter(), []
    for file in list_inputs(log, dialect=Dialect(header=kind.header)):
        for part in readers.ranges(file):
            for batch in read_canonical(part, schema, kind(items)):
                result = validate(batch, schema)
                frames.append(result.events.to_pandas())
                filtered.update(result.filtered)
                rejected += [(r.line, r.reason) for r in result.rejections]
    frame = pd.concat(frames).set_index(LINE).rename(columns={TIME: "timestamp"})
    return frame.drop(columns=frame.filter(like="#").columns), dict(filtered), rejected


def _build(tmp_path, name, log, metadata=None, output="data", **arguments):
    return build_examples(
        BuildArguments(
            dataset=name,
            input=log,
            metadata=metadata,
            output=str(tmp_path / output),
            num_shards=2,
            **arguments,
        )
    )


def _rejected(data):
    return [
        json.loads(line)
        for file in sorted((data.path / "rejected").iterdir())
        for line in file.read_text().splitlines()
    ]


class TestTaobao:
    def _raw(self, directory):
        events = _events()
        behaviours = [("pv", "pv", "pv", "buy", "cart")[n % 5] for n in range(len(events))]
        outside = [(1, 100, FIRST - 1), (1, 100, FIRST + 9 * DAY), (1, 100, -5)]
        log, _ = published_logs.taobao(
            directory, events + outside, _category, behaviours + ["pv"] * len(outside)
        )
        return events, behaviours, log

    def test_rows(self, tmp_path):
        events, behaviours, log = self._raw(tmp_path)
        frame, filtered, rejected = _canonical("taobao", log)
        assert frame.to_dict("index") == {
            line: {
                "user_id": str(user),
                "item_id": str(item),
                "category_id": str(_category(item)),
                "timestamp": time,
            }
            for line, ((user, item, time), behaviour) in enumerate(
                zip(events, behaviours, strict=True), 1
            )
            if behaviour == "pv"
        }
        others = sum(behaviour != "pv" for behaviour in behaviours)
        assert filtered == {"out_of_window": 3, "behaviours": others}
        assert rejected == []

    def test_other_behaviours(self, tmp_path):
        _, behaviours, log = self._raw(tmp_path)
        frame, _, _ = _canonical("taobao", log, behaviours=("buy", "cart"))
        assert len(frame) == sum(behaviour != "pv" for behaviour in behaviours)

    def test_the_last_second_counts(self, tmp_path):
        log, _ = published_logs.taobao(tmp_path, [(1, 2, FIRST + 9 * DAY - 1)], _category, ["pv"])
        assert len(_canonical("taobao", log)[0]) == 1

    def test_bad_rows_keep_file_line_and_reason(self, tmp_path):
        events, _, log = self._raw(tmp_path)
        with open(log, "ab") as file:
            file.write(
                b"1,2,3,pv\n1,2,3,pv,noon\n,2,3,pv,1511539200\n\xff,2,3\n1,\xfe,3,pv,1511539200\n"
            )
        data = _build(tmp_path, "taobao", log, max_bad_fraction=0.5)
        first = len(events) + 4
        assert sorted((row["line"], row["reason"]) for row in _rejected(data)) == [
            (first, "too few fields: expected 5, found 4"),
            (first + 1, "column 'timestamp': not an integer"),
            (first + 2, "column 'user_id': missing value"),
            (first + 3, "too few fields: expected 5, found 3"),
            (first + 4, "column 'item_id': invalid UTF-8"),
        ]
        excerpts = {row["line"]: row["excerpt"] for row in _rejected(data)}
        assert excerpts[first + 3] == "\\xff,2,3"
        assert {row["file"] for row in _rejected(data)} == {log}
        account = data.manifest["conservation"]
        assert account["read"] == len(events) + 8
        assert account["filtered"]["out_of_window"] == 3

    def test_a_build_holds_what_pandas_computes(self, tmp_path):
        events, behaviours, log = self._raw(tmp_path)
        data = _build(tmp_path, "taobao", log, protocol="time_split", min_user_events=3)
        frame = pd.DataFrame(events, columns=["user", "item", "time"])
        frame = frame[[behaviour == "pv" for behaviour in behaviours]]
        frame = frame[frame.groupby("user")["user"].transform("size") >= 3]
        frame = frame.sort_values(["user", "time"])
        end = data.manifest["cutoffs"]["validation_end"]
        assert (frame["time"] <= end).mean() >= 0.8 > (frame["time"] < end).mean()
        test = read_examples(data, "test")
        positives = frame[(frame["time"] > end) & (frame.groupby("user").cumcount() > 0)]
        assert len(test) == len(positives)
        for request, example in test.items():
            user = int(request.split(":")[0])
            before = frame[(frame["user"] == user) & (frame["time"] < example["timestamp"][0])]
            assert example["history/timestamp"] == before["time"].tolist()
            categories = [str(_category(item)) for item in before["item"]]
            encoded = data.encoders["category_id"].encode(categories).tolist()
            assert example["history/category_id"] == encoded


class TestAmazonReviews:
    CATEGORIES = {
        100: [["Toys", "Games"], ["Toys", "Puzzles", "Jigsaws"]],
        101: [["Toys"]],
        102: [],  # in the metadata, without a category
        103: None,  # not in the metadata
    }

    def _raw(self, directory):
        events = [(u, f"B{i}", t) for u, i, t in _events(first=DAY * 9000, step=DAY, items=4)]
        categories = {f"B{item}": paths for item, paths in self.CATEGORIES.items()}
        return events, *published_logs.amazon_reviews(directory, events, categories)

    def test_rows(self, tmp_path):
        events, log, metadata = self._raw(tmp_path)
        frame, filtered, rejected = _canonical("amazon_reviews", log, metadata)
        leaf = {"B100": "Jigsaws", "B101": "Toys", "B102": "unknown", "B103": "unknown"}
        assert frame.to_dict("index") == {
            line: {
                "user_id": str(user),
                "item_id": item,
                "category_id": leaf[item],
                "timestamp": time,
            }
            for line, (user, item, time) in enumerate(events, 1)
        }
        assert (filtered, rejected) == ({}, [])

    def test_items_without_a_category_and_bad_lines_are_counted(self, tmp_path):
        events, log, metadata = self._raw(tmp_path)
        pathlib.Path(log).write_bytes(
            pathlib.Path(log).read_bytes() + gzip.compress(b'{"asin": "B100"}\nnothing\n')
        )
        bad = b"{'asin': 'B1', \n{'title': 'no asin', 'categories': [['Toys']]}\n['B1']\n\xff\n"
        pathlib.Path(metadata).write_bytes(pathlib.Path(metadata).read_bytes() + gzip.compress(bad))
        data = _build(tmp_path, "amazon_reviews", log, metadata, max_bad_fraction=0.7)
        unknown = sum(item in ("B102", "B103") for _, item, _ in events)
        assert data.stats["defaulted"] == {"category_id": unknown}
        assert data.manifest["metadata"] == {
            "read": 7,
            "items": 2,
            "filtered/no_value": 1,
            "rejected/neither a JSON object nor a Python dictionary": 3,
            "rejected/no item": 1,
        }
        rejected = {(pathlib.Path(r["file"]).name, r["line"], r["reason"]) for r in _rejected(data)}
        not_parsed = "neither a JSON object nor a Python dictionary"
        assert rejected == {
            ("meta_Toys.json.gz", 4, not_parsed),
            ("meta_Toys.json.gz", 5, "no item"),
            ("meta_Toys.json.gz", 6, not_parsed),
            ("meta_Toys.json.gz", 7, not_parsed),
            ("reviews_Toys_5.json.gz", len(events) + 1, "column 'user_id': missing value"),
            ("reviews_Toys_5.json.gz", len(events) + 2, "not JSON"),
        }
        with pytest.raises(UserError, match=r"at most 10.00% bad rows, found 4 of 7"):
            _build(tmp_path, "amazon_reviews", log, metadata, max_bad_fraction=0.1, overwrite=True)

    def test_metadata_of_2018_is_json_with_one_path(self, tmp_path):
        events, log, _ = self._raw(tmp_path)
        lines = [{"asin": f"B{n}", "category": ["Toys", f"leaf {n}"]} for n in range(100, 104)]
        path = tmp_path / "meta.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        frame, _, _ = _canonical("amazon_reviews", log, str(path))
        assert frame["category_id"].tolist() == [f"leaf {item[1:]}" for _, item, _ in events]

    @pytest.mark.parametrize(
        ("line", "content"),
        [
            (r"""{'a': 'it\'s', "b": "it's", 'c': 'say "x"'}""",
             {"a": "it's", "b": "it's", "c": 'say "x"'}),
            (r"""{'a': '\x41\u00e4\n', 'b': ''}""", {"a": "A\u00e4\n", "b": ""}),
            ("{'a': None, 'b': True, 'c': (1, 2.5)}", {"a": None, "b": True, "c": (1, 2.5)}),
            ("{u'a': [], 'b': {'c': -1e3}}", {"a": [], "b": {"c": -1000.0}}),
            ('{"a": "\'json\'"}', {"a": "'json'"}),
            ("{'a': __import__('os')}", None),
            ("{'a': 'open", None),
            ("{'a': '\\ud800'}", {"a": "\ud800"}),
            ("[" * 5000, None),
        ],
        ids=str,
    )  # fmt: skip
    def test_python_literals(self, line, content):
        assert _parse(line.encode()) == content


class TestRetailRocket:
    START = 1_430_000_000
    SNAPSHOTS = [  # (time, item, property, value)
        (START + 20 * DAY, 100, "categoryid", "a"),
        (START + 20 * DAY, 100, "790", "n1.000"),
        (START + 5 * DAY, 100, "categoryid", "b"),
        (START + 30 * DAY, 101, "categoryid", "c"),
        (START + 10 * DAY, 102, "790", "n2.000"),
        (START + 12 * DAY, 104, "categoryid", "d"),
        (START + 3 * DAY, 104, "categoryid", "d"),
    ]

    def _category(self, item, time):
        """By the rules: 100 changes, 101 and 104 are constant, 102 and 103 have none."""
        if item == 100:
            days = (time - self.START) / DAY
            return "unknown" if days < 5 else "b" if days < 20 else "a"
        return {101: "c", 104: "d"}.get(item, "unknown")

    def _raw(self, directory):
        events = _events(first=self.START, items=5, steps=160)
        behaviours = [("view", "addtocart", "transaction")[n % 3] for n in range(len(events))]
        paths = published_logs.retailrocket(directory, events, behaviours, self.SNAPSHOTS)
        return events, behaviours, *paths

    def test_rows(self, tmp_path):
        events, behaviours, log, metadata = self._raw(tmp_path)
        frame, filtered, rejected = _canonical("retailrocket", log, metadata)
        assert frame.to_dict("index") == {
            line: {
                "user_id": str(user),
                "item_id": str(item),
                "category_id": self._category(item, time),
                "timestamp": 1000 * time,
            }
            for line, ((user, item, time), behaviour) in enumerate(
                zip(events, behaviours, strict=True), 2
            )
            if behaviour != "transaction"
        }
        assert filtered == {"behaviours": behaviours.count("transaction")}
        assert rejected == []

    def test_a_build_counts_what_has_no_category(self, tmp_path):
        events, behaviours, log, metadata = self._raw(tmp_path)
        with open(tmp_path / "item_properties_part2.csv", "a") as file:
            file.write("soon,100,categoryid,x\n1,,categoryid,x\n1,100\n")
        data = _build(tmp_path, "retailrocket", log, metadata, max_bad_fraction=0.5)
        kept = [e for e, b in zip(events, behaviours, strict=True) if b != "transaction"]
        unknown = sum(self._category(item, time) == "unknown" for _, item, time in kept)
        assert data.stats["defaulted"] == {"category_id": unknown}
        assert data.manifest["metadata"] == {
            "read": 10,
            "items": 3,
            "filtered/other_properties": 2,
            "rejected/no item": 1,
            "rejected/no time": 1,
            "rejected/too few fields: expected 4, found 2": 1,
        }

    def test_item_files_are_checked(self, tmp_path):
        _, _, log, _ = self._raw(tmp_path)
        (tmp_path / "other.csv").write_text("timestamp,itemid,value\n1,2,3\n")
        with pytest.raises(UserError, match="Expected the column 'property' in .*other.csv"):
            _build(tmp_path, "retailrocket", log, str(tmp_path / "other.csv"))
        with pytest.raises(UserError, match="--metadata: expected files that match .*none.csv"):
            _build(tmp_path, "retailrocket", log, str(tmp_path / "*none.csv"))


class TestAlipay:
    START = int(datetime.datetime(2015, 7, 1, tzinfo=published_logs.CHINA).timestamp())

    def test_rows(self, tmp_path):
        events = _events(first=self.START, step=DAY, steps=150)
        actions = [int(n % 4 == 3) for n in range(len(events))]
        log, _ = published_logs.alipay(
            tmp_path, events, _category, lambda item: item % 3 + 50, actions
        )
        with open(log, "a") as file:
            file.write("1,2,3,4,0,20150230\n1,2,3,4,0,2015-02-03\n1,2,3,4,0,\n1,2,,4,0,20150203\n")
        frame, filtered, rejected = _canonical("alipay", log)
        assert frame.to_dict("index") == {
            line: {
                "user_id": str(user),
                "item_id": str(item),
                "category_id": str(_category(item)),
                "seller_id": str(item % 3 + 50),
                "timestamp": time,
            }
            for line, ((user, item, time), action) in enumerate(
                zip(events, actions, strict=True), 2
            )
            if action == 0
        }
        assert filtered == {"behaviours": sum(actions)}
        first = len(events) + 2
        reason = "column 'time': not a day such as 20150826"
        assert sorted(rejected) == [
            *((first + n, reason) for n in range(3)),
            (first + 3, "column 'item_id': missing value"),
        ]


def _core(frame, users, items):
    """What is left of a frame when users and items are filtered in turns, and the rounds."""
    rounds = []
    while True:
        enough = frame.groupby("item")["item"].transform("size") >= items
        rare, frame = int((~enough).sum()), frame[enough]
        enough = frame.groupby("user")["user"].transform("size") >= users
        short, frame = int((~enough).sum()), frame[enough]
        if not rare and not short:
            return frame, rounds
        rounds.append((rare, short))


@pytest.mark.slow
def test_the_core_is_that_of_pandas_for_any_number_of_partitions(tmp_path):
    events = _events(users=60, items=40, seed=1)
    log, _ = published_logs.taobao(tmp_path, events, _category, ["pv"] * len(events))
    limits = {"min_user_events": 4, "min_item_events": 5, "core_filter": "fixed_point"}
    data = _build(tmp_path, "taobao", log, train_prefixes="all", num_partitions=1, **limits)
    core, rounds = _core(pd.DataFrame(events, columns=["user", "item", "time"]), 4, 5)
    assert len(rounds) > 1
    assert len(core)
    account = data.manifest["conservation"]
    expected = {
        f"{rule}/round_{number:02d}": counts[place]
        for number, counts in enumerate(rounds, 1)
        for place, rule in enumerate(("min_item_events", "min_user_events"))
        if counts[place]
    }
    assert account["filtered"] == expected
    assert account["used"] == len(core) == len(events) - sum(map(sum, rounds))
    assert data.stats["users"] == core["user"].nunique()
    words = (data.vocab_dir / "item_id.txt").read_text().split()
    assert set(words) <= set(core["item"].astype(str))
    again = _build(
        tmp_path, "taobao", log, train_prefixes="all", num_partitions=5, output="more", **limits
    )
    assert shard_bytes(again.path) == shard_bytes(data.path)
    assert again.manifest["conservation"] == account


def test_the_filters_once_are_those_of_one_round(tmp_path):
    events = _events(users=60, items=40)
    log, _ = published_logs.taobao(tmp_path, events, _category, ["pv"] * len(events))
    data = _build(tmp_path, "taobao", log, min_user_events=4, min_item_events=5)
    _, rounds = _core(pd.DataFrame(events, columns=["user", "item", "time"]), 4, 5)
    filtered = data.manifest["conservation"]["filtered"]
    assert (filtered["min_item_events"], filtered["min_user_events"]) == rounds[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "toabao"}, "--dataset: expected one of alipay, .*Fix: did you mean 'taobao'"),
        ({"dataset": "retailrocket"}, "expected the files that describe its items, found no"),
        ({"dataset": "taobao", "metadata": "x.csv"}, "--metadata: expected a --dataset with files"),
        ({"dataset": "amazon_reviews", "metadata": "x", "behaviours": ("pv",)}, "--behaviours: "),
        ({"dataset": "taobao", "schema": "s.json", "behaviours": ("pv",)}, "and --schema"),
        ({"behaviours": ("pv",)}, "--behaviours: expected a --dataset with several kinds"),
        ({"core_filter": "twice"}, "--core_filter: expected one of once, fixed_point"),
    ],
)
def test_arguments_that_do_not_fit_together(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        BuildArguments(input="log.csv", output=str(tmp_path), **arguments).check()


def test_a_schema_of_ones_own_describes_the_canonical_columns(tmp_path):
    log, _ = published_logs.taobao(tmp_path, _events(), _category, ["pv"] * len(_events()))
    content = ADAPTERS["taobao"].schema().to_json()
    content["history"]["max_length"] = 2
    (tmp_path / "schema.json").write_text(json.dumps(content))
    data = _build(tmp_path, "taobao", log, schema=str(tmp_path / "schema.json"))
    lengths = map(len, (e["history/item_id"] for e in read_examples(data, "test").values()))
    assert max(lengths) == 2
    content["features"][1]["column"] = "item"
    (tmp_path / "schema.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--dataset=taobao has \(user_id, .*\), found 'item'"):
        _build(tmp_path, "taobao", log, schema=str(tmp_path / "schema.json"), output="other")


def test_columns_of_published_logs_may_have_many_values_with_a_separator(tmp_path):
    log, _ = published_logs.taobao(tmp_path, _events(), _category, ["pv"] * len(_events()))
    content = ADAPTERS["taobao"].schema().to_json()
    category = next(f for f in content["features"] if f["name"] == "category_id")
    category["many"] = {"max": 2}
    (tmp_path / "schema.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="Expected lists of values in the column 'category_id'"):
        _build(tmp_path, "taobao", log, schema=str(tmp_path / "schema.json"))
    category["many"]["separator"] = "|"
    (tmp_path / "schema.json").write_text(json.dumps(content))
    data = _build(tmp_path, "taobao", log, schema=str(tmp_path / "schema.json"))
    assert data.schema["category_id"].many.separator == "|"
