"""A connection to a cluster: what a topic holds, and its messages. Nothing is ever committed.

The client is confluent-kafka, an extra that only logs in Kafka need.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.log.topics.bounds import Held
from pipeline.log.topics.topic import Messages, Topic
from preprocessing.errors import UserError, shown
from preprocessing.json_checks import did_you_mean
from preprocessing.storage import files

if TYPE_CHECKING:
    import confluent_kafka

_Result = TypeVar("_Result")

_FIXED = {
    "group.id": "sequence-ctr",  # the client wants one; it joins no group
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
}
_DEFAULTS = {
    "log_level": 0,  # errors are raised
    "fetch.wait.max.ms": 100,
    # A range ends amid a partition: what is fetched ahead of its end is thrown away.
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
}
_SECRET = re.compile(r"pass|secret|user|token|jaas|key|credential|pem|id", re.IGNORECASE)
_AT_ONCE = 10_000
_POLL_SECONDS = 0.1
_ASK_SECONDS = 10.0
PATIENCE = 60.0
"""Seconds without a message after which brokers count as lost."""


class BrokerError(Exception):
    """A broker does not answer or refuses: a fault that may have passed at the next attempt."""


def config(topic: Topic) -> dict[str, str]:
    """The settings in the file of a topic, one `name=value` per line.

    Raises:
        UserError: There is no such file, a line is no setting, or the job decides it.
    """
    if topic.config is None:
        return {}
    path = files.path(topic.config, "--kafka_config")
    if not path.is_file():
        raise UserError(
            f"--kafka_config: expected a file, found none at {topic.config}.",
            "check the path; workers on other machines need the file as well.",
        )
    settings = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, is_setting, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith("#"):
            continue
        if not is_setting or not name:
            raise UserError(
                f"--kafka_config: expected name=value in line {number} of {topic.config}, found "
                "no such line (it is not shown, as it may hold a secret).",
                "write properties of librdkafka, such as security.protocol=SASL_SSL.",
            )
        if name in _FIXED or name == "bootstrap.servers":
            raise UserError(
                f"--kafka_config: expected settings of the connection in {topic.config}, found "
                f"{name!r}, which the job sets itself.",
                "leave that line out.",
            )
        settings[name] = value
    return settings


@contextlib.contextmanager
def connected(topic: Topic) -> Iterator["Connection"]:
    """Connects to the cluster of a topic.

    Raises:
        UserError: The client is not installed, or the settings are none that it takes.
    """
    connection = Connection(topic)
    try:
        yield connection
    finally:
        connection.close()


def held(topic: Topic) -> Held:
    """What a topic holds now: all that is committed.

    Raises:
        UserError: There is no such topic.
        BrokerError: No broker answers.
    """
    with connected(topic) as connection:
        return connection.held()


class Connection:
    """A connection to the cluster of a topic, see `connected`.

    Args:
        topic: The topic.
    """

    def __init__(self, topic: Topic) -> None:
        try:
            import confluent_kafka
            from confluent_kafka import admin
        except ImportError:
            raise UserError(
                f"--input: expected the package confluent-kafka to read {topic.url}, found none.",
                "pip install 'sequence-ctr[kafka]'.",
            ) from None
        self._kafka = confluent_kafka
        self._topic = topic
        self._config = config(topic)
        self._last_error = ""
        self._settings: dict[str, Any] = {
            **_DEFAULTS,
            **self._config,
            **_FIXED,
            "bootstrap.servers": topic.servers,
            "error_cb": self._note,
        }
        self._admin = admin
        try:
            self._consumer = confluent_kafka.Consumer(self._settings)
        except confluent_kafka.KafkaException as error:
            raise UserError(
                f"--kafka_config: expected properties of librdkafka in {topic.config}, found: "
                f"{self._text(error.args[0])}",
                "see librdkafka's CONFIGURATION.md for their names and values.",
            ) from None

    def close(self) -> None:
        """Closes the connection."""
        self._consumer.close()

    def held(self) -> Held:
        """What the topic holds now: all that is committed.

        Raises:
            UserError: There is no such topic.
            BrokerError: No broker answers.
        """
        listing = self._asked(lambda: self._consumer.list_topics(timeout=_ASK_SECONDS))
        name = self._topic.name
        if name not in listing.topics:
            raise UserError(
                f"--input: expected the topic {name!r} at {self._topic.servers}, found none of "
                "that name that may be read.",
                did_you_mean(name, listing.topics) or "check its name and your access to it.",
            )
        offsets = [
            self._bounds(self._kafka.TopicPartition(name, number))
            for number in sorted(listing.topics[name].partitions)
        ]
        # A cluster of tests has no controller, which the question for the identity goes to.
        has_controller = listing.controller_id in listing.brokers
        topic = self._topic
        identity = self._identity() if has_controller else None
        return Held(Topic(topic.servers, name, topic.config, identity), offsets)

    def values(self, messages: Messages) -> Iterator[tuple[int, bytes | None]]:
        """Offsets and values of messages; a value is None if the message has none (a tombstone).

        The end is reached by position: the last offsets may have no messages.

        Raises:
            UserError: The first messages are deleted by now.
            BrokerError: No message came for a long time, or a broker refuses.
        """
        partition = self._kafka.TopicPartition(
            messages.topic.name, messages.partition, messages.begin
        )
        self._consumer.assign([partition])
        position, waited = messages.begin, 0.0
        while position < messages.end:
            asked = time.monotonic()
            wanted = min(messages.end - position, _AT_ONCE)
            arrived = self._consumer.consume(wanted, timeout=_POLL_SECONDS)
            waited += time.monotonic() - asked
            for message in arrived:
                error, offset = message.error(), message.offset()
                if error is not None and not self._has_ended(messages, error):
                    continue
                assert offset is not None  # a message has one, and so has the end of a partition
                if error is None and offset < messages.end:
                    yield offset, message.value()
                    offset += 1
                position, waited = offset, 0.0
            if waited > PATIENCE:
                raise BrokerError(
                    f"{messages.url} gave no message from offset {position} up to {messages.end} "
                    f"for {waited:.0f} s{self._last()}"
                )

    def _has_ended(self, messages: Messages, error: "confluent_kafka.KafkaError") -> bool:
        """Whether what came in place of a message says that the partition has no further one."""
        if error.code() == self._kafka.KafkaError._PARTITION_EOF:
            return True
        if error.code() == self._kafka.KafkaError.GROUP_AUTHORIZATION_FAILED:
            return False  # the client looks for a group, which it never joins
        if error.code() == self._kafka.KafkaError._AUTO_OFFSET_RESET:
            raise UserError(
                f"--input: expected the messages of {messages.url} from offset {messages.begin} "
                f"up to {messages.end}, found the first of them deleted since the build began.",
                "build anew without --resume, and let the topic keep messages for longer than a "
                "build takes.",
            )
        raise BrokerError(f"{messages.url}: {self._text(error)}")

    def _bounds(self, partition: "confluent_kafka.TopicPartition") -> tuple[int, int]:
        """First offset of a partition, and the end of what is committed."""
        consumer = self._consumer
        return self._asked(lambda: consumer.get_watermark_offsets(partition, _ASK_SECONDS))

    def _identity(self) -> str | None:
        """The identity of the topic, None if the cluster does not tell (before Kafka 2.8)."""
        client = self._admin.AdminClient(self._settings)
        asked = client.describe_topics(
            self._kafka.TopicCollection([self._topic.name]), request_timeout=_ASK_SECONDS
        )
        try:
            identity = asked[self._topic.name].result().topic_id
        except self._kafka.KafkaException:
            return None
        return (
            None if identity is None or not identity.get_most_significant_bits() else str(identity)
        )

    def _asked(self, ask: Callable[[], _Result]) -> _Result:
        """The answer of the brokers."""
        try:
            return ask()
        except self._kafka.KafkaException as error:
            self._consumer.poll(0)  # hands out what went wrong before
            text = self._text(error.args[0])
            raise BrokerError(f"{self._topic.servers}: {text}{self._last()}") from None

    def _note(self, error: "confluent_kafka.KafkaError") -> None:
        if error.code() != self._kafka.KafkaError._ALL_BROKERS_DOWN:
            self._last_error = self._text(error)

    def _last(self) -> str:
        return f" ({self._last_error})" if self._last_error else ""

    def _text(self, error: "confluent_kafka.KafkaError") -> str:
        """What an error says, without any value of the settings, which errors quote."""
        text = error.str()
        for name, value in self._config.items():
            if value and (len(value) > 3 or _SECRET.search(name)):
                text = text.replace(value, "***")
        return shown(text)
