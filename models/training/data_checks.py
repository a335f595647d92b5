"""Checks of a data set before training, and remarks on what cannot be measured on it."""

from collections.abc import Iterator

from models import registry
from models.config.run_config import RunConfig
from models.evaluation.metrics import UNDEFINED
from models.ops.choices import MANY_LABELS
from models.training import selection
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Numeric
from preprocessing.json_checks import did_you_mean
from preprocessing.schema import Schema


def check_splits(data: DataDir) -> None:
    """Raises `UserError` for a data set without usable training or validation requests."""
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
    """Lines on what cannot be measured on a data set, and what follows from it."""
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


def schedule_remark(config: RunConfig, data: DataDir) -> str:
    """A line on the schedule of the self-supervision where labels are not scarce, else ""."""
    requests_per_user = DataDir.requests_per_user(data.path) or 0.0
    if config.ssl_name == registry.NO_SSL or requests_per_user < MANY_LABELS:
        return ""
    return (
        f"train: {requests_per_user:.1f} requests per user, so labels are not scarce, and "
        f"--ssl={config.ssl_name} takes few and slow steps by default. It gains most where they "
        "are: compare with --ssl=none."
    )


def check_sample_weight(schema: Schema, name: str) -> None:
    """Raises `UserError` unless sample weights are a numeric feature without normalisation."""
    if name and schema.weight is not None:
        raise UserError(
            f"Expected no train.sample_weight for a schema whose feature {schema.weight.name!r} of "
            f"role 'weight' weighs the samples, found {name!r}.",
            "leave one of the two out.",
        )
    numeric = [
        feature.name
        for feature in schema.encoded_features
        if feature.encoder == Numeric(normalisation="none")
        and feature not in schema.event_features  # candidates lack them
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
    """The label that all candidates of a split have; None if there are both labels."""
    positives, candidates = data.stats["splits"][split]["positives"], _candidates(data, split)
    return None if 0 < positives < candidates else int(positives > 0)
