"""Messages as lines: what arrives, what is rejected, and what is said where nothing arrives."""

import dataclasses
import json
import sys

import pytest

from pipeline.log import readers, topic_files
from pipeline.log.input_files import list_inputs
from pipeline.log.topics import client
from pipeline.log.topics.topic import Messages, Topic
from preprocessing.errors import UserError
from tests.helpers import topics

ROWS = [json.dumps({"user_id": f"u{n}", "item_id": n, "text": "é" * n}).encode() for n in range(40)]
ODD = [b'{"user_id": "u", "item_id": 12345678901234567890123}', b"[1]", b"{", b'{"item_id": {}}',
       b"\xff", b'{"user_id": "v", "item_id": 1.5, "more": [1]}']  # fmt: skip
NAMES = ["user_id", "item_id"]


@pytest.fixture(scope="module")
def broker():
    with topics.broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def sent(broker):
    """A topic whose messages are of every kind, in two of its partitions."""
    broker.send("odd", {0: [*ROWS[:20], None, *ODD, b" ", None], 2: [*ROWS[20:], b""]})
    return topic_files.list_topic(Topic.parse(broker.url("odd")))


def _read(log, names=NAMES):
    """Rows, and places of what is rejected, with the counts of what is filtered."""
    rows, rejected, filtered = [], [], 0
    for file in log:
        for part in readers.ranges(file):
            for batch in readers.read(part, names):
                values = (batch.columns[name].to_pylist() for name in names)
                places = [(file.index, line) for line in batch.lines.tolist()]
                rows += zip(places, *values, strict=True)
                rejected += [(file.record(bad), bad) for bad in batch.rejections]
                filtered += sum(batch.filtered.values())
                assert 0 <= batch.blocks_done <= readers.num_blocks(part)
    return rows, rejected, filtered


def test_messages_are_read_as_lines_of_files(sent, tmp_path):
    rows, rejected, filtered = _read(sent)
    for number, lines in ((0, [*ROWS[:20], b"", *ODD]), (2, ROWS[20:])):
        (tmp_path / f"{number}.jsonl").write_bytes(b"\n".join(lines))
    files = [
        dataclasses.replace(file, index=index)
        for file, index in zip(list_inputs(f"{tmp_path}/*.jsonl"), (0, 2), strict=True)
    ]
    like_rows, like_rejected, _ = _read(files)
    assert rows == like_rows
    assert len(rows) == 42
    assert [bad[1:] for _, bad in rejected if bad.reason != "an empty message"] == [
        bad[1:] for _, bad in like_rejected
    ]
    assert [record for record, bad in rejected if bad.reason == "an empty message"] == [
        {"topic": "odd", "partition": partition, "offset": offset, "reason": "an empty message",
         "excerpt": excerpt} for partition, offset, excerpt in ((0, 27, " "), (2, 20, ""))
    ]  # fmt: skip
    assert rejected[0][0] == {
        "topic": "odd", "partition": 0, "offset": 22, "reason": "not a JSON object",
        "excerpt": "[1]",
    }  # fmt: skip
    assert filtered == 2
    assert len(rows) + len(rejected) + filtered == sum(file.messages.end for file in sent)


def test_columns_are_those_of_any_partition(sent):
    names = [*NAMES, "text", "more"]
    assert readers.columns_of_files(sent) == {sent[0]: names, sent[2]: names}
    assert readers.first_lines(sent[0]) == [*ROWS[:20], *ODD, b" "]
    (batch,) = readers.first_batch(sent[2], ["user_id"])
    assert batch.columns["user_id"].to_pylist() == [f"u{n}" for n in range(20, 40)]


@pytest.mark.parametrize(("range_size", "block_size"), [(1, 9), (7, 3), (64, 5), (64, 64)])
def test_ranges_and_blocks_do_not_matter(sent, monkeypatch, range_size, block_size):
    names = ["user_id"]  # a block of numbers only has these as numbers, others as texts
    whole = _read(sent, names)
    monkeypatch.setattr(topic_files, "RANGE_MESSAGES", range_size)
    monkeypatch.setattr(topic_files, "_BLOCK_MESSAGES", block_size)
    monkeypatch.setattr(client, "_AT_ONCE", 4)
    assert len(readers.ranges(sent[0])) == -(-29 // range_size)
    assert _read(sent, names) == whole


def test_a_build_begins_amid_a_partition_and_ends_before_its_end(sent):
    part = dataclasses.replace(sent[0].messages, begin=5, end=9)
    (file,) = topic_files.as_files([part])
    rows, _, _ = _read([file])
    assert [(place[1], row) for place, row, _ in rows] == [(n - 4, f"u{n}") for n in range(5, 9)]


def test_messages_that_do_not_come_are_not_waited_for_for_ever(sent, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 0.5)
    (file,) = topic_files.as_files([dataclasses.replace(sent[2].messages, end=22)])
    with pytest.raises(client.BrokerError, match=r"odd/2 gave no message from offset 21 up to 22"):
        _read([file])


def test_messages_that_were_deleted_meanwhile_are_said(sent):
    (file,) = topic_files.as_files([dataclasses.replace(sent[2].messages, begin=30, end=40)])
    with pytest.raises(
        UserError, match=r"from offset 30 up to 40, found the first of them deleted"
    ):
        _read([file])


def test_what_is_not_there_is_said(broker, sent):
    with pytest.raises(UserError, match=r"the topic 'od' at .*, found none .* did you mean 'odd'"):
        topic_files.list_topic(Topic.parse(broker.url("od")))
    log = topic_files.list_topic(Topic.parse(broker.url("odd")), {"id": None, "next": [29, 0, 21]})
    with pytest.raises(UserError, match=r"found none up to its end \(offsets 29, 0, 21, 0 of its"):
        readers.columns_of_files(log)
    broker.send("arrays", {0: [b'[{"user_id": 1}]']})
    with pytest.raises(UserError, match=r"one JSON object per message in .*arrays, found an array"):
        readers.columns_of_files(topic_files.list_topic(Topic.parse(broker.url("arrays"))))


def test_no_broker_is_one_line(monkeypatch):
    monkeypatch.setattr(client, "_ASK_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"answer of Kafka, found none: 127.0.0.1:1: .*refused"):
        topic_files.list_topic(Topic.parse("kafka://127.0.0.1:1/clicks"))


def test_without_the_client_one_line_says_what_to_install(broker, monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(UserError, match=r"package confluent-kafka .*'sequence-ctr\[kafka\]'"):
        topic_files.list_topic(Topic.parse(broker.url("odd")))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("sasl.password:s3cret", "name=value in line 1 of .*, found no such line"),
        ("# mine\n\nsasl.passwords=s3cret", 'No such configuration property: "sasl.passwords"'),
        (
            "security.protocol=s3cret",
            r'Invalid value "\*\*\*" for configuration property "security',
        ),
        ("sasl.password=s3cret\ngroup.id=x", "found 'group.id', which the job sets itself"),
        ("bootstrap.servers=h:1", "found 'bootstrap.servers', which the job sets itself"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_values_are_not_shown(tmp_path, content, found):
    file = tmp_path / "client.properties"
    file.write_text(content)
    with pytest.raises(UserError, match=f"--kafka_config: .*{found}") as caught:
        topic_files.list_topic(Topic("127.0.0.1:1", "clicks", str(file)))
    assert "s3cret" not in str(caught.value)


def test_settings_are_those_of_the_file(broker, sent, tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("# of the brokers\nsecurity.protocol = plaintext\nclient.id=a=b\n")
    topic = Topic.parse(broker.url("odd"), str(file))
    assert client.config(topic) == {"security.protocol": "plaintext", "client.id": "a=b"}
    assert [part.messages.end for part in topic_files.list_topic(topic)] == [29, 0, 21, 0]
    with pytest.raises(UserError, match="--kafka_config: expected a file, found none at nowhere"):
        client.config(Topic("h:1", "x", "nowhere"))


def test_partitions_of_a_log_are_numbered_by_their_offsets():
    messages = Messages(Topic("h:1", "clicks"), 3, 100, 107)
    (file,) = topic_files.as_files([messages])
    assert file.identity == {"path": "kafka://h:1/clicks/3", "begin": 100, "end": 107}
    bad = readers.Rejection.of(file.path, 1, "bad", b"x")
    assert file.record(bad)["offset"] == 100
