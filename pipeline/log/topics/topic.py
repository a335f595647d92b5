"""Names of topics and of what is read of them."""

import dataclasses
import re

from preprocessing.errors import UserError

PREFIX = "kafka://"
_SERVER = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d+"
_URL = re.compile(rf"{PREFIX}({_SERVER}(?:,{_SERVER})*)/([A-Za-z0-9._-]{{1,249}})")


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic of a cluster.

    Attributes:
        servers: HOST:PORT of a broker, or of several, separated by commas.
        name: Name of the topic.
        config: File with further settings of the client, or None. What it holds is never shown.
        id: Identity that the cluster gave the topic, which one of the same name that is made later
            does not have; None if the cluster does not tell.
    """

    servers: str
    name: str
    config: str | None = None
    id: str | None = None

    @classmethod
    def parse(cls, url: str, config: str | None = None) -> "Topic":
        """The topic at a URL.

        Args:
            url: kafka://HOST:PORT/TOPIC.
            config: File with further settings of the client, or None.

        Raises:
            UserError: It is no such URL.

        Example:
            >>> topic = Topic.parse("kafka://broker:9092/clicks")
            >>> topic.servers, topic.name
            ('broker:9092', 'clicks')
        """
        if "@" in url:
            raise UserError(
                f"--input: expected {PREFIX}HOST:PORT/TOPIC, found a user or a password in it.",
                "write sasl.username=... and sasl.password=... to a file and name it with "
                "--kafka_config.",
            )
        match = _URL.fullmatch(url.strip())
        if match is None:
            raise UserError(
                f"--input: expected {PREFIX}HOST:PORT/TOPIC, found {url!r}.",
                "name one topic and nothing beside it, such as kafka://broker:9092/clicks.",
            )
        return cls(match[1], match[2], config)

    @property
    def url(self) -> str:
        """The URL of the topic."""
        return f"{PREFIX}{self.servers}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Messages:
    """The messages of a partition from one offset up to another one.

    Not every offset has a message: transactions take offsets too, and compaction removes messages.

    Attributes:
        topic: The topic.
        partition: Number of the partition.
        begin: First offset.
        end: End (exclusive).
    """

    topic: Topic
    partition: int
    begin: int
    end: int

    @property
    def url(self) -> str:
        """The URL of the topic, then the number of the partition."""
        return f"{self.topic.url}/{self.partition}"
