"""The encoder of vectors: NumPy and the graph agree, and encoding undoes decoding."""

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from preprocessing.encoders import encoder_files, fitting
from preprocessing.encoders.vector_encoder import VectorEncoder
from preprocessing.features.encoder_specs import STORAGES, Vector
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.transforms import RawEncoder
from preprocessing.values import vectors

_NUMBERS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.just(3)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


def _feature(storage="float32", size=3):
    return Feature(name="f", column="f", role=Role.ITEM, dtype=DType.FLOAT32, shape=(size,),
                   encoder=Vector(storage=storage))  # fmt: skip


@hypothesis.given(_NUMBERS, st.sampled_from(STORAGES), st.floats(1e-3, 1e3))
@hypothesis.settings(max_examples=50)
def test_the_graph_encodes_as_numpy(numbers, storage, norm):
    encoder = VectorEncoder(_feature(storage), norm)
    expected = encoder.encode(numbers)
    assert expected.dtype == np.dtype(storage)
    assert np.isfinite(expected).all()
    graph = RawEncoder({"f": encoder}, "unused").encode_vectors("f", tf.constant(numbers))
    # TensorFlow takes numbers below the smallest normal one for 0, ahead of the division too.
    tiny = np.finfo(np.float32).tiny * max(1.0, 1.0 / norm)
    np.testing.assert_allclose(graph.numpy(), expected.astype(np.float32), rtol=0, atol=tiny)
    np.testing.assert_array_equal(encoder.encode(vectors.pack(numbers)), expected)


@hypothesis.given(_NUMBERS, st.sampled_from(STORAGES), st.floats(1e-3, 1e3))
@hypothesis.settings(max_examples=50)
def test_decoded_vectors_encode_to_themselves(numbers, storage, norm):
    encoder = VectorEncoder(_feature(storage), norm)
    encoded = encoder.encode(np.clip(numbers, -1e3, 1e3))
    again = encoder.encode(encoder.decode(encoded))
    # A float32 may be no multiple of the norm; then it is a neighbour.
    np.testing.assert_allclose(again, encoded, rtol=3e-7 if storage == "float32" else 0, atol=1e-37)


def test_decoded_numbers_have_the_digits_of_the_log():
    raw = np.array([[2.705, -0.1, 0.0], [1e-3, 123.4, 3.0]], np.float32)
    encoder = VectorEncoder(_feature(), 3.7)
    np.testing.assert_array_equal(encoder.decode(encoder.encode(raw)), raw)


@hypothesis.given(_NUMBERS, st.data())
@hypothesis.settings(max_examples=50)
def test_vectors_survive_tables(numbers, data):
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=len(numbers),
                                          max_size=len(numbers))), bool)  # fmt: skip
    column = vectors.pack(numbers, missing)
    assert column.null_count == missing.sum()
    expected = np.where(missing[:, None], 0, numbers)
    np.testing.assert_array_equal(vectors.unpack(column), expected)
    rows = np.arange(len(numbers))[::-1].copy()
    np.testing.assert_array_equal(vectors.unpack(column.take(pa.array(rows))), expected[rows])
    np.testing.assert_array_equal(vectors.unpack(column.slice(1)), expected[1:])
    np.testing.assert_array_equal(vectors.unpack(column.dictionary_encode()), expected)
    norms = vectors.norms(column)
    assert norms.is_null().to_pylist() == missing.tolist()
    np.testing.assert_allclose(
        norms.fill_null(0).to_numpy(),
        np.linalg.norm(expected.astype(np.float64), axis=1),
        rtol=1e-6,
        atol=1e-37,  # of numbers below those that float32 holds with all their digits
    )


def test_not_finite_vectors_are_missing_and_large_ones_stay_finite():
    encoder = VectorEncoder(_feature("float16"), 1.0)
    raw = np.array([[np.nan, 1, 2], [1, np.inf, 2], [1e6, -1e6, 1]], np.float32)
    expected = [[0, 0, 0], [0, 0, 0], [65504, -65504, 1]]
    np.testing.assert_array_equal(encoder.encode(raw), expected)
    graph = RawEncoder({"f": encoder}, "unused").encode_vectors("f", tf.constant(raw))
    np.testing.assert_array_equal(graph.numpy(), expected)


def test_the_norm_is_that_of_training_vectors(tmp_path):
    fitted = fitting.fit(_feature(), pa.array([3.0, 4.0], pa.float32()), np.array([1, 3]))
    assert fitted.norm == pytest.approx(np.sqrt((9 + 3 * 16) / 4))
    assert encoder_files.load(_feature(), tmp_path, fitted.numbers()).norm == fitted.norm
    for nothing in ([], [0.0]):
        counts = np.ones(len(nothing), np.int64)
        assert fitting.fit(_feature(), pa.array(nothing, pa.float32()), counts).norm == 1.0
