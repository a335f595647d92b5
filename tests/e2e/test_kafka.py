"""Builds on topics of a broker: transactions, compaction, deleted messages, topics made anew.

Left out of `make test`; run it with `make test-kafka`. What needs no broker of Java is in
tests/pipeline/job/test_topic_builds.py.
"""

import json
import time
import uuid

import confluent_kafka
import java_processes
import kafka_broker
import pytest
from confluent_kafka import admin

from pipeline.arguments import BuildArguments
from pipeline.audit import audit
from pipeline.build_examples import build_examples
from pipeline.log import readers, topic_files
from pipeline.log.topics import client
from pipeline.log.topics.topic import Topic
from preprocessing.errors import UserError
from tests.helpers import topics
from tests.helpers.inline_runner import inline
from tests.helpers.small_data_sets import shard_bytes
from tests.helpers.small_logs import random_events

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(java_processes.missing()), reason=java_processes.missing() or "-"),
]
EVENTS = sorted(random_events(seed=5, users=40, days=60), key=lambda event: event[2])
DAYS = [
    topics.messages([event for event in EVENTS if first < event[2] <= first + 30], 3)
    for first in (0, 30)
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with kafka_broker.running(tmp_path_factory.mktemp("kafka")) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster(servers):
    """The administrator's client."""
    return admin.AdminClient({"bootstrap.servers": servers[0], "log_level": 0})


@pytest.fixture
def topic(servers, cluster, request):
    """A topic of three partitions, by the name of the test."""
    name = request.node.name.replace("[", ".").strip("]")
    _create(cluster, name, **getattr(request, "param", {}))
    return Topic(servers[0], name)


def _create(cluster, name, **config):
    (made,) = cluster.create_topics([admin.NewTopic(name, 3, 1, config=config)]).values()
    made.result(20)


def _send(topic, values, key=None):
    producer = confluent_kafka.Producer({"bootstrap.servers": topic.servers, "log_level": 0})
    for partition, messages in values.items():
        for value in messages:
            producer.produce(topic.name, value, key, partition)
    assert producer.flush(30) == 0


class _Transactions:
    def __init__(self, topic):
        self._name = topic.name
        settings = {"bootstrap.servers": topic.servers, "transactional.id": str(uuid.uuid4())}
        self._producer = confluent_kafka.Producer({**settings, "log_level": 0})
        self._producer.init_transactions(30)

    def begin(self, values):
        self._producer.begin_transaction()
        for partition, messages in values.items():
            for value in messages:
                self._producer.produce(self._name, value, partition=partition)
        self._producer.flush(30)

    def commit(self):
        self._producer.commit_transaction(30)

    def abort(self):
        self._producer.abort_transaction(30)


def _arguments(source, output, **more):
    url = source.url if isinstance(source, Topic) else str(source)
    return BuildArguments(
        input=url, output=str(output), protocol="day", num_shards=2, num_partitions=3, **more
    )


def _file(path, *days):
    path.write_bytes(topics.lines(*days))
    return path


def _contents(data):
    return shard_bytes(data.path) | {"stats.json": (data.path / "stats.json").read_bytes()}


def test_two_days_of_transactions_are_those_of_files(topic, tmp_path):
    """Aborted messages are none, and those of an open transaction come the next day."""
    committed, aborted, open_one = (_Transactions(topic) for _ in range(3))
    committed.begin(DAYS[0])
    committed.commit()
    aborted.begin(DAYS[1])
    aborted.abort()
    open_one.begin({0: DAYS[1][0]})
    first = build_examples(_arguments(topic, tmp_path / "one"))
    open_one.commit()
    committed.begin({1: DAYS[1][1], 2: DAYS[1][2]})
    committed.commit()
    second = build_examples(_arguments(topic, tmp_path / "two", base=str(first.path)))
    with inline():
        files = build_examples(_arguments(_file(tmp_path / "1.jsonl", DAYS[0]), tmp_path / "f1"))
        log = _file(tmp_path / "2.jsonl", DAYS[1])
        both = build_examples(_arguments(log, tmp_path / "f2", base=str(files.path)))
    assert _contents(first) == _contents(files)
    assert _contents(second) == _contents(both)
    assert audit(second.path) == {}
    for data, day in ((first, 0), (second, 1)):
        assert data.manifest["conservation"]["read"] == sum(map(len, DAYS[day].values()))
        offsets = sum(part["end"] - part["begin"] for part in data.manifest["inputs"])
        assert offsets > data.manifest["conservation"]["read"]  # notes of transactions
    assert len(first.manifest["topics"][topic.name]["id"]) == 22


@pytest.mark.parametrize("topic", [
    {"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01",
     "delete.retention.ms": "0", "max.compaction.lag.ms": "200"},
], indirect=True, ids=["compact"])  # fmt: skip
def test_offsets_that_compaction_has_emptied_are_passed(topic, monkeypatch):
    """Gaps are amid a range and at its end."""
    monkeypatch.setattr(client, "PATIENCE", 10.0)
    wanted = {b"a": 30, b"b": 31}
    for number in range(32):
        _send(topic, {0: [b'{"user_id": %d}' % number]}, b"b" if number == 31 else b"a")
    deadline = time.monotonic() + 60
    while True:
        _send(topic, {0: [b'{"user_id": -1}']}, b"c")  # ends a segment; the last is never cleaned
        log = topic_files.list_topic(topic)
        part = log[0].messages
        with client.connected(topic) as connection:
            left = [offset for offset, _ in connection.values(part)]
        if left[:2] == sorted(wanted.values()):
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    # Of the range from 0 up to 30 every message is gone, so only what follows shows its end.
    monkeypatch.setattr(topic_files, "RANGE_MESSAGES", 30)
    batches = [b for part in readers.ranges(log[0]) for b in readers.read(part, ["user_id"])]
    assert batches[0].lines.tolist()[:2] == [31, 32]
    assert batches[0].columns["user_id"].to_pylist()[:2] == [30, 31]


def test_deleted_messages_are_refused_until_they_are_given_up(cluster, topic, tmp_path):
    _send(topic, DAYS[0])
    with inline():
        first = build_examples(_arguments(topic, tmp_path / "one"))
        _send(topic, DAYS[1])
        end = len(DAYS[0][1])
        deleted = confluent_kafka.TopicPartition(topic.name, 1, end + 3)
        (done,) = cluster.delete_records([deleted]).values()
        done.result(20)
        arguments = _arguments(topic, tmp_path / "two", base=str(first.path))
        with pytest.raises(
            UserError,
            match=rf"found 3 deleted that were never read \(partition 1: offsets {end} to "
            rf"{end + 2}\)\. Fix: .* say --kafka_lost=3\.",
        ):
            build_examples(arguments)
        given_up = _arguments(topic, tmp_path / "two", base=str(first.path), kafka_lost=3)
        second = build_examples(given_up)
        log = _file(tmp_path / "2.jsonl", DAYS[1] | {1: DAYS[1][1][3:]})
        expected = build_examples(_arguments(log, tmp_path / "file", base=str(first.path)))
    assert _contents(second) == _contents(expected)
    assert second.manifest["arguments"]["kafka_lost"] == 3
    # From the start a topic is read from where it begins now.
    assert topic_files.list_topic(topic)[1].messages.begin == end + 3


def test_a_topic_made_anew_is_refused_though_it_is_longer(cluster, topic, tmp_path):
    _send(topic, DAYS[0])
    with inline():
        first = build_examples(_arguments(topic, tmp_path / "one"))
        (gone,) = cluster.delete_topics([topic.name]).values()
        gone.result(20)
        deadline = time.monotonic() + 30
        while topic.name in cluster.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        _create(cluster, topic.name)
        _send(topic, DAYS[0])
        _send(topic, DAYS[1])
        with pytest.raises(UserError, match=r"with the id .{22}, .* found .{22} at .*made anew"):
            build_examples(_arguments(topic, tmp_path / "two", base=str(first.path)))


def test_a_password_comes_from_a_file_and_is_never_shown(servers, cluster, topic, tmp_path):
    """All that its user may do is to read the topic."""
    _send(topic, DAYS[0])
    may_read = admin.AclBinding(
        *(admin.ResourceType.TOPIC, topic.name, admin.ResourcePatternType.LITERAL),
        *("User:reader", "*", admin.AclOperation.READ, admin.AclPermissionType.ALLOW),
    )
    (allowed,) = cluster.create_acls([may_read]).values()
    allowed.result(20)
    asking = Topic(servers[1], topic.name)
    config = tmp_path / "client.properties"
    lines = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=reader\n"
    for password in (kafka_broker.PASSWORD, "another one"):
        config.write_text(f"{lines}sasl.password={password}\n")
        arguments = _arguments(asking, tmp_path / password, kafka_config=str(config))
        if password == kafka_broker.PASSWORD:
            data = build_examples(arguments)  # its workers read the file as well
            assert kafka_broker.PASSWORD not in json.dumps(data.manifest)
            continue
        with pytest.raises(
            UserError, match="answer of Kafka, found none: .*uthentication"
        ) as caught:
            build_examples(arguments)
        assert password not in str(caught.value)
        assert "reader" not in str(caught.value)


def test_asking_for_a_topic_does_not_make_it(servers, cluster, topic):
    """Though the broker makes topics that somebody asks for."""
    with pytest.raises(UserError, match=r"the topic 'nothing' at .*, found none"):
        topic_files.list_topic(Topic(servers[0], "nothing"))
    assert "nothing" not in cluster.list_topics(timeout=10).topics
