"""Whole builds, compared with brute force."""

import collections
import dataclasses
import json

import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples, hints
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.helpers.small_data_sets import read_examples, shard_bytes
from tests.helpers.small_logs import category, columns, random_events, write_log
from tests.reference import windows

MAX_LENGTH = 50  # of an inferred schema


def _build(tmp_path, log, name="log.csv", output="data", **arguments) -> DataDir:
    path = write_log(tmp_path / name, log)
    return build_examples(
        BuildArguments(input=path, output=str(tmp_path / output), num_shards=4, **arguments)
    )


def _schema_file(tmp_path, max_length=MAX_LENGTH, more=(), **history):
    vocabulary = {"kind": "vocabulary"}
    content = {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
            {"name": "category_id", "role": "item", "dtype": "string", "encoder": vocabulary},
            {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
            *more,
        ],
        "history": {"max_length": max_length, **history},
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    return str(path)


def _assert_equals_brute_force(data, events, **protocol):
    """Requests, histories, vocabularies, catalogues and the conservation equation."""
    expected = windows.split_requests(events, **protocol)
    encode = {name: encoder.encode for name, encoder in data.encoders.items()}
    own = collections.defaultdict(set)
    for split in expected.values():
        for event in windows.contained(split):
            own[event[0]].add(event[1])
    drawable = set()
    for split, requests in expected.items():
        drawable |= {item for _, item, _ in windows.contained(requests)}
        allowed = set(encode["item_id"](sorted(drawable)).tolist())
        examples = read_examples(data, split)
        assert examples.keys() == requests.keys()
        assert data.num_requests(split) == len(requests)
        for request, (positive, history) in requests.items():
            example = examples[request]
            items = [item for _, item, _ in history]
            assert example["history/item_id"] == encode["item_id"](items).tolist()
            categories = [category(item) for item in items]
            assert example["history/category_id"] == encode["category_id"](categories).tolist()
            assert example["history/timestamp"] == [time for _, _, time in history]
            assert example["timestamp"] == [positive[2]]
            assert example["user_id"] == encode["user_id"]([positive[0]]).tolist()
            place = example["label"].index(1)
            assert sum(example["label"]) == 1
            positive_id = encode["item_id"]([positive[1]])[0]
            assert example["candidate/item_id"][place] == positive_id
            drawn = set(example["candidate/item_id"]) - {positive_id}
            assert drawn <= allowed
            known = {n for n in drawn if n > 1}
            assert not known & set(encode["item_id"](sorted(own[positive[0]])).tolist())
    trained = windows.contained(expected["train"])
    _assert_vocabulary(data, "item_id", [item for _, item, _ in trained])
    _assert_vocabulary(data, "category_id", [category(item) for _, item, _ in trained])
    _assert_vocabulary(data, "user_id", [event[0] for event, _ in expected["train"].values()])
    account = data.manifest["conservation"]
    used = set().union(*(windows.contained(requests) for requests in expected.values()))
    assert account["used"] == len(used)
    assert account["read"] == len(events) == len(used) + sum(account["filtered"].values())


def _assert_vocabulary(data, name, values):
    counts = collections.Counter(values)
    words = sorted(counts, key=lambda word: (-counts[word], word.encode()))
    assert (data.vocab_dir / f"{name}.txt").read_text().splitlines() == words


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("log.csv", {}),
        ("log.jsonl.gz", {"train_prefixes": "all", "negatives": 4}),
        ("log.parquet", {"min_user_events": 6, "min_item_events": 4, "max_user_events": 7}),
        ("log.csv.gz", {"min_history": 2, "train_prefixes": "all"}),
    ],
)
def test_leave_last_out_equals_brute_force(tmp_path, name, arguments):
    events = random_events(seed=len(name))
    data = _build(tmp_path, columns(events), name, num_partitions=3, **arguments)
    protocol = {k: v for k, v in arguments.items() if k != "negatives"}
    _assert_equals_brute_force(
        data, events, protocol="leave_last_out", max_length=MAX_LENGTH, **protocol
    )
    assert data.manifest["cutoffs"] == {}


def test_time_split_equals_brute_force_with_short_histories_and_ties(tmp_path):
    events = random_events(seed=5, days=20)
    schema = _schema_file(tmp_path, max_length=3)
    arguments = {"split_fraction": 0.7, "validation_fraction": 0.2}
    data = _build(
        tmp_path,
        columns(events),
        schema=schema,
        protocol="time_split",
        num_partitions=2,
        **arguments,
    )
    times = [time for _, _, time in events]
    end = windows.cutoff(times, 0.7)
    cutoffs = (windows.cutoff([time for time in times if time <= end], 0.8), end)
    assert data.manifest["cutoffs"] == {"train_end": cutoffs[0], "validation_end": cutoffs[1]}
    _assert_equals_brute_force(data, events, protocol="time_split", max_length=3, cutoffs=cutoffs)


def test_of_long_histories_the_most_recent_events_are_kept_and_the_rest_is_counted(tmp_path):
    events = [(user, f"i{n}", 100 + n) for user in ("a", "b") for n in range(12)]
    events += [("c", f"i{n}", 0) for n in range(12, 16)]  # others' items, to draw from
    data = _build(tmp_path, columns(events), schema=_schema_file(tmp_path, max_length=4))
    example = read_examples(data, "test")["a:11"]
    assert example["history/timestamp"] == [107, 108, 109, 110]
    # Train, validation and test of users a and b reach back to event 5 of 12.
    assert data.manifest["conservation"]["filtered"] == {"max_length": 10}
    assert data.stats["splits"]["test"]["history_length"] == {"3": 1, "4": 2}


def test_an_order_only_log_is_ordered_by_file_and_row(tmp_path):
    parts = []
    for part, items in enumerate((range(3), range(3, 6))):
        rows = [("u", f"i{n}") for n in items] + [("v", f"i{n + 10}") for n in items]
        log = {"user_id": [u for u, _ in rows], "item_id": [i for _, i in rows]}
        parts.append(write_log(tmp_path / f"{1 - part}.csv", log))
    arguments = BuildArguments(input=",".join(parts), output=str(tmp_path / "data"), num_shards=1)
    data = build_examples(arguments)
    example = read_examples(data, "test")["u:5"]
    items = data.encoders["item_id"].encode([f"i{n}" for n in range(5)])
    assert example["history/item_id"] == items.tolist()
    assert example["history/timestamp"] == [0, 1, 2, 3, 4]
    assert example["timestamp"] == [5]
    with pytest.raises(UserError, match="role 'timestamp', found none"):
        build_examples(dataclasses.replace(arguments, protocol="time_split", overwrite=True))


def test_a_log_with_positions_is_ordered_by_them(tmp_path):
    log = {
        "position": [3, 1, 4, 2, 2, 1, 4, 3],
        "user_id": ["u"] * 4 + ["v"] * 4,
        "item_id": ["c", "a", "d", "b", "y", "x", "w", "z"],
    }
    data = _build(tmp_path, log)
    example = read_examples(data, "test")["u:3"]
    assert example["history/item_id"] == data.encoders["item_id"].encode(["a", "b", "c"]).tolist()
    assert example["history/timestamp"] == [1, 2, 3]
    assert example["timestamp"] == [4]


def test_shards_do_not_depend_on_partitions_workers_or_file_order(tmp_path):
    events = random_events(seed=9, users=60, days=10**6)  # no ties
    log = columns(events)
    third = len(events) // 3
    paths = []
    for n in range(3):
        part = {name: values[n * third : (n + 1) * third] for name, values in log.items()}
        paths.append(write_log(tmp_path / f"{n}.parquet", part))

    def build(name, paths, **arguments):
        output = tmp_path / name
        build_examples(
            BuildArguments(
                input=",".join(paths), output=str(output), negatives=2, train_prefixes="all",
                negative_sampling="popularity", num_shards=4, min_item_events=2, **arguments,
            )
        )  # fmt: skip
        return shard_bytes(output)

    expected = build("one", paths, num_partitions=1)
    assert len(expected) == 4 + 1 + 1 + 3
    assert build("same", paths, num_partitions=3) == expected
    for name in ("manifest.json", "stats.json"):
        assert (tmp_path / "same" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert build("many", paths[::-1], num_partitions=5) == expected
    for workers in (2, 4):
        threads = (f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading")
        found = build(f"threads-{workers}", paths, num_partitions=4, beam_options=threads)
        assert found == expected
    assert build("seed", paths, seed=2) != expected


def test_the_order_of_columns_changes_no_byte(tmp_path):
    """Not that of a file, and not another one in each of several files."""
    log = columns(random_events(seed=4, days=10**6))  # no ties
    log["brand"] = [f"b{len(item)}" for item in log["item_id"]]
    names = ["user_id", "item_id", "category_id", "brand", "timestamp"]
    orders = names, names[::-1], ["brand", "timestamp", "category_id", "user_id", "item_id"]
    half = len(log["brand"]) // 2

    def build(name, *parts):
        paths = [write_log(tmp_path / f"{name}-{i}.csv", part) for i, part in enumerate(parts)]
        output = tmp_path / name
        data = build_examples(
            BuildArguments(input=",".join(paths), output=str(output), num_shards=2)
        )
        return shard_bytes(output) | {"schema": (output / "schema.json").read_bytes()}, data

    expected, data = build("canonical", {name: log[name] for name in orders[0]})
    assert data.schema.history.features == ("item_id", "category_id", "brand")
    other, permuted = build("permuted", {name: log[name] for name in orders[1]})
    assert other == expected
    assert permuted.manifest["schema_hash"] == data.manifest["schema_hash"]
    first = {name: log[name][:half] for name in orders[1]}
    second = {name: log[name][half:] for name in orders[2]}
    assert build("files", first, second)[0] == expected


def test_a_column_that_only_later_files_have_is_not_left_out_in_silence(tmp_path):
    log = columns(random_events(users=5))
    brands = {"brand": ["b"] * len(log["user_id"])}
    paths = [write_log(tmp_path / "1.csv", log), write_log(tmp_path / "2.csv", log | brands)]
    arguments = BuildArguments(input=",".join(paths), output=str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"columns of \S*1.csv in \S*2.csv, found also brand. Fix"):
        build_examples(arguments)


@pytest.mark.slow
def test_worker_processes_give_the_same_shards_without_tensorflow(tmp_path, monkeypatch):
    log = columns(random_events(seed=3))
    alone = _build(tmp_path, log, output="alone")
    # Worker processes inherit the path; they would not survive an import of TensorFlow.
    for package in ("tensorflow", "tf_keras", "keras"):
        (tmp_path / "blocked" / package).mkdir(parents=True)
        blocked = "import os; os._exit(7)\n"
        (tmp_path / "blocked" / package / "__init__.py").write_text(blocked)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "blocked"))
    for workers in (2, 4):
        processes = (f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing")
        many = _build(
            tmp_path, log, output=f"many-{workers}", num_partitions=4, beam_options=processes
        )
        assert shard_bytes(many.path) == shard_bytes(alone.path)


def test_every_kind_of_feature(tmp_path):
    events = random_events(seed=2)
    log = columns(events)
    log["price"] = [float(int(item[1:])) if item != "i3" else None for item in log["item_id"]]
    log["age"] = [20 + len(user) for user in log["user_id"]]
    log["hour"] = [time % 24 for time in log["timestamp"]]
    log["kind"] = ["buy" if n % 5 else "view" for n in range(len(events))]
    more = [
        {"name": "price", "role": "item", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "age", "role": "user", "dtype": "int64",
         "encoder": {"kind": "bucketised", "quantiles": 3}},
        {"name": "hour", "role": "context", "dtype": "int64",
         "encoder": {"kind": "hash", "buckets": 9}},
    ]  # fmt: skip
    schema = _schema_file(
        tmp_path, more=more, features=["item_id", "price"],
        behaviours={"column": "kind", "values": ["buy"]},
    )  # fmt: skip
    data = _build(tmp_path, log, "log.parquet", schema=schema, num_partitions=2, negatives=2)
    bought = [event for n, event in enumerate(events) if n % 5]
    assert data.manifest["conservation"]["filtered"]["behaviours"] == len(events) - len(bought)
    expected = windows.split_requests(bought, "leave_last_out", MAX_LENGTH)
    trained = [int(i[1:]) for _, i, _ in windows.contained(expected["train"]) if i != "i3"]
    mean = sum(trained) / len(trained)
    std = (sum((x - mean) ** 2 for x in trained) / len(trained)) ** 0.5
    numbers = data.stats["encoders"]["price"]
    assert (numbers["mean"], numbers["std"]) == pytest.approx((mean, std))
    for request, (positive, history) in expected["test"].items():
        example = read_examples(data, "test")[request]
        prices = [(int(i[1:]) - mean) / std if i != "i3" else 0 for _, i, _ in history]
        assert example["history/price"] == pytest.approx(prices, abs=1e-5)
        assert len(example["candidate/price"]) == len(example["candidate/category_id"]) == 3
        assert example["hour"] == data.encoders["hour"].encode([positive[2] % 24]).tolist()
        assert example["age"][0] in range(1, data.encoders["age"].cardinality)
        assert "history/category_id" not in example
    item_of_price = {
        round((int(item[1:]) - mean) / std, 4): item for item in set(log["item_id"]) - {"i3"}
    }
    example = next(iter(read_examples(data, "train").values()))
    for item_id, price in zip(
        example["candidate/item_id"], example["candidate/price"], strict=True
    ):
        if price:  # a candidate's features are those of its item
            item = item_of_price[round(price, 4)]
            assert data.encoders["item_id"].encode([item])[0] == item_id


def test_negatives_and_their_features_come_from_the_past(tmp_path):
    # Item x changes its category in the test event of user a. The items of train requests are i0,
    # i1, x and j0, of which x alone is free for user c.
    rows = [("a", f"i{n}", "k", n) for n in range(3)]
    rows += [("b", "x", "old", 10), *(("b", f"j{n}", "k", 11 + n) for n in range(3))]
    rows += [("a", "x", "new", 99)]
    rows += [("c", f"i{n}", "k", 200 + n) for n in range(3)] + [("c", "j0", "k", 300)]
    names = ("user_id", "item_id", "category_id", "timestamp")
    log = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    data = _build(tmp_path, log)
    example = read_examples(data, "train")["c:1"]
    place = example["label"].index(0)
    x, old = (
        data.encoders[n].encode([v])[0] for n, v in (("item_id", "x"), ("category_id", "old"))
    )
    assert example["candidate/item_id"][place] == x
    assert example["candidate/category_id"][place] == old
    sizes = {split: stats["items_to_draw_from"] for split, stats in data.stats["splits"].items()}
    assert sizes == {"train": 4, "validation": 6, "test": 7}
    with pytest.raises(UserError, match="who leave --negatives=4 items .* untouched, found none"):
        _build(tmp_path, log, output="more", negatives=4)


def test_candidates_have_the_features_of_the_catalogue_and_histories_those_of_their_time(tmp_path):
    events = random_events(seed=11, days=10**6)  # no ties
    log = columns(events)
    log["category_id"] = [f"{item}@{time}" for _, item, time in events]
    data = _build(tmp_path, log, train_prefixes="all", negatives=3, num_partitions=2)
    assert audit(data.path) == {}
    encode = {name: encoder.encode for name, encoder in data.encoders.items()}
    expected = windows.split_requests(events, "leave_last_out", MAX_LENGTH, train_prefixes="all")
    last: dict[str, int] = {}
    for split, requests in expected.items():
        for _, item, time in windows.contained(requests):
            last[item] = max(time, last.get(item, 0))
        examples = read_examples(data, split)
        for request, (positive, history) in requests.items():
            example = examples[request]
            place = example["label"].index(1)
            category = f"{positive[1]}@{last[positive[1]]}"
            assert example["candidate/category_id"][place] == encode["category_id"]([category])[0]
            then = [f"{item}@{time}" for _, item, time in history]
            assert example["history/category_id"] == encode["category_id"](then).tolist()
    vocabulary = set((data.vocab_dir / "category_id.txt").read_text().splitlines())
    assert vocabulary < set(log["category_id"])


@pytest.mark.parametrize(
    "sampling", ["uniform", pytest.param("popularity", marks=pytest.mark.slow)]
)
def test_users_who_own_nearly_every_item_are_left_out_and_counted(tmp_path, sampling):
    common = [f"i{n}" for n in range(12)]
    events = [
        (f"u{user}", common[(3 * user + n) % 12], 100 * user + n)
        for user in range(8)
        for n in range(5)
    ]
    # Only hoarder owns the items from i12 on; without them nothing is left for collector.
    hoarder = [("hoarder", f"i{n}", 5000 + n) for n in range(16)]
    collector = [("collector", item, 9000 + n) for n, item in enumerate(common)]
    arguments = {"negatives": 2, "negative_sampling": sampling, "train_prefixes": "all"}
    alone = _build(tmp_path, columns(events), output="alone", **arguments)
    log = columns([*hoarder, *events, *collector])
    data = _build(tmp_path, log, num_partitions=3, **arguments)
    assert shard_bytes(data.path) == shard_bytes(alone.path)
    assert data.manifest["conservation"] == {
        "read": 68, "used": 40, "filtered": {"too_few_negatives": 28}, "rejected": {},
    }  # fmt: skip
    left_out = {name: split["requests_left_out"] for name, split in data.stats["splits"].items()}
    assert left_out == {"train": 13 + 9, "validation": 2, "test": 2}
    assert audit(data.path) == {}


def test_a_request_is_left_out_only_of_the_split_whose_items_its_user_owns(tmp_path):
    # Train requests contain i0 to i5, of which u owns all but i5; later ones also i6 to i9.
    rows = {"u": (0, 1, 2, 3, 4), "v": (3, 4, 5, 6, 7), "w": (0, 1, 2, 8, 9)}
    events = [(user, f"i{n}", 100 + n) for user, items in rows.items() for n in items]
    data = _build(tmp_path, columns(events), negatives=2)
    requests = {name: set(read_examples(data, name)) for name in ("train", "validation", "test")}
    assert requests["train"] == {"v:2", "w:2"}
    assert requests["validation"] == {"u:3", "v:3", "w:3"}
    assert requests["test"] == {"u:4", "v:4", "w:4"}
    assert data.stats["splits"]["train"]["requests_left_out"] == 1
    assert data.manifest["conservation"]["used"] == 15
    assert audit(data.path) == {}


def test_manifest_and_stats_add_up(tmp_path):
    data = _build(tmp_path, columns(random_events(seed=1)), negatives=3)
    arguments = data.manifest["arguments"]
    assert arguments["negatives"] == 3
    assert "output" not in arguments
    for split, record in data.manifest["splits"].items():
        assert record["requests"] == sum(shard["requests"] for shard in record["shards"])
        assert record["candidates"] == 4 * record["requests"]
        assert len(record["shards"]) == (4 if split == "train" else 1)
        stats = data.stats["splits"][split]
        assert sum(stats["history_length"].values()) == stats["requests"] == record["requests"]
        assert stats["positives"] == record["requests"]
        assert stats["candidates"] == record["candidates"]
        times = [example["timestamp"][0] for example in read_examples(data, split).values()]
        assert stats["time_range"] == [min(times), max(times)]
        ids = [i for e in read_examples(data, split).values() for i in e["history/item_id"]]
        described = stats["features"]["history/item_id"]
        assert described["oov_rate"] == pytest.approx(ids.count(1) / len(ids))
    assert data.stats["splits"]["train"]["features"]["history/item_id"]["oov_rate"] == 0
    assert not (data.path / "_work").exists()
    assert not (data.path / "rejected").exists()


def test_rows_that_no_training_request_uses_are_hinted_at(tmp_path):
    log = write_log(tmp_path / "log.parquet", columns(random_events(seed=1, users=20, days=900)))
    last, every = (
        build_examples(
            BuildArguments(input=log, output=str(tmp_path / prefixes), train_prefixes=prefixes)
        )
        for prefixes in ("last", "all")
    )
    assert last.num_requests("train") < every.num_requests("train")
    (hint,) = hints(last)
    assert hint.startswith(f"{last.num_requests('train')} training requests of ")
    assert not hints(every)
