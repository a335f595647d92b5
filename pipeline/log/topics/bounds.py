"""Which offsets a build reads: from where the one before it ended up to what is there now."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.log.topics.topic import Messages, Topic
from preprocessing.errors import UserError

_SHOWN_PARTITIONS = 3
_NEW_SERIES = "begin anew: build from the whole topic without --base (a new --workdir every day)."


class Held(NamedTuple):
    """What a topic holds at one moment.

    Attributes:
        topic: The topic, with its identity if the cluster tells it.
        offsets: For each partition from 0 on the first offset and the end.
    """

    topic: Topic
    offsets: Sequence[tuple[int, int]]


def unread(held: Held, before: Mapping[str, object] | None, lost: int = 0) -> list[Messages]:
    """What no build has read so far, for each partition.

    Args:
        held: What the topic holds.
        before: What the manifest of the base says of the topic, see `as_read`; None if no build
            below this one has read it.
        lost: Number of offsets that may be gone.

    Raises:
        UserError: The topic is another one than the base has read, or more or less is gone.

    Example:
        >>> held = Held(Topic("broker:9092", "clicks"), [(0, 7), (0, 5)])
        >>> first = unread(held, None)
        >>> [(part.begin, part.end) for part in first]
        [(0, 7), (0, 5)]
        >>> later = Held(held.topic, [(2, 9), (0, 5), (0, 1)])
        >>> [(part.begin, part.end) for part in unread(later, as_read(first))]
        [(7, 9), (5, 5), (0, 1)]
    """
    topic, next_offsets = held.topic, _next_offsets(held, before)
    gone = {
        partition: (wanted, first)
        for partition, (wanted, (first, _)) in enumerate(
            zip(next_offsets, held.offsets, strict=False)
        )
        if first > wanted
    }
    num_gone = sum(first - wanted for wanted, first in gone.values())
    if num_gone != lost:
        raise _gap(topic, gone, num_gone, lost)
    begins = [first for first, _ in held.offsets]
    begins[: len(next_offsets)] = map(max, zip(begins, next_offsets, strict=False))
    return [
        Messages(topic, partition, begin, end)
        for partition, (begin, (_, end)) in enumerate(zip(begins, held.offsets, strict=True))
    ]


def as_read(parts: Sequence[Messages]) -> dict[str, object]:
    """What a manifest says of a topic: its identity, and where to go on in each partition.

    Args:
        parts: What was read of each partition, in order.
    """
    return {"id": parts[0].topic.id, "next": [part.end for part in parts]}


def _next_offsets(held: Held, before: Mapping[str, object] | None) -> Sequence[int]:
    """Where the builds so far have ended, for each partition that they have read."""
    if before is None:
        return ()
    topic, next_offsets = held.topic, before["next"]
    assert isinstance(next_offsets, list)
    if before["id"] is not None and topic.id is not None and before["id"] != topic.id:
        raise UserError(
            f"--base: expected the topic {topic.name} with the id {before['id']}, which the base "
            f"has read, found {topic.id} at {topic.servers}: the topic was made anew.",
            _NEW_SERIES,
        )
    if len(next_offsets) > len(held.offsets):
        raise UserError(
            f"--base: expected at least {len(next_offsets)} partitions of {topic.url}, which the "
            f"base has read, found {len(held.offsets)}: the topic was made anew.",
            _NEW_SERIES,
        )
    for partition, (wanted, (_, end)) in enumerate(zip(next_offsets, held.offsets, strict=False)):
        if end < wanted:
            raise UserError(
                f"--base: expected offset {wanted} or more as the end of {topic.url}, partition "
                f"{partition}, where the base has ended, found {end}: the topic was made anew, or "
                "has lost messages.",
                _NEW_SERIES,
            )
    return next_offsets


def _gap(topic: Topic, gone: Mapping[int, tuple[int, int]], num_gone: int, lost: int) -> UserError:
    if not gone:
        return UserError(
            f"--kafka_lost={lost}: expected messages of {topic.url} to be gone, found every "
            "message since the base.",
            "leave it out.",
        )
    where = "; ".join(
        f"partition {partition}: offsets {wanted} to {first - 1}"
        for partition, (wanted, first) in list(gone.items())[:_SHOWN_PARTITIONS]
    )
    more = "; ..." if len(gone) > _SHOWN_PARTITIONS else ""
    allowed = f" and --kafka_lost={lost}" if lost else ""
    return UserError(
        f"--base: expected every message of {topic.url} since the base, found {num_gone} deleted "
        f"that were never read ({where}{more}){allowed}.",
        f"build more often than the topic deletes; to go on without them say "
        f"--kafka_lost={num_gone}.",
    )
