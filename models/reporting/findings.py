"""Conclusions from the numbers of a run, in words: alarms, and limits of the model.

An alarm reports a part of the training that does not work. A limit applies to good models too, and
users of the model should know it.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from models.evaluation.confidence_intervals import Estimate
from models.evaluation.metrics import UNDEFINED, shown, shown_interval
from models.evaluation.slices import ITEMS, KNOWN, NEW, USERS
from models.evaluation.yardsticks import UNKNOWN_ITEM
from models.reporting.evidence import Evidence
from models.training import selection
from preprocessing import time_units
from preprocessing.data_dir import DataDir
from preprocessing.known_items import TELLING

_COLLAPSED_EXPERTS = 0.5
_RARE_EXPERT = 0.05
_EQUAL_INTERESTS = 0.9
_EQUAL_EVENTS = 0.9
_UNDECIDED = 1.2
"""Mean weight of the most trusted of K experts, times K, below which none is chosen."""
_EQUAL_VIEWS = 0.999
_COLLAPSED_VIEWS = -0.05
_FEW_PAIRS = 0.05
_TOO_STRONG, _TOO_WEAK = 10.0, 0.001
_FULL_GRAPH, _EMPTY_GRAPH = 0.95, 0.001
_SLOW_INPUT = 0.1
_BADLY_CALIBRATED = 0.05
_BIASED = 0.1
_MANY_NEW = 0.01
_OTHER_RATE = 0.1
_SHOWN_SLICES = 5


def alarms(evidence: Evidence) -> list[str]:
    """Problems of the training, the worst first; [] if there are none.

    Args:
        evidence: Evidence of the run.
    """
    lines = [*_of_metrics(evidence), *_of_yardsticks(evidence)]
    if evidence.kept is not None:
        interests = getattr(evidence.run.config.model, "interests", 1)
        lines += [*_of_interests(evidence.kept, interests), *_of_graph(evidence.kept)]
        lines += _of_views(evidence.kept)
        lines += _of_progress(evidence)
    return lines


def limits(evidence: Evidence) -> list[str]:
    """Limits that users of the model should know, from its data and its numbers.

    Args:
        evidence: Evidence of the run.
    """
    lines = [*_of_protocol(evidence.run.data)]
    if evidence.analysis is not None:
        lines += _of_labels(evidence)
        lines += _of_calibration(evidence)
        lines += _of_new_values(evidence.analysis.slices, evidence.split)
        lines += weak_slices(evidence.analysis.slices, evidence.analysis.metrics["auc"])
    if evidence.scores is not None:
        longest = evidence.run.data.schema.history.max_length
        at_bound = float((evidence.scores.history_length >= longest).mean())
        if at_bound > _MANY_NEW:
            lines.append(
                f"{at_bound:.0%} of the candidates are judged on a history of the maximal length "
                f"of {longest} events; what came before is not seen."
            )
    train = evidence.run.config.train
    weight = evidence.run.data.schema.weight
    if train.positive_weight != 1.0 or train.sample_weight or weight is not None:
        lines.append("Training weighs its samples, so scores are no click probabilities.")
    lines.append(
        f"One run with seed {train.seed}. The intervals are about which users were drawn, not "
        "about how runs with other seeds would differ."
    )
    return lines


def _of_metrics(evidence: Evidence) -> Iterator[str]:
    """Alarms if the model has learned nothing."""
    if evidence.analysis is not None:
        auc, low, high = evidence.analysis.metrics["auc"]
        if low is not None and low <= 0.5:
            yield (
                f"The {evidence.split} AUC of {shown(auc, '.3f')} is not above chance: its "
                f"interval {shown_interval(low, high, '.3f')} reaches 0.5."
            )
    split = evidence.split or next(reversed(evidence.metrics))
    entropy = evidence.metrics[split].get("normalised_entropy")
    if entropy is not None and entropy >= 1.0:
        yield (
            f"As probabilities, scores are worse on {split} than the click rate, said every time "
            f"(normalised entropy {entropy:.3f}). Weights are chosen by AUC, which does not see "
            "that: export with --calibrate, or add train.l2, or lower the learning rates."
        )


def _of_yardsticks(evidence: Evidence) -> Iterator[str]:
    """Alarms if baselines, or unknown items alone, rank well."""
    auc = evidence.metrics.get(evidence.split, {}).get("auc")
    ahead = [
        yardstick
        for yardstick in evidence.yardsticks
        if auc is not None and (yardstick.auc or 0.0) > auc
    ]
    if ahead:
        names = ", ".join(f"{yardstick.name} ({yardstick.auc:.3f})" for yardstick in ahead)
        yield (
            f"The {evidence.split} AUC of {auc:.3f} is below what is reached without a model: "
            f"{names}."
        )
    for yardstick in evidence.yardsticks:
        if yardstick.name == UNKNOWN_ITEM and (yardstick.auc or 0.0) > 0.5 + TELLING:
            yield (
                f"Whether an item is unknown to the training data separates the labels of "
                f"{evidence.split} with an AUC of {yardstick.auc:.3f}: a part of any AUC there is "
                "this bit and no taste. Compare models on the slice of known items."
            )


def _of_interests(kept: pd.Series, interests: int) -> Iterator[str]:
    """Alarms if interests or their experts have collapsed.

    Args:
        kept: Row of the evaluation whose weights were kept.
        interests: Number of interests K.
    """
    usage = kept.get("diagnostics/expert_usage_entropy", 1.0)
    if usage < _COLLAPSED_EXPERTS:
        yield (
            f"The experts have collapsed: the entropy of their usage is {usage:.2f} of 1, so few "
            "of them decide everything."
        )
    rare = kept.get("diagnostics/expert_usage_min", 1.0)
    if usage >= _COLLAPSED_EXPERTS and rare < _RARE_EXPERT:
        yield f"An expert has {rare:.1%} of the weight: it might as well not be there."
    events = kept.get("diagnostics/event_cosine", 0.0)
    if events > _EQUAL_EVENTS:
        yield (
            f"The events of a history are one where interests are extracted (mean cosine "
            f"{events:.3f}), and so is every interest in them."
        )
    cosine = kept.get("diagnostics/interest_cosine", 0.0)
    if cosine > _EQUAL_INTERESTS:
        yield (
            f"The interests are one and the same (mean cosine {cosine:.3f}, its sign aside): "
            "several of them, and experts for each, tell nothing apart."
        )
    confidence = kept.get("diagnostics/confidence_max", 1.0)
    if interests > 1 and confidence < _UNDECIDED / interests:
        yield (
            f"No expert is chosen: the most trusted of {interests} has a weight of "
            f"{confidence:.3f} in the mean, where {1 / interests:.3f} is that of equal trust."
        )


def _of_graph(kept: pd.Series) -> Iterator[str]:
    """Alarms if relations of a graph carry no information, or views are identical."""
    for name, value in kept.items():
        relation = str(name).removeprefix("diagnostics/edge_density_")
        if relation == name or math.isnan(value):
            continue
        if value > _FULL_GRAPH:
            yield (
                f"The relation {relation!r} connects {value:.0%} of all pairs of events, so it "
                "tells nothing apart; raise model.threshold or lower model.window."
            )
        if value < _EMPTY_GRAPH:
            yield (
                f"The relation {relation!r} connects {value:.2%} of the pairs of events, so it "
                "plays no role; lower model.threshold or raise model.window."
            )
    if kept.get("diagnostics/view_cosine", 0.0) > _EQUAL_VIEWS:
        yield (
            "Self-supervision has nothing to learn: both views of an interest are the same "
            f"(cosine {kept['diagnostics/view_cosine']:.4f})."
        )


def _of_views(kept: pd.Series) -> Iterator[str]:
    """Alarms if contrastive self-supervision has collapsed, or is too weak or too strong."""
    for name, value in kept.items():
        group, _, metric = str(name).removeprefix("diagnostics/").rpartition("/")
        if metric == "uniformity" and value > _COLLAPSED_VIEWS:
            yield (
                f"The views of {group} have collapsed into one point (uniformity {value:.3f}, "
                "where 0 is all the same): its loss separates nothing."
            )
        if metric == "valid_share" and value < _FEW_PAIRS:
            yield (
                f"{group} finds pairs in {value:.1%} of the places only; histories are too short "
                "for it."
            )
        if metric == "ssl_to_log_loss" and value > _TOO_STRONG:
            yield (
                f"Self-supervision pulls {value:.0f} times as strongly at the embeddings as the "
                "click loss does; lower its weight (ssl.alpha)."
            )
        if metric == "ssl_to_log_loss" and value < _TOO_WEAK:
            yield (
                f"Self-supervision pulls {value:.1g} times as strongly at the embeddings as the "
                "click loss does: it has no say; raise its weight (ssl.alpha)."
            )


def _of_progress(evidence: Evidence) -> Iterator[str]:
    """Alarms if training ended too early, overfitted at once, or waited for input."""
    history, kept, train = evidence.history, evidence.kept, evidence.run.config.train
    assert kept is not None
    if len(history) > 1 and kept["step"] == history["step"].iloc[-1]:
        bound = (
            "train.max_steps" if 0 < train.max_steps <= history["step"].iloc[-1] else "train.epochs"
        )
        metric = selection.metric(kept.to_dict(), "validation/")
        going = "rising" if selection.sign(metric) > 0 else "falling"
        yield (
            f"Validation {selection.TITLES[metric]} was still {going} when training ended at step "
            f"{kept['step']:.0f}: raise {bound}, and go on with --resume."
        )
    if len(history) > 1 and kept["step"] == history["step"].iloc[0]:
        yield (
            "The first evaluation was the best one: training overfits, or diverges, from then on; "
            "lower train.learning_rate or raise train.evaluations_per_epoch."
        )
    if "speed/input_wait" in history and (wait := history["speed/input_wait"].median()) > (
        _SLOW_INPUT
    ):
        yield (
            f"Steps wait for input {wait:.0%} of the time; raise train.data_memory so that the "
            "split is held in memory."
        )


def _of_protocol(data: DataDir) -> Iterator[str]:
    """Limits of the metrics that follow from how the data set was built."""
    arguments = data.manifest["arguments"]
    if not data.schema.is_impression_log:
        count = arguments.get("negatives", 1)
        sampling = arguments.get("negative_sampling", "uniform")
        kind = "by popularity" if "popularity" in sampling else "uniform"
        when = "that had appeared by then and " if "available" in sampling else ""
        yield (
            f"The log holds clicks only. For each of them {count} "
            f"{'negative was' if count == 1 else 'negatives were'} drawn ({kind}) from items "
            f"{when}that the user never clicked: a score is the probability of a click among such "
            "candidates, not a click rate, and a real list of candidates is harder to rank."
        )
    if arguments.get("protocol") == "leave_last_out" and data.describes_values:
        train, test = (data.stats["splits"][name]["time_range"] for name in ("train", "test"))
        if train and test and test[0] < train[1]:
            begin, end = (time_units.brief(data.schema, time) for time in (test[0], train[1]))
            yield (
                f"Each user's last event is a test, whenever it was: tests begin {begin}, training "
                f"events reach to {end}. So the model has seen other users' later events, which no "
                "model in production has; the protocol time_split is free of that."
            )


def _of_labels(evidence: Evidence) -> Iterator[str]:
    """A limit if all labels are equal, so that there is nothing to rank."""
    metrics = evidence.metrics[evidence.split]
    if metrics.get("auc", 0.0) is None:
        which = "none" if metrics.get("bias_ratio") is None else "each"
        yield (
            f"Of the {evidence.split} candidates {which} was clicked, so nothing says how well the "
            f"model ranks: AUC, GAUC and ranking metrics are {UNDEFINED}."
        )


def _of_calibration(evidence: Evidence) -> Iterator[str]:
    """Limits of the use of scores as probabilities."""
    metrics = evidence.metrics[evidence.split]
    error, bias = metrics.get("calibration_error"), metrics.get("bias_ratio")
    if error is not None and error > _BADLY_CALIBRATED:
        yield (
            f"Scores are off by {error:.3f} on average as probabilities. That does not change the "
            "order of candidates; for bids or thresholds, export with --calibrate."
        )
    if bias is not None and abs(bias - 1.0) > _BIASED:
        yield f"It predicts {bias:.2f} times as many clicks as there are."


def _of_new_values(slices: pd.DataFrame, split: str) -> Iterator[str]:
    """Limits on users and items that training never saw."""
    for dimension in (USERS, ITEMS):
        part = slices[slices["dimension"] == dimension]
        by_name = {row["slice"]: row for _, row in part.iterrows()}
        if NEW not in by_name:
            continue
        new, known = by_name[NEW], by_name.get(KNOWN)
        share = new["candidates"] / part["candidates"].sum()
        if share < _MANY_NEW:
            continue
        line = f"{share:.1%} of the {split} candidates have {_A[dimension]} that training never saw"
        if not np.isnan(new["auc"]):
            line += f": AUC {_interval(new)}"
            if known is not None:
                line += f", where it is {_interval(known)} for the others"
        line += "."
        if known is not None:
            rates = [row["positives"] / row["candidates"] for row in (new, known)]
            if abs(rates[0] - rates[1]) > _OTHER_RATE:
                line += (
                    f" Of these candidates {rates[0]:.0%} were clicked, of the others "
                    f"{rates[1]:.0%}: to tell them apart is part of the AUC of all."
                )
        yield line


_A = {USERS: "a user", ITEMS: "an item"}


def weak_slices(slices: pd.DataFrame, auc: Estimate) -> list[str]:
    """The slices whose whole confidence interval is below the AUC of the split, the worst first.

    Args:
        slices: Table of `models.evaluation.slices.measure`.
        auc: AUC of the split.
    """
    if auc.value is None:
        return []
    is_new = slices["dimension"].isin([USERS, ITEMS]) & (slices["slice"] == NEW)
    weak = slices[(slices["auc_high"] < auc.value) & ~is_new]
    if weak.empty:
        return []
    shown = weak.sort_values("auc_high").head(_SHOWN_SLICES)
    names = [
        f"{row['dimension']} {row['slice']}: {_interval(row)}, {row['candidates']:,} candidates"
        for _, row in shown.iterrows()
    ]
    more = f" (and {len(weak) - len(shown)} more)" if len(weak) > len(shown) else ""
    return [f"It ranks worse than the AUC of {auc.value:.3f} for: {'; '.join(names)}{more}."]


def _interval(row: pd.Series) -> str:
    return f"{row['auc']:.3f} {shown_interval(row['auc_low'], row['auc_high'], '.3f')}"
