"""The batches of one reader, dealt to several that take turns: each gives whole batches.

Together they give what one reader gives, batch for batch and bit for bit, so what is computed for
each batch can be put together as if one had computed it. That is what scoring needs; training
wants a part of every batch instead (`preprocessing.reading.parts`).

The batches of a block are sorted by the lengths of their histories. They are mixed, then the list
of all batches is cut into one range per reader: a reader opens the shards that its range lies in,
parses its blocks alone, and has batches of all lengths.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.reading.parts import Part, batches_per_block

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Turn(NamedTuple):
    """What one of the readers reads of an epoch in the order of the shards.

    Attributes:
        shards: Numbers of the shards in which its blocks lie, in order.
        requests: Number of requests in them.
        skipped: Number of those ahead of its first block.
        read: Number of requests of its blocks.
        batches: Numbers of its batches in the epoch, rising.
        batch_size: Requests per batch; the last batch of the epoch holds what remains.
        scored: Number of requests of its batches.
    """

    shards: tuple[int, ...]
    requests: int
    skipped: int
    read: int
    batches: np.ndarray
    batch_size: int
    scored: int

    def blocks(self, elements: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Cuts the elements of its shards, one per request, into its blocks of `size` batches."""
        return elements.skip(self.skipped).take(self.read).batch(self.batch_size * size)

    def starts(self, block: tf.Tensor, requests: tf.Tensor, size: int) -> tf.Tensor:
        """Where the batches of a block start, see `Share.starts`."""
        del block, size
        return tf.range(0, requests, self.batch_size)

    def places(self, block: tf.Tensor, size: int) -> tf.Tensor:
        """Places of its batches among those of a block.

        Args:
            block: Number of the block among its own, int64.
            size: Number of batches of a block.

        Returns:
            int64 [Q] for Q batches.
        """
        first = int(self.batches[0]) // size if len(self.batches) else 0
        numbers_X = tf.constant(self.batches, tf.int64)
        is_here_X = tf.equal(numbers_X // size, first + block)
        return tf.boolean_mask(numbers_X % size, is_here_X)


def turn(data: DataDir, split: str, batch_size: int, reader: Part) -> Turn:
    """What a reader reads of a split.

    The numbers of batches of two readers differ by one at most. With fewer batches than readers
    some have none; the first reader has one.

    Args:
        data: The data set.
        split: `train`, `validation` or `test`.
        batch_size: Requests per batch.
        reader: The reader.

    Raises:
        UserError: The data set has no such split.

    Example:
        >>> data = DataDir.open("work/data")  # from pipeline.run --workdir=work
        >>> turns = [turn(data, "validation", 64, Part(index, 2)) for index in range(2)]
        >>> sum(one.scored for one in turns) == data.num_requests("validation")
        True
    """
    requests = data.num_requests(split)
    size = batches_per_block(batch_size)
    batches = dealt(-(-requests // batch_size), size, reader)
    if not len(batches):
        return Turn((), 0, 0, 0, batches, batch_size, 0)
    sizes = [int(shard["requests"]) for shard in data.manifest["splits"][split]["shards"]]
    ends = np.cumsum(sizes)
    first = int(batches[0]) // size * size * batch_size
    last = min(requests, (int(batches[-1]) // size + 1) * size * batch_size)
    shards = [
        shard
        for shard, end in enumerate(ends)
        if sizes[shard] and end > first and end - sizes[shard] < last
    ]
    return Turn(
        tuple(shards),
        sum(sizes[shard] for shard in shards),
        first - int(ends[shards[0]] - sizes[shards[0]]),
        last - first,
        batches,
        batch_size,
        int(np.minimum(batch_size, requests - batches * batch_size).sum()),
    )


def dealt(batches: int, size: int, reader: Part) -> np.ndarray:
    """Numbers of the batches of a reader, rising, int64.

    Args:
        batches: Number of batches of the epoch.
        size: Number of batches of a block.
        reader: The reader.

    Example:
        >>> [dealt(5, 4, Part(index, 2)).tolist() for index in range(2)]
        [[0, 2, 3], [1, 4]]
    """
    places = np.arange(batches)
    first = places // size * size
    in_block = np.minimum(size, batches - first)
    mixed = first + (places - first) * _strides(size)[in_block] % in_block
    return np.sort(mixed[places * reader.count // max(1, batches) == reader.index])


def _strides(size: int) -> np.ndarray:
    """For each number of batches up to `size` a stride that visits all and spreads neighbours."""
    return np.array([0, *(_stride(count) for count in range(1, size + 1))])


def _stride(count: int) -> int:
    return min(
        (step for step in range(1, count + 1) if math.gcd(step, count) == 1),
        key=lambda step: abs(step - _GOLDEN * count),
    )
