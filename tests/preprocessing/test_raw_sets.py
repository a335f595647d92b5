"""`RawEncoder.encode_sets` in a graph, compared with the encoder of the data pipeline."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from preprocessing.encoders import encoder_files, id_sets
from preprocessing.transforms import RawEncoder
from tests.preprocessing.encoders.test_id_sets import VOCABULARY, WORDS, encoder

_KINDS = {"vocabulary": VOCABULARY, "hash": {"kind": "hash", "buckets": 7}}
_SETS = st.lists(st.sets(st.sampled_from([*WORDS, "x", "y", "z"]), max_size=9), min_size=1,
                 max_size=6)  # fmt: skip


@pytest.fixture(scope="module", params=[(kind, default) for kind in _KINDS for default in (0, 1)])
def raw_and_fitted(request, tmp_path_factory):
    kind, has_default = request.param
    fitted = encoder(_KINDS[kind], **({"default": "w2"} if has_default else {}))
    folder = tmp_path_factory.mktemp("vocab")
    encoder_files.save_vocabulary(fitted, folder)
    return RawEncoder({"a": fitted}, folder), fitted


@hypothesis.given(_SETS, st.integers(0, 3), st.randoms(use_true_random=False))
@hypothesis.settings(deadline=None, max_examples=50)
def test_order_repetitions_and_padding_mean_nothing(raw_and_fitted, sets, more, random):
    raw, fitted = raw_and_fitted
    width = max(map(len, sets)) + more
    table = np.full([len(sets), width + 2], "", object)
    for row, values in enumerate(sets):
        filled = [*values, *random.sample(sorted(values), min(len(values), 2))]
        filled += [""] * (width + 2 - len(filled))
        table[row] = random.sample(filled, len(filled))
    encoded = raw.encode_sets("a", tf.constant(table.tolist(), tf.string), is_real=True).numpy()
    own = [values or ({fitted.feature.default} - {None}) for values in sets]
    column = pa.array(["\x1f".join(sorted(values)) or None for values in own], pa.string())
    expected = id_sets.encode_column(fitted, column)
    rows = np.split(expected.ids, expected.row_splits[1:-1])
    for found, ids in zip(encoded, rows, strict=True):
        assert found[: len(ids)].tolist() == ids.tolist()
        assert not found[len(ids) :].any()


def test_sets_of_what_is_not_real_stay_empty(raw_and_fitted):
    raw, fitted = raw_and_fitted
    values = tf.constant([[["", ""], ["", ""]]])
    encoded = raw.encode_sets("a", values, tf.constant([[True, False]])).numpy()
    assert encoded.shape == (1, 2, 3)[:2] + (encoded.shape[2],)
    assert bool(encoded[0, 0].any()) == (fitted.feature.default is not None)
    assert not encoded[0, 1].any()


def test_no_columns_are_a_set_of_nothing(raw_and_fitted):
    raw, fitted = raw_and_fitted
    encoded = raw.encode_sets("a", tf.zeros([2, 0], tf.string), is_real=True).numpy()
    assert encoded.shape[0] == 2
    assert encoded.shape[1] >= 1
    assert bool(encoded.any()) == (fitted.feature.default is not None)
