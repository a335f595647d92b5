"""Statistics that requests do not confirm, and encoders that have seen the future, are found."""

import json
import shutil

import pyarrow as pa
import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from pipeline.requests import counting
from pipeline.requests.click_log import ClickLog
from pipeline.requests.events import Events
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import rewrite_split
from tests.helpers.small_logs import columns, random_events, write_log

VOCABULARY = {"kind": "vocabulary"}
FEATURES = [
    {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
    {"name": "hour", "column": "timestamp", "role": "context", "dtype": "int64",
     "encoder": {"kind": "hash", "buckets": 9}},
    {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
    {"name": "category_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
    {"name": "price", "role": "item", "dtype": "float32", "encoder": {"kind": "numeric"}},
    {"name": "size", "column": "price", "role": "item", "dtype": "float32",
     "encoder": {"kind": "bucketised", "boundaries": [10, 20]}},
    {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
]  # fmt: skip


def _build(directory):
    """Prices rise over time, so that those of train are not those of the whole log."""
    events = random_events(users=40, seed=4)
    log = columns(events)
    log["price"] = [None if n % 9 == 0 else float(time) for n, (_, _, time) in enumerate(events)]
    schema = directory / "schema.json"
    schema.write_text(json.dumps({"features": FEATURES}))
    arguments = BuildArguments(
        input=write_log(directory / "log.parquet", log),
        output=str(directory / "data"),
        schema=str(schema),
        num_shards=1,
        train_prefixes="all",
    )
    with inline():
        return build_examples(arguments)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("sound")).path


@pytest.fixture
def data(sound, tmp_path):
    return DataDir.open(shutil.copytree(sound, tmp_path / "data"))


def _write_stats(data):
    data_dir.write_json(data.path / "stats.json", data.stats)
    data.manifest["files"]["stats.json"] = data_dir.sha256_file(data.path / "stats.json")
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))


def test_sound_data_passes(data):
    assert audit(data.path) == {}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("splits test requests", "test: requests is "),
        ("splits test positives", "test: positives is "),
        ("splits train candidates", "train: candidates is "),
        ("splits test unknown_items unknown_negatives", "test: unknown_items is "),
        ("splits train time_range 1", "train: time_range is "),
        ("splits validation history_length 4", "validation: history_length is "),
        ("splits train features user_id count", "train: user_id: count is "),
        ("splits test features history/item_id oov_rate", "test: history/item_id: oov_rate is "),
        (
            "splits train features candidate/category_id top_values c1",
            "train: candidate/category_id: top_values is ",
        ),
        ("splits test features hour hash_buckets 3", "test: hour: hash_buckets is "),
        ("splits train features history/size missing", "train: history/size: missing is "),
        ("splits train features history/price count", "train: history/price: count is "),
        ("vocabularies item_id rare", "vocabulary of item_id: 0 rare values, not 1"),
        ("vocabularies user_id words_by_count 1", "vocabulary of user_id: "),
    ],
)
def test_a_figure_that_the_requests_do_not_confirm_is_found(data, path, message):
    *path, last = (int(key) if key.isdigit() else key for key in path.split())
    figures = data.stats
    for key in path:
        figures = figures[str(key) if isinstance(figures, dict) else key]
    last = str(last) if isinstance(figures, dict) else last
    figures[last] = figures.get(last, 0) + 1 if isinstance(figures, dict) else figures[last] + 1
    _write_stats(data)
    findings = audit(data.path)
    assert set(findings) == {"statistics"}
    assert findings["statistics"].count == 1
    assert findings["statistics"].examples[0].startswith(message)


def test_a_word_that_was_counted_wrongly_is_named(data):
    described = data.stats["vocabularies"]["item_id"]["words_by_count"]
    most = max(described, key=int)
    assert described[most] == 1
    described[str(int(most) + 1)] = described.pop(most)
    _write_stats(data)
    (example,) = audit(data.path)["statistics"].examples
    word = (data.vocab_dir / "item_id.txt").read_text().split("\n")[0]
    assert example == (
        "vocabulary of item_id: 1 words were counted wrongly, "
        f"the first {word!r}: {most} times, not {int(most) + 1}"
    )


def test_numbers_that_were_scaled_by_other_data_are_found(data):
    def change(examples):
        for example in examples:
            for step in example.feature_lists.feature_list["history/price"].feature:
                step.float_list.value[0] = 1.5 * step.float_list.value[0] + 0.25

    rewrite_split(data, "train", change)
    first, second = audit(data.path)["statistics"].examples
    assert first.startswith("price: its training values have the mean 0.")
    assert second.startswith("price: its training values deviate by 1.")


def test_encoders_that_have_seen_the_future_are_found(tmp_path, monkeypatch):
    def leaking_counts(_, plan, feature):
        columns = [
            Events.load(plan, partition).column(feature.name)
            for partition in range(plan.num_partitions)
        ]
        return counting.merge_counts(pa.concat_tables(map(counting.count_values, columns)))

    monkeypatch.setattr(ClickLog, "training_values", leaking_counts)
    findings = audit(_build(tmp_path).path)
    assert set(findings) == {"vocabulary", "statistics"}
    found = "\n".join(findings["statistics"].examples)
    assert "vocabulary of item_id: " in found
    assert "price: its training values have the mean -" in found
