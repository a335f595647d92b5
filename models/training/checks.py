"""What a data set must have to be trained on, and what it lacks to be judged."""

from collections.abc import Iterator

from models.metrics import UNDEFINED
from models.training import selection
from preprocessing.data_dir import DataDir
from preprocessing.encoder_specs import Numeric
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean
from preprocessing.schema import Schema


def check_splits(data: DataDir) -> None:
    """Refuses a data set that cannot be trained on or not be judged."""
    if not data.num_requests("train"):
        raise UserError(
            f"Expected training requests in {data.path}, found none.",
            "build the data with more events per user.",
        )
    if (label := _only_label(data, "train")) is not None:
        raise UserError(
            f"Expected clicked and other candidates among the training requests of {data.path}, "
            f"found {_candidates(data, 'train'):,} candidates with the label {label}: there is "
            "nothing to tell apart.",
            "look at the labels of the log, or build from more of it."
            if data.schema.is_impression_log
            else "build the data with --negatives of at least 1.",
        )
    if not data.num_requests("validation"):
        raise UserError(
            f"Expected validation requests in {data.path}, found none.",
            "build the data from a longer log.",
        )


def remarks(data: DataDir) -> Iterator[str]:
    """What cannot be measured on a data set, and what follows from it, a line each."""
    for split in ("validation", "test"):
        if not data.num_requests(split):
            yield f"{split}: no requests, so nothing is measured there."
        elif (label := _only_label(data, split)) is not None:
            line = (
                f"{split}: all {_candidates(data, split):,} candidates have the label {label}, so "
                f"AUC, GAUC and ranking metrics are {UNDEFINED} there"
            )
            if split == "validation":
                line += f"; the {selection.TITLES['log_loss']} chooses the best weights instead"
            yield f"{line}."


def check_sample_weight(schema: Schema, name: str) -> None:
    """Refuses weights that are not numbers as they stand in the log."""
    numeric = [
        feature.name
        for feature in schema.encoded_features
        if feature.encoder == Numeric(normalisation="none")
    ]
    if name and name not in numeric:
        raise UserError(
            "Expected train.sample_weight to name a numeric feature without normalisation "
            f"({', '.join(numeric) or 'the schema has none'}), found {name!r}.",
            did_you_mean(name, numeric),
        )


def _candidates(data: DataDir, split: str) -> int:
    return int(data.stats["splits"][split]["candidates"])


def _only_label(data: DataDir, split: str) -> int | None:
    """The label that all candidates of a split have, None if there are both."""
    positives, candidates = data.stats["splits"][split]["positives"], _candidates(data, split)
    return None if 0 < positives < candidates else int(positives > 0)
