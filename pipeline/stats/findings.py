"""Defects of a data set that its statistics reveal, in words, before anything is trained.

Every line names a defect and its consequence. The rules read stats.json and the schema
alone. `models.reporting.findings` does the same for a trained model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.stats.statistics import is_number
from preprocessing.data_dir import missing_share
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric
from preprocessing.features.feature import DType, Feature
from preprocessing.known_items import TELLING, UnknownItems
from preprocessing.schema import Schema, encoded_keys
from preprocessing.splits import SPLITS

Stats = Mapping[str, Any]

_NEARLY_ALL = 0.99
_NOISY_AUC = 0.05
_HUGE = 1_000.0
_FLOAT32_WHOLE = 2.0**24
_COLLIDING = 0.5


def of_data(schema: Schema, stats: Stats, measured: Sequence[str] = SPLITS[1:]) -> list[str]:
    """The findings, the gravest first; [] if there are none.

    Args:
        schema: Schema of the data set.
        stats: The content of stats.json.
        measured: Splits beside train that should have requests.
    """
    by_split = stats["splits"]
    lines = [
        *_of_sizes(by_split, measured),
        *_of_labels(schema, by_split),
        *_of_histories(by_split),
    ]
    lines += _of_unknown_items(schema, by_split)
    for feature in schema.encoded_features:
        lines += _of_feature(schema, stats, feature)
    return lines


def _of_sizes(by_split: Stats, measured: Sequence[str]) -> Iterator[str]:
    """Requests left out; splits that are empty, or too small for their AUC to mean something."""
    for name in SPLITS:
        if left_out := by_split[name].get("requests_left_out", 0):
            yield (
                f"{name} leaves out {left_out:,} of {left_out + by_split[name]['requests']:,} "
                "requests, for which there were fewer items to draw than --negatives."
            )
    for name in measured:
        split = by_split[name]
        positives, negatives = split["positives"], split["candidates"] - split["positives"]
        if not split["requests"]:
            yield (
                f"{name} has no requests, so no metric of it exists"
                f"{_no_choice(name)}; give a longer log, or move the points where it is split."
            )
        elif positives and negatives and (half := _half_width(positives, negatives)) > _NOISY_AUC:
            yield (
                f"{name} has {positives:,} positives and {negatives:,} negatives: by chance alone "
                f"its AUC moves by {half:.2f} up or down (95%)"
                f"{', and weights are chosen by it' if name == 'validation' else ''}; smaller "
                "differences mean nothing."
            )


def _of_unknown_items(schema: Schema, by_split: Stats) -> Iterator[str]:
    """Splits whose labels follow from whether training knows an item.

    Pushing unknown items from the end of every list to its beginning, which a single number of a
    model does, changes the AUC by the difference of their shares: 2 |AUC of the bit - 0.5|.
    """
    for name in SPLITS[1:]:
        unknown = UnknownItems.of_split(by_split[name])
        if unknown is None or unknown.auc is None or abs(unknown.auc - 0.5) <= TELLING:
            continue
        fix = "compare models by their AUC over known items (slices of models.evaluate)"
        if unknown.auc < 0.5 and not schema.is_impression_log:
            fix = "draw no item before it appeared (--negative_sampling=available)"
        yield (
            f"{name}: whether training knows an item tells positives from negatives with an AUC of "
            f"{unknown.auc:.3f} ({unknown.positive_share:.1%} of the positives are unknown items, "
            f"{unknown.negative_share:.1%} of the negatives): how high a model ranks all unknown "
            f"items moves its AUC by up to {2 * abs(unknown.auc - 0.5):.2f}, whatever else it "
            f"learnt; {fix}."
        )


def _half_width(positives: int, negatives: int) -> float:
    """Half width of the 95% interval of the AUC of random scores (Mann and Whitney)."""
    return 1.96 * math.sqrt((positives + negatives + 1) / (12 * positives * negatives))


def _of_labels(schema: Schema, by_split: Stats) -> Iterator[str]:
    """Labels of one kind only, everywhere or in a split."""
    fix = "build with --negatives of at least 1."
    if schema.is_impression_log:
        fix = 'check the column of the label and its "positive" in the schema.'
    filled = [name for name in SPLITS if by_split[name]["candidates"]]
    for label, kind in ((0, "positive"), (1, "negative")):
        one_sided = [
            name
            for name in filled
            if by_split[name]["positives"] == label * by_split[name]["candidates"]
        ]
        if one_sided == filled:
            candidates = sum(by_split[name]["candidates"] for name in filled)
            yield (
                f"all {candidates:,} labels are {label}: a model learns to say {label} to "
                f"everything, and AUC, GAUC and ranking metrics do not exist; {fix}"
            )
            continue
        for name in one_sided:
            consequence = (
                f"a model learns to say {label} to everything"
                if name == "train"
                else f"its AUC, GAUC and ranking metrics do not exist{_no_choice(name)}"
            )
            yield (
                f"{name} has no {kind} among its {by_split[name]['candidates']:,} candidates: "
                f"{consequence}; {fix}"
            )


def _no_choice(split: str) -> str:
    return ", and weights cannot be chosen by its AUC" if split == "validation" else ""


def _of_histories(by_split: Stats) -> Iterator[str]:
    """Training requests that all have empty histories."""
    if set(by_split["train"]["history_length"]) == {"0"}:
        yield (
            "no training request has a history: models of sequences have nothing to read; check "
            "the user's key and the times."
        )


def _of_feature(schema: Schema, stats: Stats, feature: Feature) -> Iterator[str]:
    """Defects of one feature, over all keys of the examples that hold it."""
    stats_of_place = {
        (key, split): stats["splits"][split]["features"][key]
        for key, key_feature in encoded_keys(schema)
        for split in SPLITS
        if key_feature == feature and stats["splits"][split]["features"][key]["count"]
    }
    missing_shares = {
        place: missing_share(stats_of_key) for place, stats_of_key in stats_of_place.items()
    }
    default = "" if feature.default is None else f" (the default {feature.default!r} stands in)"
    defect, consequence = f"missing in the log{default}", "it tells nothing; check its column"
    if feature.is_gap:
        defect, consequence = "undefined, as no event is before", "it tells nothing; leave it out"
    yield from _nearly_all(feature, missing_shares, defect, consequence)

    stats_of_place = {
        place: stats_of_key
        for place, stats_of_key in stats_of_place.items()
        if missing_shares[place] < _NEARLY_ALL
    }
    unknown = {
        place: stats_of_key.get("oov_rate", 0.0) for place, stats_of_key in stats_of_place.items()
    }
    defect = "out of the training vocabulary"
    consequence = "a model cannot tell them apart; check its column and min_count"
    yield from _nearly_all(feature, unknown, defect, consequence)

    trained = [
        stats_of_key for (_, split), stats_of_key in stats_of_place.items() if split == SPLITS[0]
    ]
    if trained:
        boundaries = stats["encoders"][feature.name].get("boundaries", [])
        yield from [*_weightless(feature, trained)] or _constant(feature, trained, boundaries)
        yield from _colliding(feature, trained)
    yield from _large(feature, [*stats_of_place.values()])


def _nearly_all(
    feature: Feature, shares: Mapping[tuple[str, str], float], defect: str, consequence: str
) -> Iterator[str]:
    """Keys of which nearly all values are bad, with their splits; equal keys share a line.

    Args:
        feature: Feature of the keys.
        shares: Share of bad values by key and split.
        defect: Description of what is wrong with the values.
        consequence: Description of what follows.
    """
    splits_of: dict[str, list[str]] = {key: [] for key, _ in shares}
    for (key, split), share in shares.items():
        if share >= _NEARLY_ALL:
            splits_of[key].append(split)
    for names in dict.fromkeys(tuple(bad) for bad in splits_of.values() if bad):
        keys = [key for key, bad in splits_of.items() if tuple(bad) == names]
        lowest = min(shares[key, name] for key in keys for name in names)
        most = "all" if lowest == 1 else f"at least {math.floor(100 * lowest)}% of the"
        subject = feature.name if len(keys) == len(splits_of) else " and ".join(keys)
        yield f"{subject}: {most} values of {_listed(names)} are {defect}: {consequence}."


def _weightless(feature: Feature, trained: Sequence[Stats]) -> Iterator[str]:
    """A number that could weigh samples (`train.sample_weight`), and never is above 0."""
    low, high = _extremes(trained)
    if feature.encoder == Numeric(normalisation="none") and high <= 0:
        yield (
            f"{feature.name}: no training value is above 0 (they are {low:,g} to {high:,g}): as "
            "train.sample_weight it weighs every sample 0, and nothing is learnt."
        )


def _constant(
    feature: Feature, trained: Sequence[Stats], boundaries: Sequence[float]
) -> Iterator[str]:
    """A feature that has the same value in all training requests, at least for the model."""
    consequence = "it tells nothing apart; leave it out of the schema"
    if any(stats["missing"] for stats in trained):
        return  # Missing and present are two values.
    if not is_number(feature):
        words = {word for stats in trained for word in stats["top_values"]}
        if len(words) == 1:
            yield f"{feature.name}: every training value is {_shown(words.pop())}: {consequence}."
        return
    low, high = _extremes(trained)
    if feature.is_vector:
        if high == 0:
            yield f"{feature.name}: every training vector is zeros: {consequence}."
    elif low == high:
        yield f"{feature.name}: every training value is {low:,g}: {consequence}."
    elif isinstance(feature.encoder, Bucketised) and not any(low < b <= high for b in boundaries):
        yield (
            f"{feature.name}: all training values ({low:,g} to {high:,g}) fall into one interval: "
            f"{consequence}, or choose other boundaries."
        )


def _colliding(feature: Feature, trained: Sequence[Stats]) -> Iterator[str]:
    """A hash with too few ids for its values."""
    if isinstance(feature.encoder, Hash):
        buckets = feature.encoder.buckets
        values = max(stats["distinct"] for stats in trained)
        shared = 1 - (1 - 1 / buckets) ** (values - 1)
        if shared > _COLLIDING:
            yield (
                f"{feature.name}: about {shared:.0%} of its {values:,} training values share an "
                f"id with others, for it has {buckets:,} buckets: a model cannot tell these apart; "
                f"with {10 * values:,} buckets it would be 10%."
            )


def _large(feature: Feature, held: Sequence[Stats]) -> Iterator[str]:
    """Numbers that float32 rounds, or that dominate the sums they enter."""
    low, high = _extremes(held)
    largest = max(-low, high)
    if feature.dtype is DType.FLOAT32 and largest >= _FLOAT32_WHOLE and not feature.is_vector:
        yield (
            f"{feature.name}: values reach {largest:,g}, where float32 numbers lie "
            f"{float(np.spacing(np.float32(largest))):,g} apart, so that close ones become equal; "
            "use dtype int64, or subtract an offset in the log."
        )
    if feature.encoder == Numeric(normalisation="none") and largest >= _HUGE:
        yield (
            f"{feature.name}: values reach {largest:,g} and are not normalised: beside embeddings "
            "of about 1 they decide every score, and training may diverge; use "
            '"normalisation": "standard" or "log_standard".'
        )


def _extremes(described: Sequence[Stats]) -> tuple[float, float]:
    """Lowest and highest number; if there is none, infinity and its negative."""
    percentiles = [stats["percentiles"] for stats in described if "percentiles" in stats]
    return (
        min((values[0] for values in percentiles), default=math.inf),
        max((values[-1] for values in percentiles), default=-math.inf),
    )


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:39]}…")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
