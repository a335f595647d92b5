"""preprocessing.values.farmhash against TensorFlow, and against golden values."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from preprocessing.values.farmhash import fingerprint64

# Pairwise coprime moduli; agreement on all of them means agreement on all 64 bits.
_MODULI = (2**63 - 1, 2**62 - 57, 1_000_003, 2**31)


def _same_as_tensorflow(texts):
    prints = fingerprint64(texts)
    for modulus in _MODULI:
        expected = tf.strings.to_hash_bucket_fast(texts, modulus).numpy()
        np.testing.assert_array_equal(prints % np.uint64(modulus), expected.astype(np.uint64))


@pytest.mark.parametrize("lengths", [range(0, 70), range(70, 201), (255, 256, 257, 1000, 4096)])
def test_equals_tensorflow_for_all_lengths(lengths):
    rng = np.random.default_rng(len(lengths))
    texts = [rng.bytes(length) for length in lengths for _ in range(3)]
    rng.shuffle(texts)
    _same_as_tensorflow(texts)


def test_equals_tensorflow_for_unicode_and_decimal_text():
    _same_as_tensorflow(["", "0", "-1", "9223372036854775807", "Übergröße", "日本語" * 30])


def test_golden_values_are_frozen():
    texts = ["", "a", "item-17", "the quick brown fox", "x" * 40, "y" * 100]
    expected = [
        0x9AE16A3B2F90404F,
        0xB3454265B6DF75E3,
        0xBF734D16D1F0EFA8,
        0xAE6767E410A46D31,
        0xEBF8E8AEAC993C94,
        0xED9BC2D00A124603,
    ]
    assert [int(v) for v in fingerprint64(texts)] == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["u1", "u2", "u3", "u4"], pa.string()),
        pa.array(["u1", "u2", "u3", "u4"], pa.large_string()),
        pa.array([b"u1", b"u2", b"u3", b"u4"], pa.binary()),
        pa.chunked_array([["u1"], ["u2", "u3"], ["u4"]]),
        pa.array(["zzz", "u1", "u2", "u3", "u4", "zzz"]).slice(1, 4),
        pa.array(["u1", "u2", "u3", "u4"]).dictionary_encode(),
    ],
)
def test_accepts_every_kind_of_text_column(column):
    expected = fingerprint64([b"u1", b"u2", b"u3", b"u4"])
    np.testing.assert_array_equal(fingerprint64(column), expected)


def test_no_texts():
    assert fingerprint64([]).shape == (0,)


def test_rejects_nulls():
    with pytest.raises(ValueError, match="without nulls, found 1"):
        fingerprint64(pa.array(["a", None]))
