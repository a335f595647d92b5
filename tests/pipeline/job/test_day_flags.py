"""Flags of a build that continues another one, or that begins in the midst of a log."""

import json
import shutil

import pytest

from pipeline.arguments import BuildArguments
from pipeline.audit import Audit, audit
from pipeline.build_examples import build_examples
from pipeline.data_card import write_card
from pipeline.job import keep_tails, pipelines
from pipeline.validate import report
from preprocessing.data_dir import DataDir, word_counts
from preprocessing.errors import UserError
from tests.helpers import days
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import read_examples, rewrite_split, shard_bytes
from tests.helpers.small_logs import random_events

EVENTS = sorted(random_events(seed=2, users=25, items=40, days=60), key=lambda event: event[2])
FIRST = [event for event in EVENTS if event[2] <= 39]
SECOND = [event for event in EVENTS if event[2] > 39]


def _full(events):
    """Events with the columns of `days.NAMES`."""
    return [(*event, f"c{event[1][-1]}", float(len(event[1])), "web", "", 1.0) for event in events]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    return days.build(directory, [(0, _full(FIRST))], "data", max_length=5, protocol="time_split")


def _day(directory, base, events, output="day", max_length=5, **arguments):
    arguments = {"protocol": "day", **arguments}
    return days.build(
        directory, [(1, _full(events))], output,
        max_length=max_length, base=str(base.path), **arguments,
    )  # fmt: skip


def test_a_day_is_a_data_set_for_every_command(base, tmp_path):
    day = _day(tmp_path, base, SECOND)
    assert audit(day.path) == {}
    assert "base" in write_card(day.path).read_text()
    assert "item_id" in report(day.path, base.path)[0]
    assert day.num_requests("train") + day.num_requests("validation") == len(SECOND) - sum(
        next(other for other in EVENTS if other[0] == event[0]) == event for event in SECOND
    )
    assert day.manifest["base"] == {
        "path": str(base.path), "sha256": base.fingerprint, "watermark": 39,
        "generation": 0, "late": 0, "duplicates": 0,
    }  # fmt: skip


def test_late_events_join_histories_or_are_rejected(base, tmp_path):
    user = SECOND[-1][0]
    late = [(user, "i0", 38), (user, "i1", 39)]  # an event of the base's latest time is not late
    joined = _day(tmp_path, base, [*late, *SECOND])
    assert joined.manifest["base"]["late"] == 1
    assert audit(joined.path) == {}
    histories = [
        example["history/timestamp"]
        for example in read_examples(joined, "validation").values()
        if example["request/user"] == [user.encode()]
    ]
    assert histories
    assert any(38 in history for history in histories)

    rejected = _day(tmp_path, base, [*late, *SECOND], output="rejected", late="reject")
    reason = "earlier than 39, the latest time of the base"
    assert rejected.manifest["conservation"]["rejected"] == {reason: 1}
    (line,) = (rejected.path / "rejected" / "part-00000.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 1
    without = _day(tmp_path, base, [late[1], *SECOND], output="without")
    assert shard_bytes(rejected.path) == shard_bytes(without.path)


def test_what_the_base_has_is_counted_once(base, tmp_path):
    again = [event for event in FIRST if event[2] == 39]
    assert again
    twice = _day(tmp_path, base, [*again, *SECOND, *SECOND], deduplicate=True)
    once = _day(tmp_path, base, SECOND, output="once", deduplicate=True)
    assert shard_bytes(twice.path) == shard_bytes(once.path)
    assert twice.manifest["base"]["duplicates"] == len(again) + len(SECOND)


def test_words_are_appended_or_ranked_anew(base, tmp_path):
    news = [(f"u{n}", "new", 61 + n) for n in range(20)] + [("u1", "rare", 90)]
    day = _day(tmp_path, base, [*SECOND, *news], validation_fraction=0.0)
    known = (base.vocab_dir / "item_id.txt").read_text().splitlines()
    words = (day.vocab_dir / "item_id.txt").read_text().splitlines()
    assert words[: len(known)] == known
    assert words[len(known)] == "new"  # the most frequent of those that are new
    assert day.stats["vocabularies"]["item_id"]["given"] == len(known)
    counts = word_counts(day.stats["vocabularies"]["item_id"])
    assert len(counts) == len(words)
    assert counts[len(known)] == 20
    assert day.encoders["price"].numbers() == base.encoders["price"].numbers()

    ranked = _day(
        tmp_path, base, [*SECOND, *news], output="ranked", rerank=True, validation_fraction=0.0
    )
    assert ranked.manifest["base"]["generation"] == 1
    anew = (ranked.vocab_dir / "item_id.txt").read_text().splitlines()
    assert anew[0] == "new"
    assert sorted(anew) == sorted(words)
    assert ranked.encoders["price"].numbers() != base.encoders["price"].numbers()
    assert audit(ranked.path) == {}
    after = _day(tmp_path, ranked, [("u1", "i1", 200)], output="after", validation_fraction=0.0)
    assert after.manifest["base"]["generation"] == 1
    assert (after.vocab_dir / "item_id.txt").read_text().splitlines()[: len(anew)] == anew


def test_a_word_that_becomes_frequent_over_days_is_appended(tmp_path):
    first = [(f"u{n % 5}", f"i{n % 7}", n) for n in range(40)] + [("u1", "slow", 30)]
    base = days.build(
        tmp_path,
        [(0, _full(first))],
        "data",
        min_count=3,
        protocol="day",
        validation_fraction=0.0,
        negatives=0,
    )
    path = base.path
    for number in (1, 2):
        log = [("u1", "slow", 100 * number), ("u2", "i1", 100 * number + 1)]
        day = days.build(
            tmp_path, [(number, _full(log))], f"day{number}", min_count=3, protocol="day",
            validation_fraction=0.0, base=str(path), negatives=0,
        )  # fmt: skip
        words = (day.vocab_dir / "item_id.txt").read_text().splitlines()
        assert ("slow" in words) == (number == 2)
        path = day.path


def test_requests_begin_at_a_time_and_histories_before(tmp_path):
    events = _full(EVENTS)
    whole = days.build(tmp_path, [(0, events)], "whole", max_length=5, protocol="day")
    part = days.build(
        tmp_path, [(0, events)], "part", max_length=5, protocol="day", train_from="30",
        vocabularies=str(whole.path), negatives=0,
    )  # fmt: skip
    requests = {**read_examples(part, "train"), **read_examples(part, "validation")}
    expected = {**read_examples(whole, "train"), **read_examples(whole, "validation")}
    assert requests.keys() == {
        name for name, example in expected.items() if example["timestamp"][0] >= 30
    }
    for name, example in requests.items():
        for key in ("history/item_id", "history/timestamp", "user_id", "timestamp"):
            assert example[key] == expected[name][key]
    assert audit(part.path) == {}


def test_the_audit_finds_a_history_that_does_not_continue_the_base(base, tmp_path):
    day = _day(tmp_path, base, SECOND)
    data = DataDir.open(shutil.copytree(day.path, tmp_path / "copy"))

    def change(examples):
        for example in examples:
            steps = example.feature_lists.feature_list["history/timestamp"].feature
            if steps and steps[0].int64_list.value[0] <= 39:
                steps[0].int64_list.value[0] -= 1

    rewrite_split(data, "validation", change)
    assert "base" in Audit(data.path).run()


def test_a_base_that_is_gone_is_said(base, tmp_path):
    moved = shutil.copytree(base.path, tmp_path / "moved")
    day = _day(tmp_path, DataDir.open(moved), SECOND)
    shutil.rmtree(moved)
    audited = Audit(day.path)
    assert audited.run() == {}
    assert any(line.startswith("base         not compared: ") for line in audited.remarks())


REFUSED = [
    ({"protocol": "leave_last_out"}, "--base: expected a protocol that splits by time"),
    ({"train_from": "50"}, "--train_from: expected no such flag beside --base"),
    ({"min_item_events": 2}, "--min_item_events: expected no such flag beside --base"),
    ({"negative_sampling": "available_popularity"}, "available_popularity: expected another one"),
    ({"max_length": 6}, "--schema: expected the schema of --base"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_does_not_go_with_a_base_is_refused(base, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        _day(tmp_path, base, SECOND, **arguments)


def test_bases_without_tails_are_refused(tmp_path):
    filtered = days.build(
        tmp_path, [(0, _full(FIRST))], "filtered", protocol="day", min_user_events=2
    )
    with pytest.raises(UserError, match="keeps tails, found none .* built with --min_user_events"):
        _day(tmp_path, filtered, SECOND, max_length=4)


def test_changed_tails_are_refused(base, tmp_path):
    changed = shutil.copytree(base.path, tmp_path / "changed")
    (changed / "tails" / "items.arrow").write_bytes(b"")
    with pytest.raises(UserError, match="the tails are damaged or were changed"):
        _day(tmp_path, DataDir.open(changed), SECOND)
    with pytest.raises(UserError, match="the tails are damaged or were changed"):
        audit(changed)


@pytest.mark.parametrize("text", ["yesterday", "1.5"])
def test_a_time_to_begin_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=f"--train_from: expected an integer .* found '{text}'"):
        days.build(tmp_path, [(0, _full(EVENTS))], "data", protocol="day", train_from=text)


def test_a_finished_day_is_complete_until_its_base_changes(base, tmp_path, capsys):
    day = _day(tmp_path, base, SECOND)
    arguments = BuildArguments(
        **{
            **day.manifest["arguments"],
            "behaviours": (),
            "output": str(day.path),
            "resume": True,
            "num_shards": 2,
        }
    )
    with inline():
        build_examples(arguments)
    assert "is complete: nothing to resume" in capsys.readouterr().err
    manifest = json.loads((base.path / "manifest.json").read_text())
    (base.path / "manifest.json").write_text(json.dumps(manifest))  # other bytes, another base
    with inline(), pytest.raises(UserError, match="expected no data set in"):
        build_examples(arguments)


def _all_bytes(path):
    names = ["stats.json", *json.loads((path / "manifest.json").read_text())["tails"]["files"]]
    return shard_bytes(path) | {
        name: (path / ("" if name == "stats.json" else "tails") / name).read_bytes()
        for name in names
    }


def test_a_day_that_was_cut_off_goes_on(base, tmp_path, monkeypatch):
    whole = _day(tmp_path, base, SECOND, output="whole")

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keep_tails, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            _day(tmp_path, base, SECOND, output="cut")
    cut = tmp_path / "cut"
    assert not (cut / "_COMPLETED").exists()
    arguments = json.loads((whole.path / "manifest.json").read_text())["arguments"]
    with monkeypatch.context() as patch, inline():
        patch.setattr(pipelines, "write", cut_off)  # it is finished
        resumed = BuildArguments(
            **{**arguments, "behaviours": (), "output": str(cut), "resume": True}
        )
        build_examples(resumed)
    assert _all_bytes(cut) == _all_bytes(whole.path)


@pytest.mark.slow
def test_threads_and_processes_give_the_same_bytes(base, tmp_path):
    one = _day(tmp_path, base, SECOND)
    arguments = json.loads((one.path / "manifest.json").read_text())["arguments"]
    for mode in ("multi_threading", "multi_processing"):
        options = ("--direct_num_workers=2", f"--direct_running_mode={mode}")
        other = build_examples(
            BuildArguments(
                **{**arguments, "behaviours": ()},
                output=str(tmp_path / mode),
                beam_options=options,
            )
        )
        assert _all_bytes(other.path) == _all_bytes(one.path)
