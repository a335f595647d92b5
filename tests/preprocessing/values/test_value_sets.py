"""preprocessing.values.value_sets: sets as texts, compared with sets of Python."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa

from preprocessing.values import value_sets

_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), min_size=1, max_size=4)
_ROWS = st.lists(st.lists(st.none() | _WORDS, max_size=6), max_size=8)


def _joined(rows):
    texts = pa.array([word for row in rows for word in row], pa.string())
    places = np.repeat(np.arange(len(rows)), [len(row) for row in rows]).astype(np.int64)
    return value_sets.join(texts, places, len(rows))


@hypothesis.given(_ROWS)
def test_a_set_is_its_distinct_values_in_order(rows):
    expected = [
        "\x1f".join(sorted({word for word in row if word is not None}, key=str.encode)) or None
        for row in rows
    ]
    assert _joined(rows).to_pylist() == expected


@hypothesis.given(_ROWS, st.randoms(use_true_random=False))
def test_order_and_repetitions_mean_nothing(rows, random):
    shuffled = [random.sample(row, len(row)) + random.sample(row, len(row) // 2) for row in rows]
    assert _joined(shuffled).equals(_joined(rows))


@hypothesis.given(_ROWS)
def test_split_gives_the_values_back(rows):
    sets = _joined(rows)
    values, sizes = value_sets.split(sets)
    assert _joined(np.split(values.to_numpy(zero_copy_only=False), np.cumsum(sizes)[:-1])
                   if len(sets) else []).equals(sets)  # fmt: skip
    assert sizes.tolist() == [0 if text is None else text.count("\x1f") + 1 for text in
                              sets.to_pylist()]  # fmt: skip
