"""A sound data set passes; every kind of tampering is found and named."""

import json
import shutil

import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import CHECKS, audit
from pipeline.build_examples import build_examples
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import rewrite_split
from tests.helpers.small_logs import columns, random_events, write_log


def _build(directory, **arguments):
    log = write_log(directory / "log.parquet", columns(random_events(users=40, seed=4)))
    output = str(directory / "data")
    with inline():
        return build_examples(
            BuildArguments(input=log, output=output, num_shards=1, negatives=3, **arguments)
        )


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("sound"), train_prefixes="all").path


@pytest.fixture
def data(sound, tmp_path):
    return DataDir.open(shutil.copytree(sound, tmp_path / "data"))


def _longest(examples):
    return max(examples, key=lambda example: len(_steps(example, "timestamp")))


def _steps(example, name):
    return example.feature_lists.feature_list[f"history/{name}"].feature


def _values(example, name):
    return example.context.feature[name].int64_list.value


def _positive(example):
    return list(_values(example, "label")).index(1)


def _only(findings, check):
    """The one finding, beside the statistics, which tampered requests do not confirm either."""
    assert set(findings) - {"statistics"} == {check}
    assert findings[check].examples
    return findings[check]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"protocol": "time_split", "min_history": 0}, {"min_history": 2, "min_item_events": 3}],
)
def test_sound_data_passes(tmp_path, arguments):
    assert audit(_build(tmp_path, **arguments).path) == {}


def test_the_untouched_copy_passes(data):
    assert audit(data.path) == {}
    assert set(CHECKS) >= {"order", "negatives", "unique", "vocabulary", "conservation", "hashes"}


def test_a_changed_byte_is_found(data):
    (path,) = data.shards("test")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        audit(data.path)


def test_a_later_event_in_a_history_is_found(data):
    def change(examples):
        example = _longest(examples)
        _steps(example, "timestamp")[-1].int64_list.value[0] = 10**9

    rewrite_split(data, "test", change)
    findings = audit(data.path)
    reasons = "\n".join(findings["order"].examples)
    assert "its history holds a later event" in reasons
    assert "another request of its user has another event in a place" in reasons
    assert "an event of its user is earlier than the one before" in reasons


def test_a_history_of_other_events_is_found(data):
    def change(examples):
        steps = _steps(_longest(examples), "item_id")
        items = [step.int64_list.value[0] for step in steps]
        steps[0].int64_list.value[0], steps[-1].int64_list.value[0] = items[-1], items[0]

    rewrite_split(data, "test", change)
    finding = _only(audit(data.path), "order")
    assert "another request of its user has another event" in finding.examples[0]
    assert finding.count == 2


def test_every_violation_is_counted_and_the_first_are_shown(data):
    changed = []

    def change(examples):
        for example in examples:
            steps = _steps(example, "item_id")
            if len(steps) > 1:
                first, last = (steps[i].int64_list.value for i in (0, -1))
                first[0], last[0] = last[0], first[0]
                changed.append(example)

    rewrite_split(data, "test", change)
    finding = _only(audit(data.path), "order")
    assert finding.count == 2 * len(changed) > 10
    assert len(finding.examples) == 5


def test_a_shortened_history_is_found(data):
    def change(examples):
        for name in ("item_id", "category_id", "timestamp"):
            del _steps(_longest(examples), name)[0]

    rewrite_split(data, "test", change)
    assert _only(audit(data.path), "complete").count == 1


def test_a_negative_that_its_user_has_in_another_split_is_found(data):
    owned = {}

    def collect(examples):
        for example in examples:
            user = _values(example, "user_id")[0]
            owned[user] = _values(example, "candidate/item_id")[_positive(example)]

    def change(examples):
        example = next(e for e in examples if owned[_values(e, "user_id")[0]] > 1)
        items = _values(example, "candidate/item_id")
        items[_positive(example) - 1] = owned[_values(example, "user_id")[0]]

    rewrite_split(data, "test", collect)
    rewrite_split(data, "train", change)
    assert _only(audit(data.path), "negatives").count == 1


def test_a_repeated_candidate_is_found(data):
    def change(examples):
        items = _values(examples[0], "candidate/item_id")
        negative = [i for i in range(4) if i != _positive(examples[0])]
        items[negative[0]] = items[negative[1]]

    rewrite_split(data, "train", change)
    assert _only(audit(data.path), "candidates").count == 1


def test_a_request_in_two_splits_is_found(data):
    stolen = []
    rewrite_split(data, "test", lambda examples: stolen.append(examples[0]))
    rewrite_split(data, "train", lambda examples: examples.append(stolen[0]))
    findings = audit(data.path)
    assert findings["unique"].count == 1
    name = stolen[0].context.feature["request_id"].bytes_list.value[0].decode()
    assert findings["unique"].examples == [f"request {name}: occurs more than once"]
    assert findings["protocol"].count == 1


def test_an_id_out_of_its_table_is_found(data):
    def change(examples):
        _values(examples[3], "user_id")[0] = data.encoders["user_id"].cardinality
        _steps(_longest(examples), "category_id")[0].int64_list.value[0] = -1

    rewrite_split(data, "validation", change)
    assert _only(audit(data.path), "ids").count == 2


def test_a_request_of_another_user_is_found(data):
    """The raw user is what evaluation groups by, so it must be the user of the id."""
    users = []
    rewrite_split(
        data, "train", lambda e: users.extend(x.context.feature["request/user"] for x in e)
    )

    def change(examples):
        mine = examples[0].context.feature["request/user"].bytes_list.value
        mine[0] = next(u.bytes_list.value[0] for u in users if u.bytes_list.value != mine)

    rewrite_split(data, "test", change)
    finding = audit(data.path)["ids"]
    assert finding.count == 1
    assert finding.examples[0].endswith("user_id is of another user")


def test_another_index_of_the_positive_is_found(data):
    def change(examples):
        _longest(examples).context.feature["request/index"].int64_list.value[0] -= 1

    rewrite_split(data, "test", change)
    findings = audit(data.path)
    assert findings["complete"].count == 1


def test_no_meaning_is_read_from_the_name_of_a_request(data):
    def change(examples):
        for number, example in enumerate(examples):
            example.context.feature["request_id"].bytes_list.value[0] = f"any {number}".encode()

    rewrite_split(data, "test", change)
    assert audit(data.path) == {}


def test_a_value_that_no_training_request_holds_is_found(data):
    path = data.vocab_dir / "item_id.txt"
    with open(path, "a") as file:
        file.write("from the future\n")
    with pytest.raises(UserError, match=r"item_id.txt with SHA-256"):
        audit(data.path)
    data.manifest["files"]["vocab/item_id.txt"] = data_dir.sha256_file(path)
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    finding = _only(audit(data.path), "vocabulary")
    assert finding.examples == ["item_id: 'from the future' is in no training request"]


def test_rows_that_vanish_are_found(data):
    data.manifest["conservation"]["read"] += 2
    data.manifest["splits"]["test"]["requests"] += 1
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    finding = _only(audit(data.path), "conservation")
    assert "250 rows read, 248 of single files" in finding.examples
    assert finding.count == 3


def test_a_time_cut_that_the_data_disagree_with_is_found(tmp_path):
    data = _build(tmp_path, protocol="time_split")
    data.manifest["cutoffs"]["train_end"] -= 1
    (data.path / "manifest.json").write_text(json.dumps(data.manifest))
    assert _only(audit(data.path), "protocol").count > 0
