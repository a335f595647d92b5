"""Alarms and limits: each is said when its number is bad, and only then."""

import types

import numpy as np
import pandas as pd
import pytest

from models.config import run_config
from models.evaluation.confidence_intervals import Estimate
from models.evaluation.metrics import Scores
from models.evaluation.scoring import Analysis
from models.evaluation.slices import ITEMS, USERS
from models.evaluation.yardsticks import UNKNOWN_ITEM, Yardstick
from models.reporting import findings
from models.reporting.evidence import Evidence

GOOD = {
    "expert_usage_entropy": 0.95,
    "expert_usage_min": 0.2,
    "interest_cosine": 0.3,
    "confidence_max": 0.5,
    "edge_density_similar": 0.1,
    "view_cosine": 0.9,
    "miss_interest/uniformity": -1.5,
    "miss_interest/valid_share": 0.8,
    "embedding_gradient/ssl_to_log_loss": 0.5,
}
HISTORY = pd.DataFrame(
    {
        "step": [10, 20, 30],
        "validation/auc": [0.6, 0.7, 0.65],
        "speed/input_wait": [0.01, 0.02, 0.01],
    }
)
ARGUMENTS = {"negatives": 1, "negative_sampling": "uniform", "protocol": "time_split"}
METRICS = {"normalised_entropy": 0.9, "calibration_error": 0.01, "bias_ratio": 1.0}


def _slices(*rows, rates=()):
    names = ["dimension", "slice", "candidates", "auc", "auc_low", "auc_high"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(positives=found["candidates"] * (rates or 0.5))


def _evidence(
    *,
    diagnostics=None,
    history=HISTORY,
    kept=1,
    auc=Estimate(0.7, 0.68, 0.72),  # noqa: B008
    slices=None,
    metrics=None,
    arguments=None,
    lengths=(3, 4),
    is_impression_log=False,
    weight=None,
    stats=None,
    yardsticks=(),
    model="din",
    **train,
):
    diagnostics = {f"diagnostics/{k}": v for k, v in (GOOD | (diagnostics or {})).items()}
    history = history.assign(**diagnostics)
    data = types.SimpleNamespace(
        manifest={"arguments": ARGUMENTS | (arguments or {})},
        schema=types.SimpleNamespace(
            is_impression_log=is_impression_log,
            timestamp=None,
            weight=weight,
            history=types.SimpleNamespace(max_length=50),
        ),
        stats=stats or {},
        describes_values=bool(stats),
    )
    scores = Scores(*([None] * 4), history_length=np.array(lengths), ids={})
    run = types.SimpleNamespace(
        config=run_config.resolve({"model": {"name": model}, "train": train}), data=data
    )
    return Evidence(
        run=run,
        history=history,
        kept=history.iloc[kept],
        pretraining=pd.DataFrame(),
        metrics={"test": METRICS | (metrics or {})},
        split="test",
        scores=scores,
        analysis=Analysis({"auc": auc}, _slices() if slices is None else slices),
        yardsticks=yardsticks,
        importance={},
        calibration=None,
        sessions=[],
        origins={},
        has_weights=True,
    )


def test_a_good_run_alarms_nobody():
    assert findings.alarms(_evidence()) == []
    (negatives, seed) = findings.limits(_evidence())
    assert "For each of them 1 negative was drawn (uniform)" in negatives
    assert seed.startswith("One run with seed 1.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"diagnostics": {"expert_usage_entropy": 0.2}}, "experts have collapsed"),
        ({"diagnostics": {"expert_usage_min": 0.01}}, "An expert has 1.0% of the weight"),
        ({"diagnostics": {"interest_cosine": 0.98}}, "one and the same (mean cosine 0.980, its"),
        (
            {"diagnostics": {"event_cosine": 0.95}},
            "are one where interests are extracted (mean cosine 0.950)",
        ),
        (
            {"model": "deminet", "diagnostics": {"confidence_max": 0.26}},
            "the most trusted of 4 has a weight of 0.260 in the mean, where 0.250",
        ),
        (
            {
                "metrics": {"auc": 0.61},
                "yardsticks": [
                    Yardstick("popularity", 0.66, 0.6, 0.6),
                    Yardstick("item-kNN", 0.6, 0.6, 0.6),
                ],
            },
            "The test AUC of 0.610 is below what is reached without a model: popularity (0.660).",
        ),
        (
            {"yardsticks": [Yardstick(UNKNOWN_ITEM, 0.62, 0.5, None)]},
            "separates the labels of test with an AUC of 0.620",
        ),
        ({"diagnostics": {"edge_density_similar": 0.99}}, "'similar' connects 99% of all pairs"),
        ({"diagnostics": {"edge_density_similar": 0.0}}, "'similar' connects 0.00% of the pairs"),
        ({"diagnostics": {"view_cosine": 0.9999}}, "nothing to learn"),
        ({"diagnostics": {"miss_interest/uniformity": -0.01}}, "views of miss_interest have coll"),
        ({"diagnostics": {"miss_interest/valid_share": 0.01}}, "finds pairs in 1.0% of the places"),
        ({"diagnostics": {"embedding_gradient/ssl_to_log_loss": 20.0}}, "pulls 20 times"),
        ({"diagnostics": {"embedding_gradient/ssl_to_log_loss": 1e-4}}, "has no say"),
        ({"auc": Estimate(0.51, 0.49, 0.53)}, "not above chance: its interval [0.490, 0.530]"),
        ({"metrics": {"normalised_entropy": 1.02}}, "normalised entropy 1.020"),
        ({"kept": 2}, "still rising when training ended at step 30: raise train.epochs"),
        ({"kept": 2, "max_steps": 30}, "raise train.max_steps"),
        ({"kept": 0}, "first evaluation was the best"),
        ({"history": HISTORY.assign(**{"speed/input_wait": 0.5})}, "wait for input 50%"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_alarms(changes, said):
    (alarm,) = findings.alarms(_evidence(**changes))
    assert said in alarm


STATS = {
    "vocabularies": {},
    "splits": {
        "train": {"time_range": [1_300_000_000, 1_400_000_000]},
        "test": {"time_range": [1_350_000_000, 1_410_000_000]},
    },
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"calibration_error": 0.2}}, "off by 0.200 on average"),
        ({"metrics": {"bias_ratio": 1.3}}, "predicts 1.30 times as many clicks"),
        ({"lengths": [50, 50, 3, 3]}, "50% of the candidates are judged on a history of the max"),
        ({"positive_weight": 3.0}, "no click probabilities"),
        ({"weight": "dwell"}, "no click probabilities"),
        (
            {"arguments": {"protocol": "leave_last_out"}, "stats": STATS},
            "tests begin 2012-10-12, training events reach to 2014-05-13",
        ),
        (
            {
                "slices": _slices(
                    (ITEMS, "known", 900, 0.7, 0.68, 0.72),
                    (ITEMS, "not in training", 100, 0.55, 0.5, 0.6),
                )
            },
            "10.0% of the test candidates have an item that training never saw: AUC 0.550 "
            "[0.500, 0.600], where it is 0.700 [0.680, 0.720] for the others.",
        ),
        (
            {
                "slices": _slices(
                    (ITEMS, "known", 900, 0.7, 0.68, 0.72),
                    (ITEMS, "not in training", 100, 0.55, 0.5, 0.6),
                    rates=[0.4, 0.9],
                )
            },
            "Of these candidates 90% were clicked, of the others 40%",
        ),
        (
            {
                "slices": _slices(
                    ("history length", "1", 30, 0.6, 0.55, 0.65),
                    ("history length", "2", 60, 0.69, 0.65, 0.75),
                )
            },
            "worse than the AUC of 0.700 for: history length 1: 0.600 [0.550, 0.650], 30 cand",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_limits(changes, said):
    first, *further = findings.limits(_evidence(**changes))
    assert first.startswith("The log holds clicks only.")
    assert [said in limit for limit in further] == [True, False]


def test_an_impression_log_has_real_negatives():
    (limit,) = findings.limits(_evidence(is_impression_log=True))
    assert limit.startswith("One run")


def test_few_new_values_are_no_limit():
    slices = _slices(
        (USERS, "known", 9990, 0.7, 0.68, 0.72), (USERS, "not in training", 10, 0.5, 0.3, 0.6)
    )
    assert len(findings.limits(_evidence(slices=slices))) == 2


def test_slices_that_are_worse_by_chance_are_not_named():
    slices = _slices(
        ("category_id", "a", 30, 0.6, 0.5, 0.71), ("category_id", "b", 9, np.nan, np.nan, np.nan)
    )
    assert findings.weak_slices(slices, Estimate(0.7, 0.68, 0.72)) == []
