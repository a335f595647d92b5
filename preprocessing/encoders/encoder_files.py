"""Encoders on disk: vocabularies as text files, numbers in stats.json."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.encoders.columns import ARROW_TYPES, texts
from preprocessing.encoders.fitted import (
    BucketisedEncoder,
    FittedEncoder,
    HashEncoder,
    NumericEncoder,
    VocabularyEncoder,
)
from preprocessing.encoders.vector_encoder import VectorEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric, Vector
from preprocessing.features.feature import Feature
from preprocessing.storage import files
from preprocessing.storage.arrow_buffers import from_buffers
from preprocessing.storage.files import AnyPath

_LINES = 1 << 16
"""Lines that are written at once."""


def save_vocabulary(encoder: FittedEncoder, vocab_dir: str | AnyPath) -> None:
    """Writes `<feature>.txt`, one value per line in the order of ids, if there is a vocabulary.

    If values of it are expired, `<feature>.expired.txt` has them in the same order.

    Raises:
        UserError: A value holds a line break.
    """
    if not isinstance(encoder, VocabularyEncoder):
        return
    name = encoder.feature.name
    words = texts(encoder.vocabulary)
    write_words(encoder.feature, [words], vocab_dir)
    if encoder.is_expired.any():
        _write_lines(expired_path(name, vocab_dir), [words.filter(pa.array(encoder.is_expired))])


def write_words(feature: Feature, words: Iterable[pa.Array], vocab_dir: str | AnyPath) -> int:
    """Writes the vocabulary file of a feature as its words come; returns their number.

    Args:
        feature: The feature.
        words: The words as texts, in blocks, in the order of their ids.
        vocab_dir: Directory of the vocabulary files.

    Raises:
        UserError: A value holds a line break.
    """
    return _write_lines(
        vocabulary_path(feature.name, vocab_dir), (_unbroken(feature, block) for block in words)
    )


def _unbroken(feature: Feature, words: pa.Array) -> pa.Array:
    broken = words.filter(pc.match_substring_regex(words, r"[\n\r]"))
    if len(broken):
        raise UserError(
            f"Expected values of {feature.name!r} without line breaks, found "
            f"{broken[0].as_py()!r}.",
            "replace the line breaks in the log, or give the feature a hash encoder.",
        )
    return words


def vocabulary_path(name: str, vocab_dir: str | AnyPath) -> AnyPath:
    """The vocabulary file of a feature."""
    return files.path(vocab_dir) / f"{name}.txt"


def expired_path(name: str, vocab_dir: str | AnyPath) -> AnyPath:
    """The file of the expired values of a feature, which is there if it has any."""
    return files.path(vocab_dir) / f"{name}.expired.txt"


def load(feature: Feature, vocab_dir: str | AnyPath, numbers: Mapping[str, Any]) -> FittedEncoder:
    """The encoder that was saved with `save_vocabulary` and `FittedEncoder.numbers`.

    Args:
        feature: The feature to encode.
        vocab_dir: Directory of the vocabulary files.
        numbers: Numbers as returned by `FittedEncoder.numbers`.

    Raises:
        UserError: The vocabulary file is missing or not of the feature's dtype.
    """
    if isinstance(feature.encoder, Hash):
        return HashEncoder(feature)
    if isinstance(feature.encoder, Numeric):
        return NumericEncoder(feature, numbers["mean"], numbers["std"])
    if isinstance(feature.encoder, Vector):
        return VectorEncoder(feature, numbers["norm"])
    if isinstance(feature.encoder, Bucketised):
        return BucketisedEncoder(feature, np.array(numbers["boundaries"], np.float64))
    words = _read_lines(feature, vocabulary_path(feature.name, vocab_dir))
    path = expired_path(feature.name, vocab_dir)
    return VocabularyEncoder(feature, words, _read_lines(feature, path) if path.exists() else None)


def _write_lines(path: AnyPath, words: Iterable[pa.Array]) -> int:
    num_words = 0
    with files.create(path) as file:
        for block in words:
            for start in range(0, len(block), _LINES):
                lines = block[start : start + _LINES].to_pylist()
                file.write("".join(f"{line}\n" for line in lines).encode())
            num_words += len(block)
    return num_words


def _read_lines(feature: Feature, path: AnyPath) -> pa.Array:
    """The values of a vocabulary file, or of some of it."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        is_end = data == ord("\n")
        ends = np.flatnonzero(is_end)
        offsets = np.append(0, ends - np.arange(len(ends)))
        words = from_buffers(data[~is_end], offsets).cast(pa.large_string())
        return words.cast(ARROW_TYPES[feature.dtype])
    except FileNotFoundError:
        raise UserError(
            f"Expected the vocabulary of {feature.name!r}, found no file {path}.",
            "build the data anew.",
        ) from None
    except pa.ArrowInvalid as error:  # no UTF-8, or no integer
        raise UserError(
            f"Expected {feature.dtype.value} values in {path}, found: {error}.",
            "build the data anew.",
        ) from None
