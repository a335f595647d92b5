"""Checks that a model must pass before it is published.

* Its schema is that of the live version.
* Each of its signatures returns the offline scores.
* Its AUC on held-out requests is at most a stated margin below the live version's.
"""

import pathlib

import numpy as np
from sklearn import metrics

from models.core.base import CTRModel
from models.core.run_directory import Run
from models.evaluation.calibration import Calibration
from models.keras import tf
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, candidate_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema
from serving.exporting import raw_requests
from serving.exporting.offline_scores import OfflineScorer, difference
from serving.exporting.signatures import EXAMPLES, SCORES, SERIALIZED, SERVING_DEFAULT
from serving.exporting.tolerance import TOLERANCE
from serving.tfserving.models.servable import Servable
from serving.tfserving.status import ServingError

MAX_REQUESTS = 2000
"""Largest number of requests that a check scores."""
_HELD_OUT = ("test", "validation")
_BATCH_SIZE = 64


def check_schema(schema: Schema, live: pathlib.Path, *, allow_change: bool) -> list[str]:
    """Compares the schema of a run with that of the live version.

    Args:
        schema: Schema of the run's data set.
        live: Directory of the live version.
        allow_change: Whether to return the differences instead of raising an error.

    Returns:
        The differences, one line each.

    Raises:
        UserError: The schemas differ, and no change is allowed: the new version would refuse the
            live version's clients.
    """
    file = live / "assets" / "schema.json"
    changes = schema.diff(Schema.load(file)) if file.exists() else [f"no {file} to compare with"]
    if changes and not allow_change:
        raise UserError(
            f"Expected the schema of the live version {live}, found: {'; '.join(changes)}. "
            "Nothing was published.",
            "let clients send what the new schema asks for, then add --allow_schema_change.",
        )
    return [f"Schema changed, {change} (in the live version)" for change in changes]


def check_parity(
    run: Run, model: CTRModel, servable: Servable, calibration: Calibration | None = None
) -> str:
    """Compares the scores of both signatures with the offline ones.

    Args:
        run: Run that is exported.
        model: Trained model of the run.
        servable: The exported version, loaded as servers load it.
        calibration: Calibration of the version; None if it has none.

    Returns:
        The largest differences, in one line.

    Raises:
        UserError: Scores differ by more than `TOLERANCE`.
    """
    offline = OfflineScorer(model, run.data.schema, calibration)
    largest = dict.fromkeys((SERVING_DEFAULT, SERIALIZED), 0.0)
    split = _first_split(run.data, (*_HELD_OUT, "train"))
    requests = 0
    for batch in raw_requests.batches(run.data, split, _BATCH_SIZE, MAX_REQUESTS):
        _, expected_BN = offline(batch.features)
        for way, inputs in ((SERVING_DEFAULT, batch.raw), (SERIALIZED, {EXAMPLES: batch.examples})):
            scores_BN = servable.predict(way, inputs)[SCORES]
            largest[way] = max(largest[way], difference(scores_BN, expected_BN))
        requests += len(expected_BN)
    differences = ", ".join(f"{way} {value:.3g}" for way, value in largest.items())
    if max(largest.values()) > TOLERANCE:
        raise UserError(
            f"Expected scores within {TOLERANCE:g} of the offline ones, found differences up to "
            f"{differences} on {requests} requests of {split}. Nothing was published.",
            "report this as a bug, with the model.",
        )
    return (
        f"Largest difference from offline scores on {requests} requests of {split}: {differences}"
    )


def check_auc(
    data: DataDir, servable: Servable, live: pathlib.Path | None, max_auc_drop: float
) -> str:
    """Compares the AUC on held-out requests with that of the live version.

    Args:
        data: Data set that the held-out requests are taken from.
        servable: The new version.
        live: Directory of the live version; None if there is none.
        max_auc_drop: Largest allowed drop of the AUC below that of the live version.

    Returns:
        The AUC of the versions in one line, or the reason why they were not compared.

    Raises:
        UserError: The AUC of the new version is lower by more than `max_auc_drop`.
    """
    held_out = [split for split in _HELD_OUT if data.num_requests(split)]
    if not held_out:
        return "AUC not compared: the data set has no held-out requests"
    for split in held_out:
        auc = _auc(data, split, servable)
        if auc is not None:
            break
    else:
        return f"AUC not compared: all candidates of {' and of '.join(held_out)} have one label"
    measure = f"AUC on the first {min(data.num_requests(split), MAX_REQUESTS)} requests of {split}"
    if live is None:
        return f"{measure}: {auc:.4f}"
    try:
        live_servable = Servable(live)
        inputs = servable.input_types(SERVING_DEFAULT).items()
        if not live_servable.input_types(SERVING_DEFAULT).items() <= inputs:
            return f"{measure}: {auc:.4f}; not compared, {live} takes other inputs"
        live_auc = _auc(data, split, live_servable) or 0.0
    except (ServingError, tf.errors.OpError) as error:
        # A broken live version must not block its successor.
        return f"{measure}: {auc:.4f}; not compared, {live} does not answer: {error}"
    if live_auc - auc > max_auc_drop:
        raise UserError(
            f"Expected an {measure} of at least {live_auc:.4f}, that of the live version {live}, "
            f"less --max_auc_drop={max_auc_drop:g}, found {auc:.4f}. Nothing was published.",
            "find out why the model is worse, or raise --max_auc_drop.",
        )
    return f"{measure}: {auc:.4f}, live version {live_auc:.4f}"


def _first_split(data: DataDir, splits: tuple[str, ...]) -> str:
    """The first of the splits that has requests, "" if none has."""
    return next((split for split in splits if data.num_requests(split)), "")


def _auc(data: DataDir, split: str, servable: Servable) -> float | None:
    """AUC of a version on the first requests of a split, None where it is undefined."""
    item_key = candidate_key(data.schema.item_key.name)
    names = servable.input_types(SERVING_DEFAULT)
    label_parts, score_parts = [], []
    for batch in raw_requests.batches(data, split, _BATCH_SIZE, MAX_REQUESTS):
        mask_BN = batch.features[item_key].numpy() != PAD_ID
        outputs = servable.predict(SERVING_DEFAULT, {name: batch.raw[name] for name in names})
        label_parts.append(batch.features[LABEL].numpy()[mask_BN])
        score_parts.append(outputs[SCORES][mask_BN])
    labels = np.concatenate(label_parts)
    if labels.min() == labels.max():
        return None
    return float(metrics.roc_auc_score(labels, np.concatenate(score_parts)))
