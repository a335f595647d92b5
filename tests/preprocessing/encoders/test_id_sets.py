"""preprocessing.encoders.id_sets: sets of ids, compared with one value after another."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from preprocessing.encoders import fitting, id_sets
from preprocessing.encoders.id_sets import IdSets
from preprocessing.features.parsing import parse_feature

WORDS = [f"w{i}" for i in range(12)]
_SETS = st.lists(st.sets(st.sampled_from([*WORDS, "x", "y", "z"]), max_size=9), max_size=12)
VOCABULARY = {"kind": "vocabulary", "min_count": 2, "oov_buckets": 2}


def encoder(kind=VOCABULARY, most=3, dtype="string", **more):
    """An encoder of sets; of the words w0 is the most frequent, and w11 too rare."""
    feature = parse_feature(
        {"name": "a", "role": "item", "dtype": dtype, "encoder": kind, "many": {"max": most},
         **more}, "")  # fmt: skip
    values = pa.array(WORDS if dtype == "string" else list(range(12)))
    return fitting.fit(feature, values, np.arange(12, 0, -1))


def _column(sets):
    texts = ["\x1f".join(sorted(one)) or None for one in sets]
    return pa.array(texts, pa.string())


def _expected(fitted, values):
    """Known ids first, in order; of the others each id once; as many as fit."""
    ids = {int(fitted.encode([value])[0]) for value in values}
    known = sorted(one for one in ids if one > fitted.num_oov)
    unknown = sorted(one for one in ids if one <= fitted.num_oov)
    return (known + unknown)[: fitted.feature.many.max], max(0, len(ids) - fitted.feature.many.max)


@pytest.mark.parametrize("kind", [VOCABULARY, {"kind": "hash", "buckets": 7}])
@hypothesis.given(_SETS, st.booleans())
@hypothesis.settings(deadline=None)
def test_the_most_frequent_values_are_kept_each_id_once(kind, sets, as_dictionary):
    fitted = encoder(kind)
    column = _column(sets)
    column = column.dictionary_encode() if as_dictionary else column
    encoded = id_sets.encode_column(fitted, column)
    expected = [_expected(fitted, values) for values in sets]
    rows = np.split(encoded.ids, encoded.row_splits[1:-1]) if sets else []
    assert [row.tolist() for row in rows] == [ids for ids, _ in expected]

    kept, cut = id_sets.keep_column(fitted, column)
    assert kept.type == column.type
    assert cut.tolist() == [number for _, number in expected]
    again = id_sets.encode_column(fitted, kept)
    assert again.ids.tolist() == encoded.ids.tolist()
    texts = kept.cast(pa.string()).to_pylist()
    for text, values, (ids, _) in zip(texts, sets, expected, strict=True):
        own = [] if text is None else text.split("\x1f")
        assert set(own) <= values
        assert len(own) == len(ids)


def test_frequent_values_come_before_rare_and_unknown_ones():
    fitted = encoder(most=2)
    encoded = id_sets.encode_column(fitted, _column([{"w5", "w0", "nobody", "w3"}]))
    assert encoded.ids.tolist() == [3, 6]  # 0 padding, 1 and 2 unknown, then w0, w1, ...


def test_integers_are_encoded_as_such():
    fitted = encoder(dtype="int64")
    assert id_sets.encode_column(fitted, pa.array(["0\x1f11", None, "1"])).ids.tolist() == [
        3, fitted.encode([11])[0], 4,
    ]  # fmt: skip


@hypothesis.given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.data())
def test_rows_are_gathered(lengths, data):
    sets = IdSets(np.arange(sum(lengths)), np.array(lengths))
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=12))
    chosen = sets[np.array(rows, np.int64)]
    starts = np.cumsum([0, *lengths])
    expected = [list(range(starts[row], starts[row + 1])) for row in rows]
    assert chosen.ids.tolist() == [one for row in expected for one in row]
    assert chosen.lengths.tolist() == [len(row) for row in expected]
