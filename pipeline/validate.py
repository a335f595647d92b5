"""Compares a data set with an earlier one: schemas, and the drift of every feature.

    python -m pipeline.validate DATA --against=OTHER [--max_drift=0.1,user_id:0.5]

Compared are the training requests, through what both builds wrote to stats.json and vocab/; shards
are not read. Drift is a number from 0 (the same distribution) to 1 (disjoint ones):

    vocabulary     Jensen-Shannon divergence of the values (base 2)
    hash           the same, of ids folded into 64 classes, which can only make it smaller
    number         Kolmogorov-Smirnov statistic from percentiles, exact to 0.01; a missing number
                   counts as the smallest
    history length Kolmogorov-Smirnov statistic

`unknown` is the share of DATA's values that the vocabulary of OTHER does not have: what a model
trained on OTHER would not recognise. `missing` is the share of values that the log does not have,
with or without a default, of features that may miss some. The exit status is 1 if the schemas
differ or a drift exceeds its limit: that of its feature (name:limit), else the one without a name.
Without --max_drift only the schemas decide.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from absl import flags

from pipeline.stats import drift, statistics
from preprocessing import cli
from preprocessing.data_dir import DataDir, missing_share, word_counts
from preprocessing.encoders.fitted import VocabularyEncoder
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Hash, Vocabulary
from preprocessing.features.feature import Feature
from preprocessing.json_checks import did_you_mean
from preprocessing.storage.files import AnyPath

HISTORY_LENGTH = "history_length"


@dataclasses.dataclass(frozen=True)
class Drift:
    """Drift of the training values of a feature.

    Attributes:
        name: Name of the feature, or `HISTORY_LENGTH`.
        distance: Distance of the distributions, from 0 to 1; None if a side has no values.
        unknown: Share of the values that are not in the other vocabulary, if there is one.
        missing: Share of values that the log does not have, of features that may miss some.
        missing_there: Share of such values in the other data set.
    """

    name: str
    distance: float | None
    unknown: float | None = None
    missing: float | None = None
    missing_there: float | None = None


def compare(data: DataDir, other: DataDir) -> list[Drift]:
    """The drift of each feature that both data sets describe alike, then of the history length.

    Args:
        data: The data set to judge.
        other: The data set that it is compared with.
    """
    names = {feature.name for feature in other.schema.encoded_features}
    drifts = []
    for feature in data.schema.encoded_features:
        if feature.name in names and _is_alike(feature, other.schema[feature.name]):
            if isinstance(feature.encoder, Vocabulary):
                feature_drift = _vocabulary_drift(feature.name, data, other)
            elif isinstance(feature.encoder, Hash):
                feature_drift = _hash_drift(feature.name, data, other)
            else:
                feature_drift = _number_drift(feature.name, data, other)
            may_miss = statistics.is_number(feature) or feature.many is not None
            if may_miss or feature.default is not None:
                missing_shares = [
                    missing_share(_described(side, feature.name)) for side in (data, other)
                ]
                feature_drift = dataclasses.replace(
                    feature_drift, missing=missing_shares[0], missing_there=missing_shares[1]
                )
            drifts.append(feature_drift)
    lengths = [_train(side)["history_length"] for side in (data, other)]
    values = sorted({*lengths[0], *lengths[1]}, key=int)
    counts = [np.array([side.get(value, 0) for value in values]) for side in lengths]
    drifts.append(Drift(HISTORY_LENGTH, drift.kolmogorov_smirnov(*counts)))
    return drifts


def _is_alike(feature: Feature, other: Feature) -> bool:
    """Whether the values of two features can be compared."""
    return feature.encoder == other.encoder and feature.shape == other.shape


def _train(data: DataDir) -> dict[str, Any]:
    return data.stats["splits"]["train"]


def _described(data: DataDir, name: str) -> dict[str, Any]:
    """The statistics of the training values of a feature."""
    return _train(data)["features"][statistics.training_key(data.schema, data.schema[name])]


def _vocabulary_drift(name: str, data: DataDir, other: DataDir) -> Drift:
    words, counts, rare, is_expired = [], [], [], []
    for side in (data, other):
        encoder, vocabulary_stats = side.encoders[name], side.stats["vocabularies"][name]
        assert isinstance(encoder, VocabularyEncoder)
        words.append(encoder.vocabulary)
        is_expired.append(encoder.is_expired)
        counts.append(word_counts(vocabulary_stats))
        rare.append(vocabulary_stats["rare"])
    # Words of both, words of OTHER alone, and one class of all values that are in neither.
    row_V = pc.fill_null(pc.index_in(words[1], value_set=words[0]), -1).to_numpy()
    is_new_V = ~np.isin(np.arange(len(words[0])), row_V[~is_expired[1]])
    there_V = np.zeros(len(words[0]), np.int64)
    there_V[row_V[row_V >= 0]] = counts[1][row_V >= 0]
    only_there_V = counts[1][row_V < 0]
    distance = drift.jensen_shannon(
        np.concatenate([counts[0], np.zeros(len(only_there_V), np.int64), rare[:1]]),
        np.concatenate([there_V, only_there_V, rare[1:]]),
    )
    unknown = float(counts[0][is_new_V].sum() / max(1, counts[0].sum()))
    return Drift(name, distance, unknown)


def _hash_drift(name: str, data: DataDir, other: DataDir) -> Drift:
    buckets = [np.array(_described(side, name)["hash_buckets"]) for side in (data, other)]
    return Drift(name, drift.jensen_shannon(*buckets))


def _number_drift(name: str, data: DataDir, other: DataDir) -> Drift:
    stats_of_sides = [_described(side, name) for side in (data, other)]
    # Defaults do not count as missing here.
    missing_shares = [stats["missing"] / max(1, stats["count"]) for stats in stats_of_sides]
    numbers = np.unique(np.concatenate([stats.get("percentiles", []) for stats in stats_of_sides]))
    cdfs = []
    for stats, missing in zip(stats_of_sides, missing_shares, strict=True):
        percentiles = np.array(stats.get("percentiles", [])[1:])
        cumulative = np.searchsorted(percentiles, numbers, side="right") / max(1, len(percentiles))
        cdfs.append(np.append(missing, missing + (1 - missing) * cumulative))
    empty = not (stats_of_sides[0]["count"] and stats_of_sides[1]["count"])
    distance = None if empty else round(float(np.abs(cdfs[0] - cdfs[1]).max()), 6)
    return Drift(name, distance)


def report(
    path: str | AnyPath, against: str | AnyPath, max_drift: str | None = None
) -> tuple[str, bool]:
    """Compares two data directories.

    Args:
        path: The data directory to judge.
        against: The data directory to compare with.
        max_drift: Largest drift allowed, see `parse_limits`.

    Returns:
        Lines for people; whether schemas are equal and no limit is exceeded.

    Raises:
        UserError: A directory is no complete data set, or a limit makes no sense.
    """
    data, other = (DataDir.open(side, verify=False) for side in (path, against))
    for side in (data, other):
        statistics.require(side)
    differences = data.schema.diff(other.schema)
    drifts = compare(data, other)
    limits = parse_limits(max_drift, [row.name for row in drifts])
    lines = "".join(f"schema: {line}\n" for line in differences)
    lines += "".join(f"{line}\n" for line in expired_values(data, other))
    is_alike = not differences and not any(exceeds(row, limits) for row in drifts)
    return lines + table(drifts, limits), is_alike


def expired_values(data: DataDir, other: DataDir) -> list[str]:
    """A line on each vocabulary that has expired values, here or in the other data set."""
    here, there = (side.manifest.get("expired", {}) for side in (data, other))
    return [
        f"expired: {here.get(name, 0):,} values of {name}, {there.get(name, 0):,} in OTHER"
        for name in sorted(here.keys() | there.keys())
    ]


def parse_limits(text: str | None, names: list[str]) -> dict[str, float]:
    """The largest drift allowed, by feature.

    Args:
        text: Value of `--max_drift`: limits separated by commas, each for one feature (name:limit)
            or for all others.
        names: Names of the features whose drift can be limited.

    Raises:
        UserError: A limit is no number from 0 to 1, or its feature does not exist.
    """
    limits: dict[str, float] = {}
    for part in text.split(",") if text else []:
        name, _, limit = part.rpartition(":")
        if name and name not in names:
            raise UserError(
                f"--max_drift: expected features of both data sets ({', '.join(names)}), found "
                f"{name!r}.",
                did_you_mean(name, names),
            )
        try:
            value = float(limit)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise UserError(
                f"--max_drift: expected numbers from 0 to 1, found {part!r}.",
                "for example --max_drift=0.1,user_id:0.5.",
            )
        limits[name] = value
    general = limits.pop("", None)
    return limits if general is None else dict.fromkeys(names, general) | limits


def table(drifts: list[Drift], limits: Mapping[str, float]) -> str:
    """The drifts as lines of aligned columns, with a mark at every limit exceeded."""
    width = max(len(row.name) for row in drifts)
    lines = [f"{'feature':{width}}   drift   limit  unknown  missing  missing in OTHER"]
    for row in drifts:
        limit = limits.get(row.name)
        lines.append(
            f"{row.name:{width}} {_cell(row.distance, 7)} {_cell(limit, 7)} "
            f"{_cell(row.unknown, 8, '.1%')} {_cell(row.missing, 8, '.1%')} "
            f"{_cell(row.missing_there, 17, '.1%')}"
            f"{'  EXCEEDED' if exceeds(row, limits) else ''}"
        )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def exceeds(row: Drift, limits: Mapping[str, float]) -> bool:
    """Whether a drift is larger than its limit; a drift that is unknown is not."""
    return row.distance is not None and row.distance > limits.get(row.name, 1.0)


def _cell(value: float | None, width: int, form: str = ".4f") -> str:
    return f"{'' if value is None else format(value, form):>{width}}"


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data", None, "The data directory; may be given without --data.")
    flags.DEFINE_string("against", None, "The data directory to compare with.", required=True)
    flags.DEFINE_string("max_drift", None, "Largest drift, as a number or by feature.")


def main() -> int:
    """Prints the differences; 1 if the schemas differ or a limit is exceeded."""
    if flags.FLAGS.data is None:
        raise UserError(
            "Expected a data directory, found none.",
            "python -m pipeline.validate DATA --against=OTHER",
        )
    text, is_alike = report(flags.FLAGS.data, flags.FLAGS.against, flags.FLAGS.max_drift)
    sys.stdout.write(text)
    return 0 if is_alike else 1


def console_main() -> None:
    """Entry point of `ctr-validate`."""
    define_flags()
    cli.run(main, __doc__, positional="data")


if __name__ == "__main__":
    console_main()
