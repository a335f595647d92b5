"""preprocessing.transforms: the graph encodes as NumPy does, and carries its vocabularies."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from preprocessing.encoders import encoder_files, fitting
from preprocessing.encoders.fitted import VocabularyEncoder
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric, Vocabulary
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.transforms import RawEncoder

_WORDS = ["a", "ü", "two words", " lead", "tab\tbed", "\u2028", "\x85", '"quoted"', "nul\0", "10"]
_TEXTS = [*_WORDS, "", "unknown", "日本語" * 30, "A", "10.0", "\x00"]
_NUMBERS = [0, -1, -2, 7, 2**62, -(2**63), 10, 11]
_FLOATS = [0.0, -0.0, 0.1, 1.5, -3.25, 1e30, -1e30, np.nan, 5.0, np.inf]


def _feature(encoder, dtype, default=None):
    return Feature(
        name="f", column="f", role=Role.ITEM, dtype=dtype, encoder=encoder, default=default
    )


_CASES = {
    "vocabulary": (Vocabulary(oov_buckets=1), DType.STRING, None, _WORDS, _TEXTS),
    "vocabulary_buckets": (Vocabulary(oov_buckets=13), DType.STRING, None, _WORDS, _TEXTS),
    "vocabulary_default": (Vocabulary(oov_buckets=2), DType.STRING, "a", _WORDS, _TEXTS),
    "vocabulary_empty": (Vocabulary(min_count=5), DType.STRING, None, _WORDS, _TEXTS),
    "vocabulary_int": (Vocabulary(oov_buckets=4), DType.INT64, None, [7, 10, -2, 0], _NUMBERS),
    "hash": (Hash(buckets=101), DType.STRING, None, ["a"], _TEXTS),
    "hash_int": (Hash(buckets=101), DType.INT64, None, [1], _NUMBERS),
    "none": (Numeric(normalisation="none"), DType.FLOAT32, None, [1.0], _FLOATS),
    "standard": (Numeric(), DType.FLOAT32, None, [1.0, 4.0, 9.5], _FLOATS),
    "standard_int": (Numeric(), DType.INT64, None, [1, 4, 9], _NUMBERS),
    "standard_default": (Numeric(), DType.FLOAT32, 4.0, [1.0, 4.0, 9.5], _FLOATS),
    "bucketised": (Bucketised(boundaries=(0.0, 0.1, 5.0)), DType.FLOAT32, None, [1.0], _FLOATS),
    "bucketised_default": (Bucketised(boundaries=(0.0, 5.0)), DType.FLOAT32, 7.5, [1.0], _FLOATS),
    "bucketised_int": (Bucketised(boundaries=(0.0, 10.0)), DType.INT64, None, [1], _NUMBERS),
    "quantiles": (Bucketised(quantiles=3), DType.FLOAT32, None, _FLOATS, _FLOATS),
    "quantiles_of_nothing": (Bucketised(quantiles=3), DType.FLOAT32, None, [np.nan], _FLOATS),
}


def _fit(case, vocab_dir):
    encoder, dtype, default, training, raw = _CASES[case]
    kinds = {DType.STRING: None, DType.INT64: np.int64, DType.FLOAT32: np.float32}
    feature = _feature(encoder, dtype, default)
    fitted = fitting.fit(feature, pa.array(training), np.ones(len(training), np.int64))
    encoder_files.save_vocabulary(fitted, vocab_dir)
    return fitted, raw if dtype is DType.STRING else np.array(raw, kinds[dtype])


@pytest.mark.parametrize("case", sorted(_CASES))
def test_graph_encodes_as_numpy(tmp_path, case):
    fitted, raw = _fit(case, tmp_path)
    graph = RawEncoder({"f": fitted}, tmp_path).encode("f", tf.constant(raw))
    expected = fitted.encode(raw)
    assert graph.dtype.as_numpy_dtype == expected.dtype
    np.testing.assert_array_equal(graph.numpy(), expected)


@pytest.mark.parametrize("default", [None, "a", "ü"])
@pytest.mark.parametrize("buckets", [1, 13])
def test_expired_values_are_unknown_in_all_encoders(tmp_path, default, buckets):
    feature = _feature(Vocabulary(oov_buckets=buckets), DType.STRING, default)
    gone = pa.array(["a", "\u2028", "tab\tbed", "of another day"])
    expired = VocabularyEncoder(feature, pa.array(_WORDS), gone)
    assert expired.is_expired.sum() == 3
    encoder_files.save_vocabulary(expired, tmp_path)
    loaded = encoder_files.load(feature, tmp_path, {})
    graph = RawEncoder({"f": loaded}, tmp_path)
    live = VocabularyEncoder(feature, pa.array(_WORDS))
    unknown = VocabularyEncoder(feature, pa.array([], pa.large_string()))
    is_gone = np.isin(_TEXTS, gone.to_pylist())
    expected = np.where(is_gone, unknown.encode(_TEXTS), live.encode(_TEXTS))
    assert (expected[is_gone] <= buckets).all()
    for encoder in (expired, loaded):
        np.testing.assert_array_equal(encoder.encode(_TEXTS), expected)
        assert encoder.cardinality == live.cardinality
    np.testing.assert_array_equal(graph.encode("f", tf.constant(_TEXTS)), expected)
    missing = graph.encode("f", tf.constant([""]), True).numpy()
    if default is not None:
        assert missing[0] == loaded.encode([None])[0]
        assert (missing[0] <= buckets) == (default == "a")
    np.testing.assert_array_equal(loaded.encode(loaded.decode(expected)), expected)


def test_expired_integers_are_unknown_in_all_encoders(tmp_path):
    feature = _feature(Vocabulary(oov_buckets=4), DType.INT64)
    expired = VocabularyEncoder(feature, pa.array([7, 10, -2, 0]), pa.array([10, -2]))
    encoder_files.save_vocabulary(expired, tmp_path)
    loaded = encoder_files.load(feature, tmp_path, {})
    raw = np.array(_NUMBERS)
    np.testing.assert_array_equal(loaded.is_expired, [False, True, True, False])
    graph = RawEncoder({"f": loaded}, tmp_path).encode("f", tf.constant(raw))
    np.testing.assert_array_equal(graph, loaded.encode(raw))
    assert (loaded.encode([10, -2]) <= 4).all()


@pytest.mark.parametrize(
    ("encoder", "dtype", "default"),
    [
        (Vocabulary(oov_buckets=3), DType.STRING, "ü"),
        (Vocabulary(oov_buckets=3), DType.STRING, "not in the vocabulary"),
        (Hash(buckets=101), DType.STRING, "a"),
        (Vocabulary(), DType.INT64, 7),
        (Hash(buckets=101), DType.INT64, 5),
        (Bucketised(boundaries=(0.0, 5.0)), DType.INT64, 3),
        (Bucketised(boundaries=(0.0, 5.0)), DType.INT64, None),
        (Numeric(), DType.INT64, 3),
    ],
)
def test_missing_values_are_encoded_as_the_pipeline_does(tmp_path, encoder, dtype, default):
    values = pa.array([7, 10, -2]) if dtype is DType.INT64 else pa.array(_WORDS)
    feature = _feature(encoder, dtype, default)
    fitted = fitting.fit(feature, values, np.ones(len(values), np.int64))
    encoder_files.save_vocabulary(fitted, tmp_path)
    graph = RawEncoder({"f": fitted}, tmp_path)
    pad, present = feature.pad_value, values[0].as_py()
    # Pad values of an integer that is a plain number are numbers: there it has no missing ones.
    seen_by_pipeline = pad if isinstance(encoder, Numeric) else None
    expected = fitted.encode([seen_by_pipeline, present])
    raw = tf.constant(np.array([[pad, pad, present]], object), dtype.value)
    is_real = tf.constant([[True, False, True]])
    missing, padding, known = graph.encode("f", raw, is_real).numpy()[0]
    everywhere = graph.encode("f", raw, is_real=True).numpy()[0]
    assert [missing, known] == expected.tolist()
    assert padding == fitted.encode([pad])[0]
    assert everywhere.tolist() == [missing, missing, known]


@pytest.mark.parametrize(
    ("encoder", "words"), [(Vocabulary(oov_buckets=3), ["a", "ü"]), (Hash(buckets=101), ["a"])]
)
def test_missing_value_without_a_default_is_an_unknown_one(tmp_path, encoder, words):
    fitted = fitting.fit(
        _feature(encoder, DType.STRING), pa.array(words), np.ones(len(words), np.int64)
    )
    encoder_files.save_vocabulary(fitted, tmp_path)
    graph = RawEncoder({"f": fitted}, tmp_path)
    found = graph.encode("f", tf.constant(["", ""]), tf.constant([True, False])).numpy()
    buckets = fitted.num_oov or encoder.buckets
    assert found.tolist() == [1 + int(tf.strings.to_hash_bucket_fast("", buckets)), 0]


def test_log_standard_agrees_to_the_last_bit_but_one(tmp_path):
    feature = _feature(Numeric(normalisation="log_standard"), DType.FLOAT32)
    raw = np.concatenate([np.random.default_rng(0).normal(size=500) * 1e4, _FLOATS])
    raw = raw.astype(np.float32)
    fitted = fitting.fit(feature, pa.array(raw[:500]), np.ones(500, np.int64))
    graph = RawEncoder({"f": fitted}, tmp_path).encode("f", tf.constant(raw)).numpy()
    np.testing.assert_allclose(graph, fitted.encode(raw), rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("case", ["vocabulary_buckets", "hash_int", "bucketised", "standard"])
@pytest.mark.parametrize("shape", [(2, 4), (0, 5), (2, 2, 2)])
def test_keeps_the_shape(tmp_path, case, shape):
    fitted, raw = _fit(case, tmp_path)
    raw = np.array(raw)[: np.prod(shape)].reshape(shape)
    graph = RawEncoder({"f": fitted}, tmp_path).encode("f", tf.constant(raw))
    np.testing.assert_array_equal(graph.numpy(), fitted.encode(raw.ravel()).reshape(shape))


def test_decoded_ids_encode_back_in_the_graph(tmp_path):
    fitted, _ = _fit("vocabulary_buckets", tmp_path)
    ids = np.arange(fitted.cardinality)
    graph = RawEncoder({"f": fitted}, tmp_path).encode("f", tf.constant(fitted.decode(ids)))
    np.testing.assert_array_equal(graph.numpy(), ids)


def test_vocabulary_rebuilt_in_the_same_place(tmp_path):
    feature = _feature(Vocabulary(), DType.STRING)
    kept = []
    for words in (["a", "b"], ["b", "c", "a"]):
        fitted = fitting.fit(feature, pa.array(words), np.arange(len(words), 0, -1))
        encoder_files.save_vocabulary(fitted, tmp_path)
        kept.append(RawEncoder({"f": fitted}, tmp_path))
        found = kept[-1].encode("f", tf.constant(words)).numpy()
        np.testing.assert_array_equal(found, fitted.encode(words))


def test_saved_model_carries_its_vocabularies(tmp_path):
    vocab_dir = tmp_path / "vocab"
    vocab_dir.mkdir()
    fitted = {}
    raw = {}
    for case in ("vocabulary_buckets", "vocabulary_int", "hash", "standard", "bucketised"):
        (tmp_path / case).mkdir()
        fitted[case], raw[case] = _fit(case, tmp_path / case)
        if (tmp_path / case / "f.txt").exists():
            shutil.move(tmp_path / case / "f.txt", vocab_dir / f"{case}.txt")

    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.encoder = RawEncoder(fitted, vocab_dir)

        @tf.function
        def encode(self, **columns):
            return {name: self.encoder.encode(name, column) for name, column in columns.items()}

    served = Served()
    specs = {
        name: tf.TensorSpec([None], tf.constant(column).dtype, name=name)
        for name, column in raw.items()
    }
    signature = served.encode.get_concrete_function(**specs)
    tf.saved_model.save(served, str(tmp_path / "first"), signatures={"encode": signature})
    shutil.move(tmp_path / "first", tmp_path / "second")
    shutil.rmtree(vocab_dir)

    loaded = tf.saved_model.load(str(tmp_path / "second"))
    result = loaded.signatures["encode"](**{name: tf.constant(raw[name]) for name in raw})
    for name, encoder in fitted.items():
        np.testing.assert_array_equal(result[name].numpy(), encoder.encode(raw[name]))
    assert str(tmp_path).encode() not in (tmp_path / "second" / "saved_model.pb").read_bytes()
    assets = {path.name for path in (tmp_path / "second" / "assets").iterdir()}
    assert assets == {"vocabulary_buckets.txt", "vocabulary_int.txt"}
