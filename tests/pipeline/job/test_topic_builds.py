"""Builds on topics: the bytes of files, days that go on by themselves, interruptions, accounts."""

import dataclasses
import json

import pytest

from pipeline import data_card, infer_schema
from pipeline.arguments import BuildArguments
from pipeline.audit import Audit
from pipeline.build_examples import build_examples, build_or_resume
from pipeline.job import build, log_schema
from pipeline.job.output import OtherBuildError
from pipeline.log import topic_files
from pipeline.log.topics import client
from preprocessing.errors import UserError
from tests.helpers import topics
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import random_events

EVENTS = sorted(random_events(seed=5, users=40, days=90), key=lambda event: event[2])
DAYS = [
    topics.messages([event for event in EVENTS if first < event[2] <= first + 30])
    for first in (0, 30, 60)
]


@pytest.fixture(scope="module")
def broker():
    with topics.broker() as broker:
        yield broker


@pytest.fixture
def topic(broker, request):
    """The URL of a topic that has the messages of the first day; its name is that of the test."""
    name = request.node.name.replace("[", ".").strip("]")
    broker.send(name, DAYS[0])
    return broker.url(name)


def _arguments(source, output, **more):
    defaults = {"protocol": "day", "num_shards": 2, "num_partitions": 3}
    return BuildArguments(input=str(source), output=str(output), **(defaults | more))


def _file(path, *days):
    path.write_bytes(topics.lines(*days))
    return path


def _contents(data):
    """The bytes of what a data set holds beside its manifest."""
    return shard_bytes(data.path) | {"stats.json": (data.path / "stats.json").read_bytes()}


@pytest.mark.parametrize("protocol", ["leave_last_out", "time_split", "day"])
def test_a_topic_has_the_bytes_of_a_file_of_its_messages(topic, tmp_path, protocol, monkeypatch):
    monkeypatch.setattr(topic_files, "RANGE_MESSAGES", 13)
    monkeypatch.setattr(topic_files, "_BLOCK_MESSAGES", 5)
    log = _file(tmp_path / "log.jsonl", DAYS[0])
    with inline():
        expected = build_examples(_arguments(log, tmp_path / "file", protocol=protocol))
        found = build_examples(_arguments(topic, tmp_path / "topic", protocol=protocol))
    assert _contents(found) == _contents(expected)
    assert found.manifest["conservation"] == expected.manifest["conservation"]


@pytest.mark.parametrize(
    "mode", ["multi_threading", pytest.param("multi_processing", marks=pytest.mark.slow)]
)
def test_any_number_of_workers_writes_the_same_bytes(topic, tmp_path, mode, monkeypatch):
    monkeypatch.setattr(topic_files, "RANGE_MESSAGES", 20)
    options = ("--direct_num_workers=2", f"--direct_running_mode={mode}")
    with inline():
        one = build_examples(_arguments(topic, tmp_path / "one"))
    two = build_examples(_arguments(topic, tmp_path / "two", beam_options=options))
    assert _contents(two) == _contents(one)


def test_how_partitions_mingle_does_not_matter(broker, topic, tmp_path):
    for partition, values in DAYS[0].items():
        broker.send("one_by_one", {partition: values})
    with inline():
        mingled = build_examples(_arguments(topic, tmp_path / "mingled"))
        one_by_one = build_examples(_arguments(broker.url("one_by_one"), tmp_path / "one_by_one"))
    assert _contents(mingled) == _contents(one_by_one)


def test_a_day_goes_on_where_its_base_ended(broker, topic, tmp_path):
    """A day from a file lies between them, and the topic has grown before and after it."""
    name = topic.rpartition("/")[2]
    with inline():
        first = build_examples(_arguments(topic, tmp_path / "one"))
        log = _file(tmp_path / "two.jsonl", DAYS[1])
        second = build_examples(_arguments(log, tmp_path / "two", base=str(first.path)))
        broker.send(name, DAYS[2])
        third = build_examples(_arguments(topic, tmp_path / "three", base=str(second.path)))
        broker.send(name, DAYS[1])
        with pytest.raises(UserError, match="earlier than .*, the latest time of the base"):
            build_examples(
                _arguments(topic, tmp_path / "four", base=str(third.path), late="reject")
            )
        bases = [None, tmp_path / "file1", tmp_path / "file2"]
        for number, (base, day) in enumerate(zip(bases, DAYS, strict=True), 1):
            log = _file(tmp_path / f"{number}.jsonl", day)
            output = tmp_path / f"file{number}"
            expected = build_examples(_arguments(log, output, base=base and str(base)))
    assert _contents(third) == _contents(expected)
    counts = [
        [len(day[partition]) for partition in range(topics.PARTITIONS)]
        for day in (DAYS[0], DAYS[2])
    ]
    assert first.manifest["topics"] == second.manifest["topics"]
    assert first.manifest["topics"] == {name: {"id": None, "next": counts[0]}}
    ends = [sum(pair) for pair in zip(*counts, strict=True)]
    assert [(part["begin"], part["end"]) for part in third.manifest["inputs"]] == [
        *zip(counts[0], ends, strict=True)
    ]
    assert third.manifest["topics"] == {name: {"id": None, "next": ends}}


def test_a_topic_that_holds_nothing_new_is_refused(topic, tmp_path):
    with inline():
        first = build_examples(_arguments(topic, tmp_path / "one"))
        with pytest.raises(UserError, match="expected messages in .*, found none up to its end"):
            build_examples(_arguments(topic, tmp_path / "two", base=str(first.path)))
    assert not (tmp_path / "two").exists()


class CutError(Exception):
    """What ends a build in these tests, as a fault of the machine would."""


def _cut_off(arguments, after):
    run_stage, titles = build.run_stage, []

    def cut(title, *rest, **options):
        if len(titles) == after:
            raise CutError
        titles.append(title)
        run_stage(title, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "run_stage", cut)
        with pytest.raises(CutError):
            build_examples(arguments)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_build_that_goes_on_reads_what_it_began_with(broker, topic, tmp_path, after):
    """By --resume, and as the daily job does it; another build of the output is begun anew."""
    log = _file(tmp_path / "log.jsonl", DAYS[0])
    with inline():
        expected = build_examples(_arguments(log, tmp_path / "file"))
        for output in ("resumed", "daily", "other"):
            _cut_off(_arguments(topic, tmp_path / output), after)
        broker.send(topic.rpartition("/")[2], DAYS[1])
        resumed = build_examples(_arguments(topic, tmp_path / "resumed", resume=True))
        assert _contents(resumed) == _contents(expected)
        again = build_examples(_arguments(topic, tmp_path / "resumed", resume=True))
        assert again.fingerprint == resumed.fingerprint  # it is complete
        arguments = _arguments(topic, tmp_path / "daily")
        daily = build_or_resume(arguments, log_schema.check(arguments))
        assert _contents(daily) == _contents(expected)
        with pytest.raises(OtherBuildError, match="seed was 1, is 2"):
            build_examples(_arguments(topic, tmp_path / "other", seed=2, resume=True))
        other = build_or_resume(_arguments(topic, tmp_path / "other", seed=2))
    ends = [len(DAYS[0][number]) + len(DAYS[1][number]) for number in range(topics.PARTITIONS)]
    assert other.manifest["topics"][topic.rpartition("/")[2]]["next"] == ends


def test_a_build_whose_broker_is_lost_goes_on_with_its_offsets(
    broker, topic, tmp_path, monkeypatch
):
    arguments = _arguments(topic, tmp_path / "data")
    checked = log_schema.check(arguments)

    def values(self, messages):
        raise client.BrokerError(f"{messages.url} is lost")

    with monkeypatch.context() as patch:
        patch.setattr(client.Connection, "values", values)
        with pytest.raises(
            UserError,
            match=r"'Reading' to finish, found: .*BrokerError: kafka.* is lost.*--resume goes on",
        ):
            build_examples(arguments, checked)
    broker.send(topic.rpartition("/")[2], DAYS[1])
    with inline():
        resumed = build_examples(_arguments(topic, tmp_path / "data", resume=True))
    assert resumed.manifest["conservation"]["read"] == sum(map(len, DAYS[0].values()))


def test_a_schema_is_drafted_from_a_topic(topic, tmp_path):
    drafted = infer_schema.infer(topic).schema
    assert (
        drafted.to_json()
        == infer_schema.infer(str(_file(tmp_path / "a.jsonl", DAYS[0]))).schema.to_json()
    )


def test_no_message_disappears_without_a_word(broker, topic, tmp_path):
    name = topic.rpartition("/")[2]
    broker.send(name, {1: [None, b"{", None, b"", b'{"item_id": "i1", "timestamp": 3}']})
    config = tmp_path / "client.properties"
    config.write_text("client.id=s3cret\n")
    arguments = _arguments(topic, tmp_path / "data", max_bad_fraction=0.1, kafka_config=str(config))
    with inline():
        data = build_examples(arguments)
    first = len(DAYS[0][1])
    account = data.manifest["conservation"]
    assert account["read"] == len([e for e in EVENTS if e[2] <= 30]) + 5
    assert account["filtered"]["tombstone"] == 2
    assert sum(account["rejected"].values()) == 3
    rejected = [
        json.loads(line)
        for path in (data.path / "rejected").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert sorted((bad["topic"], bad["partition"], bad["offset"]) for bad in rejected) == [
        (name, 1, first + place) for place in (1, 3, 4)
    ]
    audit = Audit(data.path)
    assert audit.run() == {}
    where = f"{topic}/1, offsets 0 to {first + 5}"
    assert f"log          {where}: {first + 5} rows read of {first + 5} offsets, not counted: it " \
        "is a topic" in audit.remarks()  # fmt: skip
    data.manifest["inputs"][1]["end"] -= 1
    audit = Audit(data.path)
    audit._data = data
    assert audit.run()["log"].count == 1
    data_card.write_card(data.path)
    card = (data.path / "data_card.md").read_text()
    assert where in card
    assert topic in card
    for file in data.path.glob("*.*"):
        assert b"s3cret" not in file.read_bytes()
        assert b"client.properties" not in file.read_bytes()


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"input": "kafka://h:1/a,log.csv"}, "expected kafka://HOST:PORT/TOPIC, found"),
        ({"input": "log.csv", "kafka_config": "x"}, "--kafka_config: expected a topic .* --input"),
        ({"kafka_lost": 3}, "--kafka_lost: expected a topic and a --base beside it"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused(more, found):
    arguments = dataclasses.replace(_arguments("kafka://h:1/a", "data"), **more)
    with pytest.raises(UserError, match=found):
        arguments.check()
