"""Epochs shared by several readers, each of which reads shards of its own.

Shards are dealt by their numbers of requests, so that every reader has about as many. An epoch has
as many batches as for one reader of all shards, and every reader cuts its requests into so many
parts of equal size. So a batch holds requests of all readers, and none is through before another.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the readers that share the epochs of a split.

    Attributes:
        index: Number of the reader, from 0.
        count: Number of readers.
    """

    index: int = 0
    count: int = 1


WHOLE = Part()
"""The reader of all shards."""

_ELEMENTS_AT_ONCE = 1 << 10
_BATCHES_PER_BLOCK = 32
_REQUESTS_PER_BLOCK = 1 << 15


class Share(NamedTuple):
    """What one reader reads in an epoch.

    Attributes:
        shards: Numbers of its shards, in order.
        requests: Number of requests in them.
        batches: Number of batches, the same for all readers.
        batch_size: Largest number of requests in its part of a batch.
        is_part: Whether other readers share the epoch. Then no two of its batches differ by more
            than one request; otherwise the last one holds what remains.
    """

    shards: tuple[int, ...]
    requests: int
    batches: int
    batch_size: int
    is_part: bool

    def blocks(self, elements: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Cuts the elements of an epoch, one per request, into blocks of `size` batches."""
        if not self.is_part:
            return elements.batch(self.batch_size * size)
        bounds = [*range(0, self.batches, size), self.batches]
        sizes = [self._start(end) - self._start(first) for first, end in itertools.pairwise(bounds)]
        return elements.batch(_ELEMENTS_AT_ONCE).rebatch(sizes)

    def starts(self, block: tf.Tensor, requests: tf.Tensor, size: int) -> tf.Tensor:
        """Where the batches of a block start.

        Args:
            block: Number of the block, int64.
            requests: Number of its requests, int64.
            size: Number of batches of a block.

        Returns:
            int64 [Q] for Q batches.
        """
        if not self.is_part:
            return tf.range(0, requests, self.batch_size)
        first = block * size
        places_Q = tf.range(first, tf.minimum(first + size, self.batches))
        return self._start(places_Q) - self._start(first)

    def _start(self, batch: Any) -> Any:
        """The number of requests before a batch."""
        return self.requests * batch // self.batches


def batches_per_block(batch_size: int) -> int:
    """Number of batches that are parsed and sorted by length together, the same for all parts."""
    return max(1, min(_BATCHES_PER_BLOCK, _REQUESTS_PER_BLOCK // batch_size))


def share(data: DataDir, split: str, batch_size: int, part: Part = WHOLE) -> Share:
    """What a reader reads in an epoch of a split.

    Args:
        data: The data set.
        split: `train`, `validation` or `test`.
        batch_size: Requests per batch, over all readers. Together they may have up to one request
            more for each reader but the first.
        part: The reader.

    Raises:
        UserError: The data set has no such split, or too few shards or requests for so many
            readers.

    Example:
        >>> data = DataDir.open("work/data")  # from pipeline.run --workdir=work
        >>> share(data, "train", 128).requests == data.num_requests("train")
        True
    """
    requests = data.num_requests(split)
    sizes = [int(shard["requests"]) for shard in data.manifest["splits"][split]["shards"]]
    batches = -(-requests // batch_size)
    if part.count == 1:
        return Share(tuple(range(len(sizes))), requests, batches, batch_size, is_part=False)
    filled = sum(map(bool, sizes))
    if filled < part.count:
        raise UserError(
            f"Expected a shard of {split!r} for each of {part.count} readers in {data.path}, found "
            f"{filled}.",
            f"build the data set with --num_shards={4 * part.count}, or let every worker read all "
            "shards with --set=train.sharding=batches.",
        )
    hands = dealt(sizes, part.count)
    fewest = min(sum(sizes[shard] for shard in hand) for hand in hands)
    if fewest < batches:
        raise UserError(
            f"Expected a request for each of {batches:,} batches of {split!r} in the shards of "
            f"each of {part.count} readers in {data.path}, found {fewest:,} requests for one.",
            "build the data set with more and so more even shards (--num_shards), set a larger "
            "train.batch_size, or let every worker read all shards with "
            "--set=train.sharding=batches.",
        )
    own = sum(sizes[shard] for shard in hands[part.index])
    return Share(hands[part.index], own, batches, -(-own // batches), is_part=True)


def dealt(sizes: Sequence[int], readers: int) -> list[tuple[int, ...]]:
    """Deals shards to readers, the largest first, each to the reader with the fewest requests.

    Args:
        sizes: Number of requests of each shard.
        readers: Number of readers.

    Returns:
        The numbers of the shards of each reader, in order.

    Example:
        >>> dealt([5, 1, 1, 2], readers=2)
        [(0,), (1, 2, 3)]
    """
    hands: list[list[int]] = [[] for _ in range(readers)]
    requests = [0] * readers
    for shard in sorted(range(len(sizes)), key=lambda shard: -sizes[shard]):
        reader = min(range(readers), key=lambda reader: (requests[reader], reader))
        hands[reader].append(shard)
        requests[reader] += sizes[shard]
    return [tuple(sorted(hand)) for hand in hands]
