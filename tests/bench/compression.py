"""Shards: what gzip costs, by compressor and level, from columns to the bytes of a file."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

from isal import isal_zlib
from zlib_ng import zlib_ng

from models.keras import tf
from preprocessing import codec
from preprocessing.storage import tfrecord

from .codec import as_messages, columns
from .figures import Comparison, Figure, Spread, take_turns

_GZIP = 16 + zlib.MAX_WBITS
_OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "isal_0": lambda data: _compressed(isal_zlib, data, 0),
    "isal_2": lambda data: _compressed(isal_zlib, data, 2),
    "isal_3": lambda data: _compressed(isal_zlib, data, 3),
    "zlib_ng_1": lambda data: _compressed(zlib_ng, data, 1),
    "zlib_ng_6": lambda data: _compressed(zlib_ng, data, 6),
    "zlib_1": lambda data: _compressed(zlib, data, 1),
    "zlib_6": lambda data: _compressed(zlib, data, 6),
}


def measure(quick: bool) -> list[Figure]:
    """One unit of work is an example, encoded, framed, compressed by ISA-L at level 1.

    Against other compressors; and against protobuf messages through TensorFlow's own writer.
    """
    rows, few = (512, 64) if quick else (8192, 512)
    context, history = columns(rows)
    ours = functools.partial(_compressed, isal_zlib, level=1)

    def write(compress: Callable[[bytes], bytes]) -> bytes:
        return compress(tfrecord.frame(*codec.encode_examples(context, history)).tobytes())

    calls = [functools.partial(write, compress) for compress in (ours, *_OTHERS.values())]
    sizes = [len(call()) for call in calls]
    calls.append(functools.partial(_write_messages, few))
    seconds = take_turns(calls, rounds=3 if quick else 10)
    ours_seconds, *others, stock = (
        Spread.of(times, few if call is calls[-1] else rows)
        for call, times in zip(calls, seconds, strict=True)
    )
    figures = [
        Comparison(ours_seconds, stock).speedup(
            "shards", f"protobuf and TFRecordWriter with gzip, {few} examples", at_least=None
        )
    ]
    for name, size, spread in zip(_OTHERS, sizes[1:], others, strict=True):
        baseline = f"the same with {name}, whose file is {size / sizes[0]:.2f} times as large"
        figures.append(
            Comparison(ours_seconds, spread).cost(f"shards_{name}", baseline, at_most=None)
        )
    return figures


def _compressed(package: Any, data: bytes, level: int) -> bytes:
    """Gzip by a package with the interface of zlib."""
    compressor = package.compressobj(level, zlib.DEFLATED, _GZIP)
    return bytes(compressor.compress(data) + compressor.flush())


def _write_messages(rows: int) -> None:
    with tf.io.TFRecordWriter("/dev/null", "GZIP") as writer:
        for message in as_messages(*columns(rows)):
            writer.write(message.SerializeToString())
