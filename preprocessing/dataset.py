"""The tf.data reader: shards on disk to batches of requests.

Shape suffixes: B requests, N candidates, L history length, M values of a set, R requests of a
block.

Requests are shuffled one by one, then cut into blocks of many batches. A block is parsed at once;
its requests are sorted by history bucket and cut into batches. The histories of a batch therefore
have about the same length, so that little of them is padding, and every request appears exactly
once. The batches of a block come in random order.

A split that is read many times can be held in memory. Then positions stand for requests until a
batch is made; the order of requests is the same.

The file is longer than others here because readers from disk and from memory stand side by side:
they have to agree on every batch.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import tensorflow as tf

from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key, history_key
from preprocessing.reading import cores, parts, turns
from preprocessing.reading.decoded import DecodedSplit, bytes_needed, padded, with_numbers
from preprocessing.reading.parsing import parse_in_pieces, parse_stored
from preprocessing.schema import Schema
from preprocessing.storage import tensorflow_files

SHUFFLE_BUFFER = 1 << 17
"""Number of requests from which the next one is drawn. Splits up to this size are shuffled
perfectly; for larger ones the order of shards is drawn as well, and several are read in turns."""

_SHARDS_IN_TURNS = 16
_DECODED_AT_ONCE = 1 << 12
_BLOCKS_AT_ONCE = 2
"""Number of blocks that are parsed at once, each by an equal part of the cores: more of them would
take more memory, and one would leave cores idle while its requests are sorted."""
_POSITION = "position"

_SHARED: contextvars.ContextVar[dict[Hashable, tf.data.Dataset] | None] = contextvars.ContextVar(
    "datasets that were read before, by what was asked for", default=None
)
_Read = TypeVar("_Read", bound=Callable[..., tf.data.Dataset])

# No function here needs AutoGraph, which takes seconds at every start to rewrite sources.
_as_it_is = tf.autograph.experimental.do_not_convert


def parse(
    schema: Schema,
    serialized_B: tf.Tensor,
    with_users: bool = False,
    with_event_times: bool = False,
) -> dict[str, tf.Tensor]:
    """Parses serialized SequenceExamples of encoded features.

    Args:
        schema: Schema of the examples.
        serialized_B: [B] strings.
        with_users: Whether to return `request/user` as well, which training does not need.
        with_event_times: Whether to return `history/timestamp` [B,L] as well, which training does
            not need either; int64, 0 for padding.

    Returns:
        `<user or context feature>` [B]; `candidate/<item feature>` [B,N] and
        `history/<history feature>` [B,L], padded with 0 on the right; int64, or float32 if the
        feature is numeric. A feature of many values has one more axis, as wide as its `max` M:
        [B,M], [B,N,M] or [B,L,M], padded with 0 on the right; one of vectors of D numbers float32
        [B,D], [B,N,D] or [B,L,D]. `label` [B,N] float32, 0 for padding
        and if absent; `label/weight` [B,N] float32, 0 for padding, if the schema has weights.
        `timestamp` [B] int64 and `request_id` [B] string, 0 and "" if absent. `request/user` [B]
        string, the raw user, if `with_users`. A candidate or an event is real where the item key is
        not 0.
    """
    return with_numbers(schema, parse_stored(schema, serialized_B, with_users, with_event_times))


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Makes `read` return the same dataset for the same arguments while the context is open.

    Setting up a dataset takes longer than reading a few batches of it. Decoded splits stay in
    memory.
    """
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def _shareable(read: _Read) -> _Read:
    """Decorator that caches the datasets of a function while `shared` is open."""

    @functools.wraps(read)
    def wrapped(data: DataDir, split: str, **options: Any) -> tf.data.Dataset:
        shared_datasets = _SHARED.get()
        if shared_datasets is None:
            return read(data, split, **options)
        key = (str(data.path), data.fingerprint, split, *sorted(options.items()))
        if key not in shared_datasets:
            shared_datasets[key] = read(data, split, **options)
        return shared_datasets[key]

    return cast("_Read", wrapped)


@_shareable
def read(
    data: DataDir,
    split: str,
    *,
    batch_size: int,
    shuffle_seed: int | None,
    first_epoch: int = 0,
    epochs: int = 1,
    history_buckets: Sequence[int] = (8, 16, 32),
    memory_budget: int = 0,
    with_users: bool = False,
    part: parts.Part = parts.WHOLE,
    turn: parts.Part = parts.WHOLE,
) -> tf.data.Dataset:
    """Epochs of a split in batches of requests, each epoch in an order of its own.

    The batches of an epoch follow from the data, the batch size, the seed and the number of the
    epoch (together with `tf.random.set_seed`, if that is used), so that a reader can start at any
    epoch. Iterating twice gives the same batches twice. An epoch has ceil(requests / batch_size)
    batches.

    Args:
        data: The data set.
        split: `train`, `validation` or `test`.
        batch_size: Requests per batch. The last batch holds what remains.
        shuffle_seed: Seed of the order of requests; None keeps the order of the shards inside a
            history bucket.
        first_epoch: Number of the first epoch.
        epochs: Number of epochs to read.
        history_buckets: Lengths to which histories may be padded. The schema's `max_length` is
            always the last one.
        memory_budget: Number of bytes. If the split takes no more than this in memory, it is
            decoded at once and read from there; the batches are the same.
        with_users: Whether to read `request/user` as well, see `parse`.
        part: One of several readers that share every epoch, see `preprocessing.reading.parts`. It
            reads its shards alone and gives its part of each batch. The order depends on the number
            of readers.
        turn: One of several readers that deal out the batches of an epoch without a seed, see
            `preprocessing.reading.turns`. It gives some of the batches of one reader, in order.

    Returns:
        Batches as `parse` describes them; L is the smallest bucket that holds every history.

    Raises:
        UserError: The data set has no such split or too few shards for the readers, TensorFlow
            cannot read from its file system, or a shard of a split that is decoded at once is
            damaged.

    Example:
        >>> data = DataDir.open("work/data")  # from pipeline.run --workdir=work
        >>> batch = next(iter(read(data, "train", batch_size=256, shuffle_seed=1)))
        >>> batch["candidate/item_id"].shape == batch["label"].shape  # [B, N]
        True
    """
    tensorflow_files.enable(data.path)
    schema = data.schema
    max_length = schema.history.max_length
    buckets = (*sorted(b for b in history_buckets if b < max_length), max_length)
    taken = None if turn.count == 1 else turns.turn(data, split, batch_size, turn)
    assert taken is None or (shuffle_seed is None and part == parts.WHOLE)
    own = taken or parts.share(data, split, batch_size, part)
    needed = bytes_needed(data, split, with_users, own.requests)
    in_memory = own.requests > 0 and needed <= memory_budget
    threads = cores.available()
    source = (_memory if in_memory else _disk)(data, split, with_users, threads, own.shards)
    # As many batches for every part, so that parts of one batch have histories of one length.
    in_block = parts.batches_per_block(batch_size)

    @_as_it_is
    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        """Blocks of elements, each with the seed of the epoch and its number in the epoch."""
        seed = tf.stack([tf.cast(shuffle_seed or 0, tf.int64), epoch])
        elements = _elements(source, own.requests, None if shuffle_seed is None else seed)
        blocks = own.blocks(elements, in_block).enumerate()
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(seed).repeat(), blocks))

    @_as_it_is
    def parse_block(seed: tf.Tensor, block: tuple[tf.Tensor, tf.Tensor]) -> tuple[_Block, _Cuts]:
        """A parsed block, its requests sorted by bucket, and where to cut it into batches."""
        index, elements_R = block
        starts = own.starts(index, tf.size(elements_R, tf.int64), in_block)
        arranged, cuts = _arrange(source, elements_R, starts, buckets)
        if shuffle_seed is not None:
            block_seed = tf.random.experimental.stateless_fold_in(seed, index)
            batches = tf.range(tf.size(cuts.rows))
            order = tf.random.experimental.stateless_shuffle(batches, block_seed)
            cuts = _Cuts(*(tf.gather(column, order) for column in cuts))
        elif taken is not None:
            places = taken.places(index, in_block)
            cuts = _Cuts(*(tf.gather(column, places) for column in cuts))
        return arranged, cuts

    @_as_it_is
    def with_cuts(block: _Block, cuts: _Cuts) -> tf.data.Dataset:
        """The block, repeated once per batch, with the place of each batch in it."""
        blocks = tf.data.Dataset.from_tensors(block).repeat()
        return tf.data.Dataset.zip((blocks, tf.data.Dataset.from_tensor_slices(cuts)))

    # A function inside a nested data set would be set up anew for every block, which takes longer
    # than cutting the block. So nested data sets only repeat and slice.
    dataset = (
        tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        .flat_map(read_epoch)
        .map(parse_block, num_parallel_calls=min(threads, _BLOCKS_AT_ONCE))
        .prefetch(1)  # the next block is parsed while batches are cut from this one
        .flat_map(with_cuts)
        .map(_as_it_is(source.batch))
        .prefetch(2)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)


@contextlib.contextmanager
def reading(data: DataDir) -> Iterator[None]:
    """Turns the error of a damaged shard, raised by reading batches, into a `UserError` on it.

    Args:
        data: The data set that is being read.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        data.verify()  # raises the error that names the shard
        raise UserError(
            f"Expected readable shards in {data.path}, found: {error.message}.",
            "check the disk; every shard agrees with the manifest now.",
        ) from error


_Block = dict[str, tf.Tensor]
"""Columns with a row per request."""


class _Cuts(NamedTuple):
    """Batches of a block: first request, numbers of requests and candidates, history length."""

    start: tf.Tensor
    rows: tf.Tensor
    candidates: tf.Tensor
    length: tf.Tensor


class _Source(NamedTuple):
    """A source of requests: its elements (one per request), and how they become batches.

    Attributes:
        shards: Number of shards.
        read: Function that gives the elements of the shard with a given number.
        parse: Function that turns a vector of elements into the columns of a block, of which each
            batch takes some rows, and the numbers of events and of candidates of each request,
            [R] int64 each.
        batch: Function that gives the rows of a cut as `parse` of this module describes them.
        threads: Number of threads that read shards; None to read in the calling thread.
    """

    shards: int
    read: Callable[[tf.Tensor], tf.data.Dataset]
    parse: Callable[[tf.Tensor], tuple[_Block, tf.Tensor, tf.Tensor]]
    batch: Callable[[_Block, _Cuts], dict[str, tf.Tensor]]
    threads: int | None


def _disk(
    data: DataDir, split: str, with_users: bool, threads: int, shards: Sequence[int]
) -> _Source:
    """Source that reads the shards; its elements are serialized examples."""
    pieces = -(-threads // _BLOCKS_AT_ONCE)
    paths = data.shards(split)
    files = tf.constant([str(paths[shard]) for shard in shards], tf.string)
    schema, item = data.schema, data.schema.item_key.name

    def parse_all(serialized_R: tf.Tensor) -> tuple[_Block, tf.Tensor, tf.Tensor]:
        block = parse_in_pieces(schema, serialized_R, with_users, pieces)
        return block, _lengths(block[history_key(item)]), _lengths(block[candidate_key(item)])

    def batch(block: _Block, cut: _Cuts) -> dict[str, tf.Tensor]:
        """Candidates and histories are padded no more than the batch needs."""
        widths = {history_key(feature.name): cut.length for feature in schema.step_features}
        widths |= {candidate_key(feature.name): cut.candidates for feature in schema.item_features}
        widths |= {LABEL: cut.candidates, LABEL_WEIGHT: cut.candidates}
        rows = {
            name: padded(rows, widths[name]) if name in widths else rows
            for name, rows in _rows(block, cut).items()
        }
        return with_numbers(schema, rows)

    return _Source(
        int(files.shape[0]),
        lambda shard: tf.data.TFRecordDataset(files[shard], compression_type="GZIP"),
        parse_all,
        batch,
        threads=min(threads, _SHARDS_IN_TURNS),
    )


def _memory(
    data: DataDir, split: str, with_users: bool, threads: int, shards: Sequence[int]
) -> _Source:
    """Source that holds the decoded split in memory; its elements are positions of requests."""
    disk = _disk(data, split, with_users, threads, shards)
    blocks = (
        tf.data.Dataset.range(disk.shards)
        .flat_map(_as_it_is(disk.read))
        .batch(_DECODED_AT_ONCE)
        .map(
            _as_it_is(lambda serialized_R: parse_stored(data.schema, serialized_R, with_users)),
            num_parallel_calls=threads,
            deterministic=True,
        )
        .prefetch(1)
    )
    with reading(data):
        decoded = DecodedSplit(data.schema, blocks)
    described = data.manifest["splits"][split]["shards"]
    sizes = [described[shard]["requests"] for shard in shards]
    bounds = tf.cumsum(tf.constant([0, *sizes], tf.int64))

    def batch(block: _Block, cut: _Cuts) -> dict[str, tf.Tensor]:
        rows = decoded.batch(_rows(block, cut)[_POSITION], cut.length, cut.candidates)
        return with_numbers(data.schema, rows)

    return _Source(
        disk.shards,
        lambda shard: tf.data.Dataset.range(bounds[shard], bounds[shard + 1]),
        lambda positions_R: ({_POSITION: positions_R}, *decoded.lengths(positions_R)),
        batch,
        threads=None,  # Reading positions costs less than passing them between threads.
    )


def _elements(source: _Source, requests: int, seed: tf.Tensor | None) -> tf.data.Dataset:
    """Dataset of the elements of all shards, shuffled if there is a seed."""
    if seed is None:
        return tf.data.Dataset.range(source.shards).flat_map(source.read)
    shards = tf.random.experimental.stateless_shuffle(tf.range(source.shards), seed)
    dataset = tf.data.Dataset.from_tensor_slices(shards).interleave(
        source.read,
        cycle_length=_SHARDS_IN_TURNS,
        block_length=16,
        num_parallel_calls=source.threads,
        deterministic=None if source.threads is None else True,
    )
    size = max(1, min(requests, SHUFFLE_BUFFER))
    epoch_seed = seed[0] + 1_000_003 * seed[1]
    # TensorFlow tests whether both seeds are 0. With a global seed of 0 it would test this seed,
    # a tensor without a value while a graph is traced. A global seed of 0 acts like none here.
    graph = tf.compat.v1.get_default_graph()
    graph.seed = graph.seed or None
    return dataset.shuffle(size, seed=epoch_seed, reshuffle_each_iteration=False)


def _arrange(
    source: _Source, elements_R: tf.Tensor, start: tf.Tensor, buckets: Sequence[int]
) -> tuple[_Block, _Cuts]:
    """Sorts a block by history bucket.

    All work that can be done for the whole block is done here, so that a batch is a slice of it.

    Returns:
        The block, and the cuts of its batches in order.
    """
    block, lengths_R, candidates_R = source.parse(elements_R)
    boundaries = tf.constant(buckets, tf.int64)
    bucket_R = tf.searchsorted(boundaries, lengths_R)
    order_R = tf.argsort(bucket_R, stable=True)
    requests = tf.size(order_R, tf.int64)
    rows = tf.concat([start[1:], requests[None]], 0) - start
    batch_R = tf.repeat(tf.range(tf.size(start)), rows)
    cuts = _Cuts(
        start,
        rows,
        tf.math.segment_max(tf.gather(candidates_R, order_R), batch_R),
        tf.gather(boundaries, tf.math.segment_max(tf.gather(bucket_R, order_R), batch_R)),
    )
    return {name: tf.gather(column, order_R) for name, column in block.items()}, cuts


def _rows(block: _Block, cut: _Cuts) -> _Block:
    """The rows of a cut."""
    return {name: column[cut.start : cut.start + cut.rows] for name, column in block.items()}


def _lengths(ids_RX: tf.Tensor) -> tf.Tensor:
    """Number of ids before the padding, int64 [R]."""
    return tf.math.count_nonzero(ids_RX, axis=1)
