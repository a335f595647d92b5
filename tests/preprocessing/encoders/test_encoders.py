"""preprocessing.encoders: ids by hand, round trips, files, order independence."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from preprocessing.encoders import encoder_files, fitting
from preprocessing.encoders.fitted import NumericEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric, Vocabulary
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.values.farmhash import fingerprint64


def _feature(encoder, dtype=DType.STRING, default=None):
    return Feature(
        name="f", column="f", role=Role.ITEM, dtype=dtype, encoder=encoder, default=default
    )


def _fit(feature, counts):
    values = pa.array(list(counts))
    return fitting.fit(feature, values, np.array(list(counts.values()), np.int64))


def _bucket(text, buckets):
    return 1 + int(fingerprint64([text])[0]) % buckets


def test_vocabulary_ranks_by_count_then_bytes():
    encoder = _fit(
        _feature(Vocabulary(min_count=2, oov_buckets=3)),
        {"b": 5, "ä": 2, "z": 2, "a": 5, "rare": 1, "B": 2},
    )
    # Bytes of UTF-8: "B" < "z" < "ä".
    assert encoder.vocabulary.to_pylist() == ["a", "b", "B", "z", "ä"]
    assert (encoder.cardinality, encoder.num_oov) == (1 + 3 + 5, 3)
    ids = encoder.encode(["a", "ä", "rare", "", None])
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, [4, 8, _bucket("rare", 3), 0, 0])


def test_integer_vocabulary_ranks_and_hashes_decimal_text():
    encoder = _fit(
        _feature(Vocabulary(oov_buckets=5), DType.INT64), {9: 1, 10: 1, 100: 1, -7: 1, -1: 9}
    )
    assert encoder.vocabulary.to_pylist() == [-7, 10, 100, 9]  # -1 is padding
    np.testing.assert_array_equal(
        encoder.encode(pa.array([9, -1, 123456, None])), [9, 0, _bucket("123456", 5), 0]
    )


def test_vocabulary_of_nothing_has_only_oov():
    encoder = _fit(_feature(Vocabulary(min_count=10)), {"a": 1})
    assert encoder.cardinality == 2
    np.testing.assert_array_equal(encoder.encode(["a", ""]), [1, 0])
    assert encoder.encode(encoder.decode(np.array([1]))).tolist() == [1]


def test_hash():
    encoder = _fit(_feature(Hash(buckets=7)), {"a": 1})
    assert (encoder.cardinality, encoder.num_oov) == (8, 0)
    np.testing.assert_array_equal(
        encoder.encode(["a", "", "bc"]), [_bucket("a", 7), 0, _bucket("bc", 7)]
    )
    whole = _fit(_feature(Hash(buckets=7), DType.INT64), {1: 1})
    np.testing.assert_array_equal(
        whole.encode(np.array([42, -1, -2])), [_bucket("42", 7), 0, _bucket("-2", 7)]
    )


def test_numeric_standard_by_counts():
    encoder = _fit(_feature(Numeric(), DType.FLOAT32), {1.0: 1, 3.0: 3, float("nan"): 100})
    # Mean of 1, 3, 3, 3 is 2.5, variance 0.75.
    assert encoder.numbers() == pytest.approx({"mean": 2.5, "std": 0.75**0.5})
    encoded = encoder.encode(pa.array([1.0, 2.5, None, float("nan")], pa.float32()))
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, [-1.5 / 0.75**0.5, 0, 0, 0], rtol=1e-6)
    assert encoder.cardinality == 0


def test_numeric_log_and_none_and_constant():
    log = _fit(_feature(Numeric(normalisation="log_standard"), DType.INT64), {-99: 1, 99: 1})
    np.testing.assert_allclose(log.encode([99, -99, 0]), [1, -1, 0], atol=1e-7)
    none = _fit(_feature(Numeric(normalisation="none"), DType.FLOAT32), {5.0: 1})
    np.testing.assert_array_equal(none.encode([5.0, -2.5]), np.float32([5, -2.5]))
    constant = _fit(_feature(Numeric(), DType.FLOAT32), {5.0: 9})
    np.testing.assert_array_equal(constant.encode([5.0, 7.0]), np.float32([0, 2]))
    nothing = _fit(_feature(Numeric(), DType.FLOAT32), {float("nan"): 1})
    np.testing.assert_array_equal(nothing.encode([5.0]), np.float32([5]))


def test_bucketised_boundaries_belong_to_the_right():
    encoder = _fit(_feature(Bucketised(boundaries=(0.0, 1.5)), DType.FLOAT32), {0.0: 1})
    assert encoder.cardinality == 5
    ids = encoder.encode([-0.1, 0.0, 1.4, 1.5, float("inf"), float("nan"), None])
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, [2, 3, 3, 4, 4, 1, 1])


def test_bucketised_integers_pad():
    encoder = _fit(_feature(Bucketised(boundaries=(0.0, 10.0)), DType.INT64), {0: 1})
    np.testing.assert_array_equal(encoder.encode([-1, -2, 0, 9, 10]), [0, 2, 3, 3, 4])


def test_quantiles_split_the_training_data_evenly():
    feature = _feature(Bucketised(quantiles=4), DType.FLOAT32)
    encoder = _fit(feature, {float(i): 1 for i in range(100)})
    np.testing.assert_array_equal(encoder.boundaries, [25, 50, 75])
    ids = encoder.encode(np.arange(100, dtype=np.float32))
    np.testing.assert_array_equal(np.bincount(ids), [0, 0, 25, 25, 25, 25])
    skewed = _fit(feature, {0.0: 90, 1.0: 5, 2.0: 5})
    np.testing.assert_array_equal(skewed.boundaries, [0])
    assert _fit(feature, {float("nan"): 1}).boundaries.size == 0


@pytest.mark.parametrize(
    ("encoder", "dtype", "default", "missing"),
    [
        (Vocabulary(), DType.STRING, "b", pa.scalar(None, pa.string())),
        (Vocabulary(), DType.INT64, 2, pa.scalar(None, pa.int64())),
        (Hash(buckets=50), DType.STRING, "b", pa.scalar(None, pa.string())),
        (Numeric(), DType.FLOAT32, 2.0, pa.scalar(float("nan"), pa.float32())),
        (Bucketised(boundaries=(1.0, 3.0)), DType.FLOAT32, 2.0, pa.scalar(None, pa.float32())),
    ],
)
def test_default_stands_in_for_missing(encoder, dtype, default, missing):
    values = {DType.STRING: {"a": 3, "b": 1}, DType.INT64: {1: 3, 2: 1}}.get(
        dtype, {1.0: 1, 9.0: 1}
    )
    fitted = _fit(_feature(encoder, dtype, default), values)
    both = pa.array([missing.as_py(), default], missing.type)
    first, second = fitted.encode(both)
    assert first == second
    assert first != 0


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 4), max_size=20),
    st.randoms(use_true_random=False),
)
def test_vocabulary_depends_on_counts_not_on_order(counts, random):
    feature = _feature(Vocabulary(min_count=2))
    shuffled = list(counts.items())
    random.shuffle(shuffled)
    expected = sorted(
        (word for word, n in counts.items() if n >= 2), key=lambda w: (-counts[w], w.encode())
    )
    for order in (counts, dict(shuffled)):
        values = pa.array(list(order), pa.string())
        fitted = fitting.fit(feature, values, np.array(list(order.values()), np.int64))
        assert fitted.vocabulary.to_pylist() == expected


_EVERY_KIND = [
    (Vocabulary(oov_buckets=6), DType.STRING, {"a": 2, "ü": 1, "unseen-3": 1}),
    (Vocabulary(oov_buckets=6), DType.INT64, {5: 2, -2: 1, -3: 1}),
    (Hash(buckets=40), DType.STRING, {"a": 1}),
    (Hash(buckets=40), DType.INT64, {1: 1}),
    (Bucketised(boundaries=(-3.0, 0.1, 1e6)), DType.FLOAT32, {1.0: 1}),
    (Bucketised(boundaries=(-1.0, 0.5, 7.0)), DType.INT64, {1: 1}),
    (Bucketised(boundaries=(0.0,)), DType.INT64, {1: 1}),
    (Bucketised(quantiles=3), DType.FLOAT32, {float("nan"): 1}),
]


@pytest.mark.parametrize(("encoder", "dtype", "counts"), _EVERY_KIND)
def test_every_id_decodes_to_a_value_that_encodes_to_it(encoder, dtype, counts):
    fitted = _fit(_feature(encoder, dtype), counts)
    ids = np.arange(fitted.cardinality)
    if isinstance(encoder, Bucketised):
        # Only a float has a missing value, and only where a number is no padding is there id 0.
        ids = ids[ids != (0 if dtype is DType.FLOAT32 else 1)]
    raw = fitted.decode(ids)
    kinds = {DType.STRING: object, DType.INT64: np.int64, DType.FLOAT32: np.float32}
    assert raw.dtype == kinds[dtype]
    np.testing.assert_array_equal(fitted.encode(raw), ids)
    assert fitted.decode(np.zeros(2, np.int64)).tolist() == [fitted.feature.pad_value] * 2


@pytest.mark.parametrize(("encoder", "dtype", "counts"), _EVERY_KIND)
def test_decode_keeps_the_shape(encoder, dtype, counts):
    fitted = _fit(_feature(encoder, dtype), counts)
    ids = np.array([[2, 0, 2], [1, 1, 2]])
    raw = fitted.decode(ids)
    np.testing.assert_array_equal(raw.ravel(), fitted.decode(ids.ravel()))
    assert raw.shape == (2, 3)
    assert fitted.decode(np.zeros((0, 4), np.int64)).shape == (0, 4)


@pytest.mark.parametrize("normalisation", ["none", "standard", "log_standard"])
def test_numeric_round_trip(normalisation):
    rng = np.random.default_rng(0)
    raw = (rng.normal(size=200) * 1000).astype(np.float32)
    feature = _feature(Numeric(normalisation=normalisation), DType.FLOAT32)
    fitted = fitting.fit(feature, pa.array(raw), np.ones(200, np.int64))
    encoded = fitted.encode(raw).reshape(10, 20)
    decoded = fitted.decode(encoded)
    np.testing.assert_allclose(decoded, raw.reshape(10, 20), rtol=1e-4)
    np.testing.assert_allclose(fitted.encode(decoded.ravel()), encoded.ravel(), rtol=1e-6)


def test_numbers_decode_to_the_few_digits_of_the_log():
    feature = _feature(Numeric(normalisation="standard"), DType.FLOAT32)
    encoder = NumericEncoder(feature, 15.3, 8.21)
    raw = np.array([3.04, 14.81, 0.5, 100, -7.25, 0.001, 0], np.float32)
    assert encoder.decode(encoder.encode(raw)).tolist() == raw.tolist()


def test_numeric_zero_of_a_missing_value_survives_the_round_trip():
    fitted = NumericEncoder(_feature(Numeric(), DType.FLOAT32), 1 / 3, 1e-3)
    encoded = fitted.encode(pa.array([None, 0.25], pa.float32()))
    np.testing.assert_array_equal(fitted.encode(fitted.decode(encoded)), encoded)


def test_numeric_integers_round_trip():
    raw = np.array([-5, 0, 3, 10**6])
    fitted = fitting.fit(
        _feature(Numeric(normalisation="log_standard"), DType.INT64),
        pa.array(raw),
        np.ones(4, np.int64),
    )
    np.testing.assert_array_equal(fitted.decode(fitted.encode(raw)), raw)


@pytest.mark.parametrize(("encoder", "dtype", "counts"), _EVERY_KIND)
def test_saved_and_loaded_encoders_agree(tmp_path, encoder, dtype, counts):
    fitted = _fit(_feature(encoder, dtype), counts)
    encoder_files.save_vocabulary(fitted, tmp_path)
    loaded = encoder_files.load(fitted.feature, tmp_path, fitted.numbers())
    assert (loaded.cardinality, loaded.num_oov) == (fitted.cardinality, fitted.num_oov)
    raw = fitted.decode(np.arange(fitted.cardinality))
    np.testing.assert_array_equal(loaded.encode(raw), fitted.encode(raw))
    assert (tmp_path / "f.txt").exists() == isinstance(encoder, Vocabulary)


def test_vocabulary_file_is_one_value_per_line_whatever_the_value(tmp_path):
    words = ["two words", " lead", "tab\tbed", "\u2028", "\x0b", "\x85", '"quoted"', "ü,", "\x1c"]
    fitted = _fit(_feature(Vocabulary()), {word: 20 - i for i, word in enumerate(words)})
    encoder_files.save_vocabulary(fitted, tmp_path)
    assert (tmp_path / "f.txt").read_bytes() == "".join(f"{w}\n" for w in words).encode()
    assert encoder_files.load(fitted.feature, tmp_path, {}).vocabulary.to_pylist() == words


@pytest.mark.parametrize("word", ["two\nlines", "carriage\rreturn"])
def test_line_breaks_are_refused(tmp_path, word):
    fitted = _fit(_feature(Vocabulary()), {word: 1})
    with pytest.raises(UserError, match="values of 'f' without line breaks, found"):
        encoder_files.save_vocabulary(fitted, tmp_path)


@pytest.mark.parametrize(
    ("content", "dtype", "message"),
    [
        (None, DType.STRING, "vocabulary of 'f', found no file"),
        (b"\xff\n", DType.STRING, "Expected string values in .*f.txt"),
        (b"12\nx\n", DType.INT64, "Expected int64 values in .*f.txt"),
    ],
)
def test_damaged_vocabulary_file(tmp_path, content, dtype, message):
    if content is not None:
        (tmp_path / "f.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        encoder_files.load(_feature(Vocabulary(), dtype), tmp_path, {})


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "q", ""], pa.large_string()),
        pa.array(["-", "a", "q", "", "-"]).slice(1, 3),
        pa.chunked_array([["a"], ["q", ""]]),
        pa.array(["a", "q", ""]).dictionary_encode(),
        np.array(["a", "q", ""], object),
        ["a", "q", ""],
    ],
)
def test_encode_accepts_every_kind_of_column(values):
    fitted = _fit(_feature(Vocabulary(oov_buckets=4)), {"a": 1})
    np.testing.assert_array_equal(fitted.encode(values), [5, _bucket("q", 4), 0])


def test_wider_numbers_are_rounded_to_the_dtype_first():
    # 0.1 as float32 lies above 0.1, and a server only ever sees float32.
    fitted = _fit(_feature(Bucketised(boundaries=(0.1,)), DType.FLOAT32), {0.0: 1})
    below = np.nextafter(0.1, 0)
    np.testing.assert_array_equal(fitted.encode(pa.array([below])), [3])


def test_no_values():
    for encoder, dtype, counts in _EVERY_KIND:
        assert _fit(_feature(encoder, dtype), counts).encode([]).shape == (0,)


@pytest.mark.parametrize("missing", [False, True], ids=["present", "missing"])
def test_a_dictionary_is_encoded_like_the_values_it_stands_for(missing):
    column = pa.array(["b", "a", "b", "new", "", *[None] * missing])
    default = "a" if missing else None
    for encoder in (Vocabulary(oov_buckets=3), Hash(buckets=5)):
        fitted = _fit(_feature(encoder, default=default), {"a": 2, "b": 1})
        ids = fitted.encode(column)
        assert fitted.encode(column.dictionary_encode()).tolist() == ids.tolist()
        assert ids.dtype == np.int64
