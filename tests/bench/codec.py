"""Sequence examples: written as columns, and built one protobuf message after another."""

import itertools
from typing import Any

import numpy as np

from models.keras import tf
from preprocessing import codec
from preprocessing.codec import Ragged

from .figures import Figure, compare

_STEPS = 50
_HISTORY = ("category_id", "item_id", "timestamp")
_ITEM = ("category_id", "item_id")
_CANDIDATES = 2
_VALUES = 3


def measure(quick: bool) -> list[Figure]:
    """One unit of work is an example: a history of 50 steps with 3 features, 2 candidates."""
    rows, baseline_rows = (512, 64) if quick else (8192, 512)
    context, history = columns(rows)
    few_context, few_history = columns(baseline_rows)

    buffer, _ = codec.encode_examples(few_context, few_history)
    messages = as_messages(few_context, few_history)
    expected = [message.SerializeToString(deterministic=True) for message in messages]
    assert buffer.tobytes() == b"".join(expected)

    times = compare(
        lambda: codec.encode_examples(context, history),
        lambda: [m.SerializeToString() for m in as_messages(few_context, few_history)],
        ours_units=rows,
        baseline_units=baseline_rows,
    )
    baseline = (
        f"one protobuf SequenceExample per example, {_STEPS} steps x {len(_HISTORY)} features"
    )
    return [times.speedup("codec", baseline, at_least=80)]


def measure_sets(quick: bool) -> list[Figure]:
    """One unit of work is a history of 50 steps whose feature has 3 values on average."""
    rows, baseline_rows = (512, 64) if quick else (8192, 512)
    sets, few_sets = _sets(rows), _sets(baseline_rows)
    buffer, offsets = _encode_sets(few_sets)
    examples = [buffer[a:b].tobytes() for a, b in itertools.pairwise(offsets)]
    assert examples == _serialised(few_sets)
    times = compare(
        lambda: _encode_sets(sets),
        lambda: _serialised(few_sets),
        ours_units=rows,
        baseline_units=baseline_rows,
    )
    baseline = f"one protobuf SequenceExample per example, {_STEPS} steps x {_VALUES} values"
    return [times.speedup("many_codec", baseline, at_least=30)]


def _sets(rows: int) -> Ragged:
    """Ids of the steps of all histories, the same for the first rows."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 2 * _VALUES + 1, rows * _STEPS)
    ids = np.random.default_rng(1).integers(1, 1000, lengths.sum())
    return Ragged(ids, np.concatenate([[0], np.cumsum(lengths)]))


def _encode_sets(sets: Ragged) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(0, len(sets), _STEPS)
    steps = codec.SerializedSteps(sets).rows(starts, np.full(len(starts), _STEPS))
    return codec.encode_examples({}, {"history/tags": steps})


def _serialised(sets: Ragged) -> list[bytes]:
    """The same as protobuf messages, built set by set."""
    return [
        tf.train.SequenceExample(
            feature_lists=tf.train.FeatureLists(
                feature_list={
                    "history/tags": tf.train.FeatureList(
                        feature=[
                            tf.train.Feature(int64_list=tf.train.Int64List(value=_row(sets, step)))
                            for step in range(start, start + _STEPS)
                        ]
                    )
                }
            )
        ).SerializeToString(deterministic=True)
        for start in range(0, len(sets), _STEPS)
    ]


def columns(rows: int) -> tuple[dict[str, Ragged], dict[str, Ragged]]:
    """Context and feature lists as the pipeline encodes them, the same for the first rows."""
    rng = np.random.default_rng(0)

    def ids(per_row: int, below: int) -> Ragged:
        values = rng.integers(1, below, rows * per_row)
        return Ragged(values, np.arange(rows + 1) * per_row)

    below = {"item_id": 100_000, "category_id": 1000}
    context = {f"candidate/{name}": ids(_CANDIDATES, below[name]) for name in _ITEM}
    context["label"] = ids(_CANDIDATES, 2)
    context["user_id"] = ids(1, 100_000)
    context["timestamp"] = Ragged.single(1_700_000_000 + rng.integers(0, 10**7, rows))
    context["request_id"] = Ragged.single([f"u{row}:{_STEPS}".encode() for row in range(rows)])
    context["request/user"] = Ragged.single([f"u{row}".encode() for row in range(rows)])
    context["request/index"] = Ragged.single(np.full(rows, _STEPS))
    times = 1_700_000_000 + np.cumsum(rng.integers(1, 10**5, [rows, _STEPS]), axis=1)
    history = {f"history/{name}": ids(_STEPS, below[name]) for name in _ITEM}
    history["history/timestamp"] = Ragged(times.ravel(), np.arange(rows + 1) * _STEPS)
    return context, history


def as_messages(
    context: dict[str, Ragged], history: dict[str, Ragged]
) -> list[tf.train.SequenceExample]:
    """The same as protobuf messages, built value by value."""
    rows = range(len(context["user_id"]))
    return [
        tf.train.SequenceExample(
            context=tf.train.Features(
                feature={name: _feature(_row(ragged, row)) for name, ragged in context.items()}
            ),
            feature_lists=tf.train.FeatureLists(
                feature_list={
                    name: tf.train.FeatureList(
                        feature=[_feature([value]) for value in _row(ragged, row)]
                    )
                    for name, ragged in history.items()
                }
            ),
        )
        for row in rows
    ]


def _row(ragged: Ragged, row: int) -> list[Any]:
    values = ragged.values[ragged.row_splits[row] : ragged.row_splits[row + 1]]
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _feature(values: list[Any]) -> tf.train.Feature:
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
