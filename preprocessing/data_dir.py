"""A data set on disk: `pipeline.build_examples` writes it, and everything else reads it.

DATA/  schema.json  manifest.json  stats.json  vocab/<feature>.txt
       train-00000-of-00016.tfrecord.gz ...  validation-...  test-...
       tails/ (for the data set of the next day)  rejected/  _COMPLETED (written last)
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from preprocessing.encoders import encoder_files
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.schema import Schema
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

FORMAT_VERSION = 2
COMPLETED = "_COMPLETED"
MANIFEST = "manifest.json"
SCHEMA = "schema.json"
STATS = "stats.json"
VOCABULARIES = "vocab"
TAILS = "tails"
_REBUILD = "run python -m pipeline.build_examples again."


@dataclasses.dataclass(frozen=True)
class DataDir:
    """A complete data set.

    Attributes:
        path: The directory, on this machine or on an object store.
        schema: Schema of the examples.
        manifest: The content of manifest.json: counts, shards with hashes, cut-offs, arguments.
        stats: The content of stats.json.
        encoders: Encoders by feature name, for every feature that has one.
        fingerprint: SHA-256 of manifest.json. The manifest holds the hashes of all files, so equal
            fingerprints mean equal data sets.
    """

    path: AnyPath
    schema: Schema
    manifest: dict[str, Any]
    stats: dict[str, Any]
    encoders: dict[str, FittedEncoder]
    fingerprint: str

    @classmethod
    def open(cls, path: str | AnyPath, verify: bool = True) -> "DataDir":
        """Opens a data set and checks it.

        Args:
            path: The directory.
            verify: Whether to compare the SHA-256 of every shard with the manifest. Statistics and
                vocabularies, which are small, are always compared; the schema has a hash of its
                own, because descriptions may change.

        Raises:
            UserError: The directory is missing, incomplete, or not what its manifest says.
        """
        path = files.path(path, "--data")
        if not path.is_dir():
            raise UserError(f"Expected a data set, found no directory {path}.", "check --data.")
        if not (path / COMPLETED).exists():
            raise UserError(
                f"Expected a complete data set in {path}, found no {COMPLETED}: its build is "
                "running, failed, or it is not a data set.",
                _REBUILD,
            )
        manifest = read_json(path / MANIFEST, "the manifest of a data set", _REBUILD)
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"Expected format version {FORMAT_VERSION} in {path / MANIFEST}, found "
                f"{version!r}: another version of this program built it.",
                _REBUILD,
            )
        _require_keys(manifest, ("schema_hash", "files", "splits"), path / MANIFEST)
        for name, sha256 in manifest["files"].items():
            _check_hash(path / name, sha256)
        schema = Schema.load(path / SCHEMA)
        if manifest["schema_hash"] != schema.hash():
            raise UserError(
                f"Expected {path / SCHEMA} with the hash {manifest['schema_hash'][:12]} of the "
                f"manifest, found {schema.hash()[:12]}: the schema was changed after the build, or "
                "the build is of an earlier version.",
                _REBUILD,
            )
        stats = read_json(path / STATS, "the statistics of a data set", _REBUILD)
        _require_keys(stats, ("encoders",), path / STATS)
        fitted = {
            feature.name: encoder_files.load(
                feature, path / VOCABULARIES, stats["encoders"].get(feature.name, {})
            )
            for feature in schema.encoded_features
        }
        data = cls(path, schema, manifest, stats, fitted, sha256_file(path / MANIFEST))
        if verify:
            data.verify()
        return data

    @property
    def findings(self) -> list[str]:
        """Defects of the data set that its build found in the statistics, one line each."""
        return list(self.stats.get("findings", ()))

    @property
    def describes_values(self) -> bool:
        """Whether there are statistics of values; data sets of earlier versions have none."""
        return "vocabularies" in self.stats

    @property
    def vocab_dir(self) -> AnyPath:
        """Directory of the vocabulary files."""
        return self.path / VOCABULARIES

    def shards(self, split: str) -> list[AnyPath]:
        """The files of a split, in order.

        Raises:
            UserError: The data set has no such split.
        """
        return [self.path / shard["file"] for shard in self._split(split)["shards"]]

    def num_requests(self, split: str) -> int:
        """Number of examples of a split.

        Raises:
            UserError: The data set has no such split.
        """
        return int(self._split(split)["requests"])

    @staticmethod
    def requests_per_user(path: str | AnyPath) -> float | None:
        """Training requests per user, read from the statistics alone.

        Returns:
            None if there is no complete data set, or if its statistics do not count users.
        """
        path = files.path(path, "--data")
        if not (path / COMPLETED).exists():
            return None
        stats = read_json(path / STATS, "the statistics of a data set", _REBUILD)
        train = stats.get("splits", {}).get("train", {})
        return train["requests"] / max(1, train["users"]) if "users" in train else None

    def verify(self) -> None:
        """Compares every shard with the SHA-256 in the manifest.

        Raises:
            UserError: A shard is missing or differs; the message names the first one.
        """
        shards = [s for split in self.manifest["splits"].values() for s in split["shards"]]
        for shard in tqdm.tqdm(shards, "verifying shards", leave=False, delay=2, disable=None):
            _check_hash(self.path / shard["file"], shard["sha256"])

    def _split(self, split: str) -> dict[str, Any]:
        splits = self.manifest["splits"]
        if split not in splits:
            raise UserError(
                f"Expected one of the splits {', '.join(splits)} of {self.path}, found {split!r}."
            )
        return splits[split]


def missing_share(described: Mapping[str, Any]) -> float:
    """Share of values that the log does not have, whether or not a default stands in for them.

    Args:
        described: Entry of stats.json for a key of the examples in a split. Entries of earlier
            versions do not tell defaults from other values.
    """
    num_missing = described["missing"] + described.get("defaulted", 0)
    return float(num_missing / max(1, described["count"]))


def word_counts(described: Mapping[str, Any]) -> np.ndarray:
    """Count of each word of a vocabulary in training requests, in the order of its file.

    Args:
        described: Entry of `vocabularies` in stats.json. A vocabulary that was ranked by these
            counts says only how many words occur how often; another one counts them `in_order`.
    """
    if "in_order" in described:
        runs = [run.partition("x") for run in described["in_order"].split()]
        pairs = [(int(count), int(length or 1)) for count, _, length in runs]
    else:
        by_count = ((int(n), words) for n, words in described["words_by_count"].items())
        pairs = sorted(by_count)[::-1]
    return np.repeat(*np.array(pairs, np.int64).reshape(-1, 2).T)


def sha256_file(path: str | AnyPath) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with files.path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: str | AnyPath, content: Any) -> None:
    """Writes JSON with sorted keys; the file is visible only once it is complete."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    files.write_bytes(files.path(path), f"{text}\n".encode())


def finish(path: str | AnyPath) -> None:
    """Marks a data set as complete, as the last step of its writer."""
    (files.path(path) / COMPLETED).touch()


def _check_hash(path: AnyPath, sha256: str) -> None:
    """Raises `UserError` unless the file has this SHA-256."""
    if not path.exists():
        raise UserError(f"Expected the file {path} of the manifest, found no such file.", _REBUILD)
    actual_sha256 = sha256_file(path)
    if actual_sha256 != sha256:
        raise UserError(
            f"Expected {path} with SHA-256 {sha256[:12]}, found {actual_sha256[:12]}: the file is "
            "damaged or was changed.",
            _REBUILD,
        )


def _require_keys(content: dict[str, Any], keys: Sequence[str], path: AnyPath) -> None:
    """Raises `UserError` unless the content of a JSON file has all these keys."""
    for key in keys:
        if key not in content:
            raise UserError(f"Expected the key {key!r} in {path}, found none.", _REBUILD)
