"""Topics on brokers in the test's own process, which the client of Kafka brings along."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence

import confluent_kafka

from tests.helpers.small_logs import columns

PARTITIONS = 4
"""Number of partitions of every topic of these brokers."""


@contextlib.contextmanager
def broker() -> Iterator["Topics"]:
    """A broker, until the block ends."""
    settings = {"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0}
    limit = {"queue.buffering.max.messages": 1_000_000}
    yield Topics(confluent_kafka.Producer({**settings, **limit}))


class Topics:
    """The topics of a broker.

    Args:
        producer: Client of the broker.
    """

    def __init__(self, producer: confluent_kafka.Producer) -> None:
        self._producer = producer
        (broker,) = producer.list_topics(timeout=10).brokers.values()
        self.server = f"{broker.host}:{broker.port}"

    def url(self, name: str) -> str:
        """The URL of a topic."""
        return f"kafka://{self.server}/{name}"

    def send(self, name: str, values: Mapping[int, Sequence[bytes | None]]) -> None:
        """Appends values to partitions."""
        longest = max(map(len, values.values()))
        for number in range(longest):  # partitions take turns, as they do in a log of many users
            for partition, messages in values.items():
                if number < len(messages):
                    self._producer.produce(name, messages[number], partition=partition)
        assert self._producer.flush(30) == 0


def messages(events, num_partitions: int = PARTITIONS) -> dict[int, list[bytes]]:
    """Events as JSON messages by partition: those of a user are in one, in their order."""
    log = columns(events)
    rows = [dict(zip(log, row, strict=True)) for row in zip(*log.values(), strict=True)]
    by_partition: dict[int, list[bytes]] = {number: [] for number in range(num_partitions)}
    for row in rows:
        by_partition[int(row["user_id"][1:]) % num_partitions].append(json.dumps(row).encode())
    return by_partition


def lines(*sent: Mapping[int, Sequence[bytes]]) -> bytes:
    """Messages as a file of JSON lines: partition by partition, each in its order."""
    return b"".join(
        value + b"\n"
        for partition in sorted({number for values in sent for number in values})
        for values in sent
        for value in values.get(partition, ())
    )
