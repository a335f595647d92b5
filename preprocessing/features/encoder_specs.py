"""Specifications, in a schema, of how raw values become ids or floats.

`preprocessing.encoders` fits these to data; `preprocessing.transforms` runs them in TensorFlow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from preprocessing.errors import UserError
from preprocessing.json_checks import array, check_keys, choice, integer

_NORMALISATIONS = ("none", "standard", "log_standard")
STORAGES = ("float32", "float16")
"""Types of the numbers of vectors in examples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids by count in the training data; rarer values share `oov_buckets` ids."""

    kind: str = dataclasses.field(default="vocabulary", init=False)
    min_count: int = 1
    oov_buckets: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash:
    """Ids by a 64-bit fingerprint of the value, modulo `buckets`."""

    kind: str = dataclasses.field(default="hash", init=False)
    buckets: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numeric:
    """One float: unchanged, standardised, or standardised after sign(x) log(1 + |x|)."""

    kind: str = dataclasses.field(default="numeric", init=False)
    normalisation: str = "standard"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucketised:
    """Ids by the interval that a number falls into: boundaries given, or training quantiles."""

    kind: str = dataclasses.field(default="bucketised", init=False)
    boundaries: tuple[float, ...] = ()
    quantiles: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vector:
    """The numbers of a vector, divided by the root mean square norm of the training vectors."""

    kind: str = dataclasses.field(default="vector", init=False)
    storage: str = "float32"


Encoder = Vocabulary | Hash | Numeric | Bucketised | Vector


def parse(record: Any, where: str) -> Encoder:
    """The encoder that a record of schema.json describes.

    Raises:
        UserError: Unknown kind or key, a missing key, or a value out of range.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, found {type(record).__name__}.")
    kind = choice(record.get("kind"), list(_PARSERS), f"{where}: kind")
    settings = {key: value for key, value in record.items() if key != "kind"}
    return _PARSERS[kind](settings, where)


def to_json(encoder: Encoder) -> dict[str, Any]:
    """The record that `parse` reads."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(encoder).items()
    }


def _vocabulary(record: dict[str, Any], where: str) -> Vocabulary:
    check_keys(record, {"min_count", "oov_buckets"}, (), where)
    return Vocabulary(
        min_count=integer(record.get("min_count", 1), f"{where}: min_count", 1),
        oov_buckets=integer(record.get("oov_buckets", 1), f"{where}: oov_buckets", 1),
    )


def _hash(record: dict[str, Any], where: str) -> Hash:
    check_keys(record, {"buckets"}, {"buckets"}, where)
    return Hash(buckets=integer(record["buckets"], f"{where}: buckets", 2))


def _numeric(record: dict[str, Any], where: str) -> Numeric:
    check_keys(record, {"normalisation"}, (), where)
    normalisation = record.get("normalisation", "standard")
    return Numeric(normalisation=choice(normalisation, _NORMALISATIONS, f"{where}: normalisation"))


def _bucketised(record: dict[str, Any], where: str) -> Bucketised:
    check_keys(record, {"boundaries", "quantiles"}, (), where)
    boundaries = array(record.get("boundaries", []), f"{where}: boundaries")
    for boundary in boundaries:
        if not isinstance(boundary, (int, float)) or isinstance(boundary, bool):
            raise UserError(f"{where}: boundaries: expected numbers, found {boundary!r}.")
    if boundaries != sorted(set(boundaries)):
        raise UserError(f"{where}: expected 'boundaries' in increasing order, found {boundaries}.")
    quantiles = integer(record.get("quantiles", 0), f"{where}: quantiles", 0)
    if bool(boundaries) == bool(quantiles):
        raise UserError(f"{where}: expected either 'boundaries' or 'quantiles'.")
    return Bucketised(boundaries=tuple(float(b) for b in boundaries), quantiles=quantiles)


def _vector(record: dict[str, Any], where: str) -> Vector:
    check_keys(record, {"storage"}, (), where)
    storage = record.get("storage", "float32")
    return Vector(storage=choice(storage, STORAGES, f"{where}: storage"))


_PARSERS: dict[str, Callable[[dict[str, Any], str], Encoder]] = {
    "vocabulary": _vocabulary,
    "hash": _hash,
    "numeric": _numeric,
    "bucketised": _bucketised,
    "vector": _vector,
}
