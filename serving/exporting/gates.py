"""What a model must pass before it is published.

* It takes what the live version takes: the schema is the same.
* Its scores are the offline ones, whichever way it is asked.
* It ranks held-out requests no worse than the live version does, up to a stated margin.
"""

import pathlib

import numpy as np
from sklearn import metrics

from models.core.base import CTRModel
from models.core.run_directory import Run
from models.keras import tf
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.schema import LABEL, PAD_ID, Schema, candidate_key
from serving.exporting import raw_requests
from serving.exporting.offline_scores import TOLERANCE, OfflineScorer, difference
from serving.exporting.signatures import EXAMPLES, SCORES, SERIALIZED, SERVING_DEFAULT
from serving.tfserving.models.servable import Servable
from serving.tfserving.status import ServingError

MAX_REQUESTS = 2000
"""So many requests are scored at most."""
_HELD_OUT = ("test", "validation")
_BATCH_SIZE = 64


def check_schema(schema: Schema, live: pathlib.Path, *, allow_change: bool) -> list[str]:
    """Compares the schema of a run with that of the live version.

    Args:
        schema: Of the run.
        live: Directory of the live version.
        allow_change: Return the differences rather than raise them.

    Returns:
        The differences, a line each.

    Raises:
        UserError: There are some: the live version's clients would be refused.
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


def check_parity(run: Run, model: CTRModel, servable: Servable) -> str:
    """Compares the scores of both signatures with the offline ones.

    Args:
        run: Which is exported.
        model: Its model.
        servable: The export of it, as servers load it.

    Returns:
        What was found, in a line.

    Raises:
        UserError: Scores differ by more than `offline_scores.TOLERANCE`.
    """
    offline = OfflineScorer(model, run.data.schema)
    largest = dict.fromkeys((SERVING_DEFAULT, SERIALIZED), 0.0)
    split = _first_split(run.data, (*_HELD_OUT, "train"))
    requests = 0
    for batch in raw_requests.batches(run.data, split, _BATCH_SIZE, MAX_REQUESTS):
        _, expected_BN = offline(batch.features)
        for way, inputs in ((SERVING_DEFAULT, batch.raw), (SERIALIZED, {EXAMPLES: batch.examples})):
            found_BN = servable.predict(way, inputs)[SCORES]
            largest[way] = max(largest[way], difference(found_BN, expected_BN))
        requests += len(expected_BN)
    found = ", ".join(f"{way} {largest_one:.3g}" for way, largest_one in largest.items())
    if max(largest.values()) > TOLERANCE:
        raise UserError(
            f"Expected scores within {TOLERANCE:g} of the offline ones, found differences up to "
            f"{found} on {requests} requests of {split}. Nothing was published.",
            "report this as a bug, with the model.",
        )
    return f"Largest difference from offline scores on {requests} requests of {split}: {found}"


def check_auc(
    data: DataDir, servable: Servable, live: pathlib.Path | None, max_auc_drop: float
) -> str:
    """Compares the AUC on held-out requests with that of the live version.

    Args:
        data: Where the requests are from.
        servable: The new version.
        live: Directory of the live version; None if there is none.
        max_auc_drop: By how much the new one may be worse.

    Returns:
        What was found, in a line; also if there was nothing to compare with.

    Raises:
        UserError: The new version is worse than that.
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
        rival = Servable(live)
        inputs = servable.input_types(SERVING_DEFAULT).items()
        if not rival.input_types(SERVING_DEFAULT).items() <= inputs:
            return f"{measure}: {auc:.4f}; not compared, {live} takes other inputs"
        live_auc = _auc(data, split, rival) or 0.0
    except (ServingError, tf.errors.OpError) as error:
        # A live version that is broken must not keep its successor out.
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
    labels, scores = [], []
    for batch in raw_requests.batches(data, split, _BATCH_SIZE, MAX_REQUESTS):
        mask_BN = batch.features[item_key].numpy() != PAD_ID
        scores_BN = servable.predict(SERVING_DEFAULT, {name: batch.raw[name] for name in names})
        labels.append(batch.features[LABEL].numpy()[mask_BN])
        scores.append(scores_BN[SCORES][mask_BN])
    label = np.concatenate(labels)
    if label.min() == label.max():
        return None
    return float(metrics.roc_auc_score(label, np.concatenate(scores)))
