"""The tf.data reader: shards on disk to batches of requests.

Shape suffixes: B requests, N candidates, L history length, R requests of a block.

Requests are shuffled one by one, then cut into blocks of many batches. A block is parsed at once,
its requests are put in order of their history bucket, and cut into batches: batches hold histories
of about one length, so that little of them is padding, and every request appears exactly once. The
batches of a block come in random order.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from preprocessing import tensorflow_files
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.schema import (
    LABEL,
    REQUEST_ID,
    TIMESTAMP,
    Feature,
    Schema,
    candidate_key,
    history_key,
)

SHUFFLE_BUFFER = 1 << 17
"""Requests among which the next one is drawn. Splits up to this size are shuffled perfectly; of
larger ones the order of shards is drawn as well, and several are read in turns."""

_BATCHES_PER_BLOCK = 32
_REQUESTS_PER_BLOCK = 1 << 15
_SHARDS_IN_TURNS = 16


def parse(schema: Schema, serialized_B: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses serialized SequenceExamples of encoded features.

    Args:
        schema: What the examples hold.
        serialized_B: [B] strings.

    Returns:
        `<user or context feature>` [B]; `candidate/<item feature>` [B,N] and
        `history/<history feature>` [B,L], padded with 0 on the right; int64, or float32 if the
        feature is numeric. `label` [B,N] float32, 0 for padding and if absent. `timestamp` [B]
        int64 and `request_id` [B] string, 0 and "" if absent. A candidate or an event is real
        where the item key is not 0.
    """
    candidates = {candidate_key(f.name): f for f in schema.item_features}
    histories = {history_key(f.name): f for f in schema.history_features}
    context_spec: dict[str, Any] = {
        feature.name: tf.io.FixedLenFeature([], _dtype(feature)) for feature in schema.user_features
    }
    context_spec |= {key: tf.io.RaggedFeature(_dtype(f)) for key, f in candidates.items()}
    context_spec[LABEL] = tf.io.RaggedFeature(tf.int64)
    context_spec[TIMESTAMP] = tf.io.FixedLenFeature([], tf.int64, 0)
    context_spec[REQUEST_ID] = tf.io.FixedLenFeature([], tf.string, "")
    context, sequences, _ = tf.io.parse_sequence_example(
        serialized_B,
        context_features=context_spec,
        sequence_features={
            key: tf.io.FixedLenSequenceFeature([], _dtype(feature))
            for key, feature in histories.items()
        },
    )
    features = {**context, **sequences}
    for key in candidates:
        features[key] = context[key].to_tensor()
    shape = tf.shape(features[candidate_key(schema.item_key.name)])
    features[LABEL] = tf.cast(context[LABEL].to_tensor(shape=shape), tf.float32)
    return features


def read(
    data: DataDir,
    split: str,
    *,
    batch_size: int,
    shuffle_seed: int | None,
    first_epoch: int = 0,
    epochs: int = 1,
    history_buckets: Sequence[int] = (8, 16, 32),
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
        epochs: How many epochs to read.
        history_buckets: Lengths to which histories may be padded. The schema's `max_length` is
            always the last one.

    Returns:
        Batches as `parse` describes them; L is the smallest bucket that holds every history.

    Raises:
        UserError: The data set has no such split, or TensorFlow cannot read where it is.
    """
    tensorflow_files.enable(data.path)
    schema = data.schema
    max_length = schema.history.max_length
    buckets = (*sorted(b for b in history_buckets if b < max_length), max_length)
    files, requests = data.shards(split), data.num_requests(split)
    block_size = batch_size * max(1, min(_BATCHES_PER_BLOCK, _REQUESTS_PER_BLOCK // batch_size))

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = None if shuffle_seed is None else tf.stack([tf.cast(shuffle_seed, tf.int64), epoch])
        return (
            _serialized(files, requests, seed)
            .batch(block_size)
            .enumerate()
            .map(lambda i, block_R: parse_block(seed, i, block_R), num_parallel_calls=2)
            .prefetch(1)  # the next block is parsed while batches are cut from this one
            .flat_map(cut_block)
        )

    def parse_block(
        seed: tf.Tensor | None, index: tf.Tensor, serialized_R: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """A parsed block, its requests in order of their bucket, and where its batches start."""
        block = parse(schema, serialized_R)
        lengths_R = _lengths(block[history_key(schema.item_key.name)])
        bucket_R = tf.searchsorted(tf.constant(buckets, tf.int64), lengths_R)
        starts = tf.range(0, tf.size(serialized_R, tf.int64), batch_size)
        if seed is not None:
            block_seed = tf.random.experimental.stateless_fold_in(seed, index)
            starts = tf.random.experimental.stateless_shuffle(starts, block_seed)
        return block, tf.argsort(bucket_R, stable=True), starts

    def cut_block(block: Any, order_R: tf.Tensor, starts: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(starts).map(
            lambda start: _cut(schema, block, order_R[start : start + batch_size], buckets)
        )

    dataset = tf.data.Dataset.range(first_epoch, first_epoch + epochs).flat_map(read_epoch)
    dataset = dataset.prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)


@contextlib.contextmanager
def reading(data: DataDir) -> Iterator[None]:
    """Turns a damaged shard, met while batches are read, into a `UserError` that names it.

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


def _serialized(paths: Sequence[Any], requests: int, seed: tf.Tensor | None) -> tf.data.Dataset:
    """Serialized examples, shuffled if there is a seed."""
    files = tf.constant([str(path) for path in paths], tf.string)
    if seed is None:
        return tf.data.TFRecordDataset(files, compression_type="GZIP")
    files = tf.random.experimental.stateless_shuffle(files, seed)
    dataset = tf.data.Dataset.from_tensor_slices(files).interleave(
        lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"),
        cycle_length=_SHARDS_IN_TURNS,
        block_length=16,
        num_parallel_calls=2,
        deterministic=True,
    )
    size = max(1, min(requests, SHUFFLE_BUFFER))
    epoch_seed = seed[0] + 1_000_003 * seed[1]
    return dataset.shuffle(size, seed=epoch_seed, reshuffle_each_iteration=False)


def _cut(
    schema: Schema, block: dict[str, tf.Tensor], rows_B: tf.Tensor, buckets: Sequence[int]
) -> dict[str, tf.Tensor]:
    """The given requests of a block, candidates and histories padded no more than they need."""
    batch = {name: tf.gather(tensor, rows_B) for name, tensor in block.items()}
    candidates = tf.reduce_max(_lengths(batch[candidate_key(schema.item_key.name)]))
    for name in [LABEL, *(candidate_key(feature.name) for feature in schema.item_features)]:
        batch[name] = batch[name][:, :candidates]
    longest = tf.reduce_max(_lengths(batch[history_key(schema.item_key.name)]))
    boundaries = tf.constant(buckets, tf.int64)
    length = boundaries[tf.searchsorted(boundaries, longest[tf.newaxis])[0]]
    for feature in schema.history_features:
        history_BL = batch[history_key(feature.name)][:, :length]
        missing = length - tf.shape(history_BL, tf.int64)[1]
        batch[history_key(feature.name)] = tf.pad(history_BL, [[0, 0], [0, missing]])
    return batch


def _lengths(ids_RX: tf.Tensor) -> tf.Tensor:
    """[R] int64: number of ids before the padding."""
    return tf.math.count_nonzero(ids_RX, axis=1)


def _dtype(feature: Feature) -> tf.DType:
    return tf.int64 if feature.is_categorical else tf.float32
