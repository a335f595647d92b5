"""The partitions of a topic as files of JSON lines: a message is a line, its offset tells which.

Partitions are files in the order of their numbers, and messages are lines in that of their offsets.
So the order of a log does not depend on how the messages of several partitions mingle in time.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from pipeline.log import json_rows
from pipeline.log.json_rows import Separator
from pipeline.log.raw_batch import InputFile, RawBatch, Rejection
from pipeline.log.text_files import BLOCK_BYTES
from pipeline.log.topics import bounds, client
from pipeline.log.topics.client import BrokerError
from pipeline.log.topics.topic import Messages, Topic
from preprocessing.errors import UserError

RANGE_MESSAGES = 1 << 17
"""Number of offsets of the ranges of a partition, each of which one worker reads."""

TOMBSTONE = "tombstone"
"""Rule that takes out messages without a value."""

_BLOCK_MESSAGES = 1 << 15
_MESSAGE_BYTES = 256
_SHOWN_PARTITIONS = 5


def list_topic(
    topic: Topic, before: Mapping[str, object] | None = None, lost: int = 0
) -> list[InputFile]:
    """The partitions of a topic, with the messages that no build has read so far.

    Args:
        topic: The topic.
        before: What the manifest of the base says of it, None without one, see `bounds.unread`.
        lost: Number of messages that may be gone, see `bounds.unread`.

    Raises:
        UserError: There is no such topic, no broker answers, or it is not the topic of the base.
    """
    with explained_broker_errors():
        held = client.held(topic)
    return as_files(bounds.unread(held, before, lost))


def as_files(parts: Sequence[Messages]) -> list[InputFile]:
    """The files of a log that what is read of the partitions of a topic stands for.

    Their sizes depend on nothing but the offsets, so that a build that goes on has as many parts.
    """
    return [
        InputFile(
            part.url,
            part.partition,
            "jsonl",
            (part.end - part.begin) * _MESSAGE_BYTES,
            messages=part,
        )
        for part in parts
    ]


@contextlib.contextmanager
def explained_broker_errors() -> Iterator[None]:
    """Turns brokers that do not answer into a `UserError`, where no worker could try again."""
    try:
        yield
    except BrokerError as error:
        raise UserError(
            f"--input: expected an answer of Kafka, found none: {error}.",
            "check host and port, and that --kafka_config has what the brokers ask for "
            "(security.protocol, sasl.mechanism, ...).",
        ) from error


@contextlib.contextmanager
def first_values(log: Sequence[InputFile], count: int) -> Iterator[Iterator[bytes]]:
    """The first values of each partition.

    Args:
        log: What is read of each partition.
        count: Number of values of each.

    Yields:
        The values, as they arrive.
    """
    parts = [file.messages for file in log if file.messages is not None]
    with client.connected(parts[0].topic) as connection:

        def values() -> Iterator[bytes]:
            for part in parts:
                every = (value for _, value in connection.values(part) if value is not None)
                yield from itertools.islice(every, count)

        yield values()


def nothing_new(log: Sequence[InputFile]) -> UserError:
    """What to say of a topic without messages to read."""
    parts = [file.messages for file in log if file.messages is not None]
    where = ", ".join(str(part.end) for part in parts[:_SHOWN_PARTITIONS])
    more = ", ..." if len(parts) > _SHOWN_PARTITIONS else ""
    return UserError(
        f"--input: expected messages in {parts[0].topic.url}, found none up to its end (offsets "
        f"{where}{more} of its partitions).",
        "run the same command again when there are some.",
    )


def cut(messages: Messages) -> list[Messages]:
    """Ranges of offsets that workers can read on their own."""
    return [
        dataclasses.replace(messages, begin=start, end=min(start + RANGE_MESSAGES, messages.end))
        for start in range(messages.begin, messages.end, RANGE_MESSAGES)
    ]


def num_blocks(messages: Messages) -> int:
    """Number of blocks of a range of messages, which `RawBatch.blocks_done` counts."""
    return (messages.end - messages.begin) // _BLOCK_MESSAGES + 1


def read(
    file: InputFile,
    messages: Messages,
    columns: list[str],
    separators: Mapping[str, Separator],
) -> Iterator[RawBatch]:
    """Reads a range of messages; batches depend on the messages alone, not on how they arrive.

    Args:
        file: The partition.
        messages: The range.
        columns: Columns to read.
        separators: As in `json_rows.read`.

    Raises:
        UserError: Messages are deleted by now.
        BrokerError: A broker does not answer, or refuses.
    """
    begin, size = file.messages.begin if file.messages else messages.begin, 0
    block: list[tuple[int, bytes | None]] = []

    def batch() -> RawBatch:
        numbered = [(offset - begin + 1, value) for offset, value in block]
        done = (block[-1][0] + 1 - messages.begin) // _BLOCK_MESSAGES
        return _batch(file, numbered, columns, separators, done)

    with client.connected(messages.topic) as connection:
        for offset, value in connection.values(messages):
            block.append((offset, value))
            size += len(value or b"")
            if size >= BLOCK_BYTES or len(block) >= _BLOCK_MESSAGES:
                yield batch()
                block, size = [], 0
        if block:
            yield batch()


def _batch(
    file: InputFile,
    numbered: Sequence[tuple[int, bytes | None]],
    columns: list[str],
    separators: Mapping[str, Separator],
    blocks_done: int,
) -> RawBatch:
    """The rows of some messages: tombstones are taken out, and no message is passed over."""
    rows = [(number, value) for number, value in numbered if value and value.strip()]
    empty = [
        Rejection.of(file.path, number, "an empty message", value)
        for number, value in numbered
        if value is not None and not value.strip()
    ]
    num_tombstones = len(numbered) - len(rows) - len(empty)
    numbers, lines = [number for number, _ in rows], [value for _, value in rows]
    batch = json_rows.read(file, lines, numbers, columns, separators)
    return RawBatch(
        file,
        batch.columns,
        batch.lines,
        [*batch.rejections, *empty],
        blocks_done=blocks_done,
        filtered={TOMBSTONE: num_tombstones} if num_tombstones else {},
    )
