"""Values that no event has for some days are out of vocabulary, and come back to their ids."""

import numpy as np
import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from pipeline.data_card import write_card
from pipeline.requests import tails
from pipeline.validate import report
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.encoders import encoder_files
from preprocessing.errors import UserError
from tests.helpers import days, expiring
from tests.helpers.small_data_sets import read_examples, shard_bytes
from tests.helpers.small_logs import write_log


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return expiring.chain(tmp_path_factory.mktemp("chain"), range(8))


def _expired(data, name="item_id"):
    encoder = data.encoders[name]
    return set(encoder.vocabulary.filter(encoder.is_expired).to_pylist())


def _values(event, name):
    value = event[days.NAMES.index(name)]
    return value.split("|") if name in ("genres", "platform") else [value]


def _last_seen(day, name):
    """Time of the last event of each value up to a day, in quarter hours."""
    return {
        value: event[2]
        for log in expiring.LOGS[: day + 1]
        for event in log
        for value in _values(event, name)
    }


NAMES = ("item_id", "user_id", "genres", "category_id", "platform")


@pytest.mark.parametrize("name", NAMES)
def test_expired_are_the_words_without_events_since_the_days_before_the_log(chain, name):
    ever = set()
    assert not _expired(chain[0], name)
    for day, data in enumerate(chain[1:], 1):
        since = max(event[2] for event in expiring.LOGS[day - 1]) - 2 * expiring.DAY
        words = set(data.encoders[name].vocabulary.to_pylist())
        last = _last_seen(day, name)
        expected = {word for word in words if last[word] < since}
        assert _expired(data, name) == expected
        assert data.manifest["expired"].get(name, 0) == len(expected)
        ever |= expected
    assert bool(ever) == (name in ("item_id", "user_id", "genres"))


def test_some_values_come_back_to_their_ids(chain):
    back = 0
    for before, after in zip(chain[:-1], chain[1:], strict=True):
        known = before.encoders["item_id"].vocabulary.to_pylist()
        assert after.encoders["item_id"].vocabulary.to_pylist()[: len(known)] == known
        for word in _expired(before) - _expired(after):
            back += 1
            assert before.encoders["item_id"].encode([word])[0] == 1
            assert after.encoders["item_id"].encode([word])[0] == 2 + known.index(word)
    assert back


def test_no_request_holds_an_expired_value_under_its_id(chain):
    held = 0
    for data in chain[1:]:
        encoder = data.encoders["item_id"]
        reserved = set((np.flatnonzero(encoder.is_expired) + 2).tolist())
        for split in ("train", "validation"):
            for example in read_examples(data, split).values():
                ids = {*example["candidate/item_id"], *example["history/item_id"]}
                assert not ids & reserved
                held += example["history/item_id"].count(1)
        assert audit(data.path) == {}
    assert held, "histories hold expired items, as unknown ones"


def test_expired_items_are_no_negatives(chain):
    for day, data in enumerate(chain[1:], 1):
        since = max(event[2] for event in expiring.LOGS[day - 1]) - 2 * expiring.DAY
        drawable = {item for item, time in _last_seen(day, "item_id").items() if time >= since}
        assert data.stats["splits"]["validation"]["items_to_draw_from"] == len(drawable)


@pytest.mark.parametrize("cuts", [[0, 2, 3, 6, 7], [0, 5, 6, 7], [0, 6, 7]])
def test_other_cuts_of_the_log_expire_the_same_values(chain, tmp_path, cuts):
    other = expiring.chain(tmp_path, cuts)[-1]
    for name in NAMES:
        words = set(other.encoders[name].vocabulary.to_pylist())
        assert _expired(other, name) == _expired(chain[-1], name) & words
        assert words == set(chain[-1].encoders[name].vocabulary.to_pylist())


def test_workers_and_resumed_files_give_the_same_bytes(chain, tmp_path):
    again = days.build(
        tmp_path, [(6, expiring.LOGS[6])], "again", order=3, num_partitions=3,
        base=str(chain[5].path), **expiring.COMMON,
    )  # fmt: skip
    assert shard_bytes(again.path) == shard_bytes(chain[6].path)
    assert again.manifest["tails"] == chain[6].manifest["tails"]
    assert again.manifest["files"] == chain[6].manifest["files"]


def test_a_base_that_kept_no_times_counts_from_its_end(tmp_path):
    """As if all of its values had been seen when its log ended."""
    first = expiring.COMMON | {"expire_days": 0, "in_seconds": True}
    data = days.build(tmp_path, list(enumerate(expiring.LOGS[:2])), "first", **first)
    assert not any(name.startswith(tails.SEEN) for name in data.manifest["tails"]["files"])
    of_first, end = _last_seen(1, "item_id"), max(event[2] for event in expiring.LOGS[1])
    for day in (2, 3, 4, 5):
        since = max(event[2] for event in expiring.LOGS[day - 1]) - 2 * expiring.DAY
        data = days.build(
            tmp_path,
            [(day, expiring.LOGS[day])],
            f"day{day}",
            base=str(data.path),
            **expiring.COMMON,
        )
        last = _last_seen(day, "item_id")
        last |= {item: max(last[item], end) for item in of_first}
        words = data.encoders["item_id"].vocabulary.to_pylist()
        assert _expired(data) == {word for word in words if last[word] < since}
    assert _expired(data)


def test_without_the_flag_all_values_are_back(chain, tmp_path):
    more = expiring.COMMON | {"expire_days": 0, "in_seconds": True}
    data = days.build(tmp_path, [(6, expiring.LOGS[6])], "data", base=str(chain[5].path), **more)
    assert not _expired(data)
    assert "expired" not in data.manifest
    assert [path.name for path in data.vocab_dir.iterdir() if "expired" in path.name] == []


def test_ranked_anew_a_vocabulary_has_no_expired_values(chain, tmp_path):
    data = days.build(
        tmp_path,
        [(6, expiring.LOGS[6])],
        "data",
        base=str(chain[5].path),
        rerank=True,
        **expiring.COMMON,
    )
    words = set(data.encoders["item_id"].vocabulary.to_pylist())
    assert not _expired(data)
    assert not words & _expired(chain[6])
    assert len(words) < len(chain[6].encoders["item_id"].vocabulary)
    assert audit(data.path) == {}


def test_card_and_drift_say_how_many(chain):
    count = len(_expired(chain[6]))
    assert count
    text = write_card(chain[6].path).with_suffix(".md").read_text()
    assert f"| expired values of item_id | {count} |" in text
    lines = report(chain[6].path, chain[5].path)[0]
    assert f"expired: {count} values of item_id, {len(_expired(chain[5]))} in OTHER" in lines


def test_files_of_expired_values(chain):
    data = chain[6]
    path = encoder_files.expired_path("item_id", data.vocab_dir)
    assert set(path.read_text().splitlines()) == _expired(data)
    assert f"vocab/{path.name}" in data.manifest["files"]
    assert not encoder_files.expired_path("platform", data.vocab_dir).exists()
    assert DataDir.open(data.path).encoders["item_id"].is_expired.sum() == len(_expired(data))
    assert (data.path / data_dir.TAILS / tails.SEEN / "item_id.arrow").exists()


def test_times_without_a_unit_are_refused(tmp_path):
    log = {name: [event[i] for event in expiring.LOGS[0]] for i, name in enumerate(days.NAMES)}
    arguments = BuildArguments(
        input=write_log(tmp_path / "log.jsonl", log),
        output=str(tmp_path / "data"),
        schema=days.schema_file(tmp_path, 4),
        protocol="day",
        expire_days=3,
    )
    with pytest.raises(UserError, match="--expire_days: expected times of a known unit, found int"):
        build_examples(arguments)
