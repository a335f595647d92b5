"""preprocessing.codec against protobuf: equal bytes, and equal messages after parsing."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from preprocessing import codec
from preprocessing.codec import Ragged, SerializedSteps, encode_examples

_INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-200, 200),
    st.sampled_from([2 ** (7 * i) + d for i in range(1, 9) for d in (-1, 0)]),
)
_FLOAT32 = st.floats(width=32, allow_nan=False)
_BYTES = st.one_of(st.binary(max_size=20), st.binary(min_size=120, max_size=300))
_KINDS = {"int64": _INT64, "float32": _FLOAT32, "bytes": _BYTES}
_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@st.composite
def _columns(draw, rows):
    """Name to (kind, list of values per row)."""
    names = draw(st.lists(_NAMES, unique=True, max_size=4))
    columns = {}
    for name in names:
        kind = draw(st.sampled_from(sorted(_KINDS)))
        values = st.lists(_KINDS[kind], max_size=5)
        columns[name] = (kind, [draw(values) for _ in range(rows)])
    return columns


def _ragged(kind, rows):
    flat = [value for row in rows for value in row]
    splits = np.cumsum([0] + [len(row) for row in rows])
    return Ragged(flat if kind == "bytes" else np.array(flat, kind), splits)


def _feature(kind, values):
    if kind == "bytes":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if kind == "float32":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _message(context, feature_lists, row):
    """The same example, built from protobuf objects."""
    example = tf.train.SequenceExample()
    for name, (kind, rows) in context.items():
        example.context.feature[name].CopyFrom(_feature(kind, rows[row]))
    for name, (kind, rows) in feature_lists.items():
        steps = example.feature_lists.feature_list[name].feature
        steps.extend(_feature(kind, [value]) for value in rows[row])
    return example


def _encode(context, feature_lists):
    buffer, offsets = encode_examples(
        {name: _ragged(*column) for name, column in context.items()},
        {name: _ragged(*column) for name, column in feature_lists.items()},
    )
    assert buffer.dtype == np.uint8
    assert offsets[0] == 0
    assert offsets[-1] == len(buffer)
    return [buffer[a:b].tobytes() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.data())
def test_bytes_are_those_of_deterministic_protobuf(data):
    rows = data.draw(st.integers(1, 4))
    context, feature_lists = data.draw(_columns(rows)), data.draw(_columns(rows))
    hypothesis.assume(context or feature_lists)
    encoded = _encode(context, feature_lists)
    assert len(encoded) == rows
    for row, example in enumerate(encoded):
        expected = _message(context, feature_lists, row)
        assert tf.train.SequenceExample.FromString(example) == expected
        # Implementations of protobuf disagree on the order of a name and one that begins with it.
        if _is_prefix_free(context) and _is_prefix_free(feature_lists):
            assert example == expected.SerializeToString(deterministic=True)


def _is_prefix_free(names):
    ordered = sorted(names)
    return not any(b.startswith(a) for a, b in zip(ordered, ordered[1:], strict=False))


@pytest.mark.parametrize("names", [("0", "00"), ("a/b", "a")])
def test_names_are_in_the_order_of_their_bytes(names):
    columns = {name: ("int64", [[1]]) for name in names}
    (example,) = _encode(columns, {})
    first, second = (f"\n{chr(len(name))}{name}".encode() for name in sorted(names))
    assert 0 <= example.index(first) < example.index(second)


def test_histories_of_many_lengths_and_value_widths():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 60, 500)
    ids = [rng.integers(-(2 ** rng.integers(1, 63)), 2**40, n).tolist() for n in lengths]
    names = [[f"ü{value}" * 20] for value in lengths]
    scores = [rng.normal(size=n).astype(np.float32).tolist() for n in lengths]
    context = {"user": ("bytes", [[n[0].encode()] for n in names]), "label": ("int64", ids)}
    lists = {"history/id": ("int64", ids), "history/score": ("float32", scores)}
    for row, example in enumerate(_encode(context, lists)):
        assert example == _message(context, lists, row).SerializeToString(deterministic=True)


def test_ids_that_repeat_and_integers_of_every_width():
    ids = np.tile(np.arange(300), 3).tolist()
    edges = [2**bits - 1 + d for bits in range(0, 63, 7) for d in (0, 1)]
    edges += [2**63 - 1, -1, -(2**63)]
    context = {"small": ("int64", [ids, []]), "edges": ("int64", [edges, edges[::-1]])}
    lists = {"small": ("int64", [[7], ids]), "edges": ("int64", [edges[::-1], edges])}
    for row, example in enumerate(_encode(context, lists)):
        assert example == _message(context, lists, row).SerializeToString(deterministic=True)


def test_empty_history_is_an_empty_list_and_empty_context_keeps_its_type():
    (example,) = _encode({"label": ("int64", [[]])}, {"history/id": ("int64", [[]])})
    parsed = tf.train.SequenceExample.FromString(example)
    assert parsed.context.feature["label"].HasField("int64_list")
    assert "history/id" in parsed.feature_lists.feature_list
    assert not parsed.feature_lists.feature_list["history/id"].feature


def test_arrow_strings_and_views_need_no_conversion():
    strings = pa.array(["drop", "a", "ü", "drop"]).slice(1, 2)
    ids = np.arange(4, dtype=np.int64)[::2]
    buffer, offsets = encode_examples(
        {"request_id": Ragged.single(strings), "id": Ragged.single(ids)}, {}
    )
    second = tf.train.SequenceExample.FromString(buffer[offsets[1] : offsets[2]].tobytes())
    assert second.context.feature["request_id"].bytes_list.value == ["ü".encode()]
    assert second.context.feature["id"].int64_list.value == [2]


def test_no_rows():
    buffer, offsets = encode_examples(
        {"id": Ragged(np.zeros(0, np.int64), np.zeros(1, np.int64))},
        {"history/name": Ragged(pa.array([], pa.string()), np.zeros(1, np.int64))},
    )
    assert len(buffer) == 0
    np.testing.assert_array_equal(offsets, [0])


@pytest.mark.parametrize("splits", [[], [1, 3], [0, 2], [0, 3, 2, 3]])
def test_rejects_row_splits_that_do_not_fit(splits):
    with pytest.raises(ValueError, match="expected row splits"):
        Ragged(np.arange(3), np.array(splits, np.int64))


def test_rejects_features_of_different_length():
    with pytest.raises(ValueError, match=r"one number of rows for all features, found \[1, 2\]"):
        encode_examples({"a": Ragged.single(np.arange(1)), "b": Ragged.single(np.arange(2))}, {})


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64, bool])
def test_rejects_other_dtypes(dtype):
    with pytest.raises(ValueError, match="expected int64, float32 or bytes, found"):
        encode_examples({"a": Ragged.single(np.ones(1, dtype))}, {})


def test_rejects_nulls():
    with pytest.raises(ValueError, match="without nulls"):
        encode_examples({"a": Ragged.single(pa.array(["x", None]))}, {})


@pytest.mark.parametrize("kind", sorted(_KINDS))
@hypothesis.given(data=st.data())
def test_rows_cut_out_of_steps_are_those_of_their_values(kind, data):
    values = data.draw(st.lists(_KINDS[kind], max_size=12))
    place = st.integers(0, len(values))
    spans = [
        sorted(pair)
        for pair in data.draw(st.lists(st.tuples(place, place), min_size=1, max_size=6))
    ]
    starts, ends = np.array(spans).T
    column = pa.array(values, pa.large_binary()) if kind == "bytes" else np.array(values, kind)
    steps = SerializedSteps(column)
    assert len(steps) == len(values)
    rows = _ragged(kind, [values[start:end] for start, end in spans])
    cut = encode_examples({}, {"x": steps.rows(starts, ends - starts)})
    whole = encode_examples({}, {"x": rows})
    assert cut[0].tobytes() == whole[0].tobytes()
    assert cut[1].tolist() == whole[1].tolist()


@hypothesis.given(st.lists(st.lists(_INT64, max_size=5), min_size=1, max_size=8))
def test_steps_of_several_integers_are_those_of_protobuf(lists):
    steps = SerializedSteps(_ragged("int64", lists))
    starts, lengths = np.array([0, 1, len(lists)]), np.array([len(lists), len(lists) - 1, 0])
    buffer, offsets = encode_examples({}, {"x": steps.rows(starts, lengths)})
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        expected = tf.train.SequenceExample()
        expected.feature_lists.feature_list["x"].feature.extend(
            _feature("int64", values) for values in lists[start : start + length]
        )
        example = buffer[offsets[row] : offsets[row + 1]].tobytes()
        assert example == expected.SerializeToString(deterministic=True)


def test_steps_of_two_gibibytes_are_refused(monkeypatch):
    data = np.broadcast_to(np.uint8(0), 2**31)  # takes one byte
    monkeypatch.setattr(codec, "_steps", lambda values: (data, np.zeros(1, np.int64)))
    with pytest.raises(ValueError, match="less than 2 GiB"):
        SerializedSteps(np.zeros(1, np.int64))
