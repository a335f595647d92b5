"""The figures of a report and their text alternatives."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn import metrics as sklearn_metrics

from models.config.training import TrainConfig
from models.evaluation import slices
from models.evaluation.confidence_intervals import Estimate
from models.evaluation.metrics import Scores, reliability, sigmoid
from models.reporting import curves, data_sets, html_report, interest_figures, quality
from preprocessing import time_units
from preprocessing.features.feature import DType
from preprocessing.schema import Schema
from preprocessing.schema_inference import infer_schema

AUC = Estimate(0.7, 0.68, 0.72)


@pytest.fixture(scope="module")
def scores():
    """Candidates of which one in ten was clicked."""
    rng = np.random.default_rng(0)
    label = (rng.random(4000) < 0.1).astype(np.float32)
    logit = (rng.normal(size=4000) + label - 2.0).astype(np.float32)
    return Scores(*[np.zeros(4000)] * 2, label, logit, np.zeros(4000), {})


def test_calibration_roc_and_precision_say_what_they_show(scores):
    calibration, roc, precision = quality.of_split(scores, AUC, "test")
    probability = sigmoid(scores.logit.astype(np.float64))
    predicted, observed, _ = reliability(scores.label, probability)
    assert f"{predicted[0]:.2f} is predicted, {observed[0]:.2f} is observed" in calibration.text
    assert f"largest gap is {np.abs(predicted - observed).max():.2f}" in calibration.text
    false, true, _ = sklearn_metrics.roc_curve(scores.label, probability)
    assert "0.7000 [0.6800, 0.7200]" in roc.text
    assert f"keeps 10% of the others keeps {np.interp(0.1, false, true):.0%}" in roc.text
    average = sklearn_metrics.average_precision_score(scores.label, probability)
    assert f"Average precision {average:.4f}" in precision.text


def test_precision_is_shown_where_clicks_are_rare(scores):
    often = scores._replace(label=1 - scores.label)
    assert [figure.title for figure in quality.of_split(often, AUC, "test")] == [
        "Calibration",
        "ROC",
    ]


def test_slices_away_from_the_whole_have_their_colour():
    names = ["dimension", "slice", "candidates", "auc", "auc_low", "auc_high"]
    rows = [
        ("history length", "1", 1000, 0.6, 0.55, 0.65),
        ("history length", "2", 20, 0.69, 0.6, 0.78),
        ("history length", "3+", 30, 0.8, 0.75, 0.85),
        ("history length", "none", 1, np.nan, np.nan, np.nan),
        (slices.USERS, "known", 1000, 0.7, 0.68, 0.72),
    ]
    (figure,) = quality.of_slices(pd.DataFrame(rows, columns=names), AUC)
    assert figure.title == "AUC by history length"
    assert figure.text == (
        "1: 0.600 [0.550, 0.650]; 2: 0.690 [0.600, 0.780]; 3+: 0.800 [0.750, 0.850]."
    )
    for colour in ("--orange", "--blue", "--green"):
        assert f"var({colour}, #" in figure.svg
    assert "1  (1,000)" in figure.svg


def test_a_handful_of_candidates_neither_stretches_an_axis_nor_takes_a_colour():
    names = ["dimension", "slice", "candidates", "auc", "auc_low", "auc_high"]
    rows = [
        ("history length", "1", 4, 0.2, np.nan, np.nan),
        ("history length", "2", 8, 1.0, 1.0, 1.0),
        ("history length", "3+", 6000, 0.7, 0.68, 0.72),
        ("history length", "8+", 6000, 0.69, 0.67, 0.71),
    ]
    part = pd.DataFrame(rows, columns=names)
    low, high = quality._limits(part, AUC.value)
    assert 0.65 < low < 0.67 < 0.72 < high < 0.74
    (figure,) = quality.of_slices(part, AUC)
    assert "An arrow: the AUC of a small slice lies beyond the figure." in figure.caption
    assert "var(--green" not in figure.svg
    assert "2: 1.000" in figure.text


def test_gradients_and_parts_of_the_model_have_figures_with_explanations():
    steps = [10, 20]
    columns = ["train/ssl_loss", "train/gradient_norm", "train/ssl_gradient_norm_dense"]
    parts = ["event_cosine", "expert_information", "own_measure"]
    history = pd.DataFrame(
        {"step": steps, "validation/auc": [0.6, 0.7]}
        | {name: [0.5, 0.4] for name in ("train/log_loss", "validation/log_loss", *columns)}
        | {f"diagnostics/{name}": [0.1, 1e-5] for name in parts}
    )
    figures = {f.title: f for f in curves.training(history, history.iloc[1], TrainConfig())}
    assert "gradient" not in figures["Further loss terms"].text
    assert {"Gradient norm", "Gradient norm of self-supervision"} <= set(figures)
    inside = {figure.title: figure for figure in curves.diagnostics(history)}
    assert list(inside) == ["Likeness inside the model", "Attention and experts", "Parts"]
    assert "at 1 they are the same" in inside["Likeness inside the model"].caption
    assert inside["Parts"].caption == "Own measure."


@pytest.mark.parametrize("tables", [0.0, 0.02])
def test_learning_rates_are_those_of_training(tables):
    train = TrainConfig(
        learning_rate=0.01, embedding_learning_rate=tables, schedule="plateau", warmup_steps=10,
        plateau_factor=0.1, plateau_patience=1,
    )  # fmt: skip
    history = pd.DataFrame(
        {
            "step": [50, 100, 200],
            "validation/auc": [0.6, 0.5, 0.5],
            "validation/log_loss": [0.6, 0.5, 0.7],
        }
    )
    *_, figure = curves.training(history, history.iloc[0], train)
    assert figure.title == "Learning rate"
    if tables:
        assert "dense weights: at most 0.01, 0.0001 at the end" in figure.text
        assert "embedding tables: at most 0.02, 0.0002 at the end" in figure.text
    else:
        assert figure.text == "all weights: at most 0.01, 0.0001 at the end."


def test_log_loss_tells_the_kept_and_the_lowest():
    history = pd.DataFrame(
        {
            "step": [10, 20],
            "train/log_loss": [0.7, 0.3],
            "validation/log_loss": [0.5, 0.6],
            "validation/auc": [0.6, 0.7],
        }
    )
    loss, auc = curves.training(history, history.iloc[1], TrainConfig())
    assert loss.text == (
        "Validation log loss is 0.6000 at the kept step 20; its lowest is 0.5000 at step 10, its "
        "last 0.6000."
    )
    assert "0.6000 at step 10 to 0.7000 at step 20" in auc.text


def test_terms_of_the_loss_have_a_panel_each_without_their_ratios():
    history = pd.DataFrame(
        {
            "step": [10, 20],
            "train/loss": [2.0, 1.0],
            "train/log_loss": [0.7, 0.3],
            "train/mine": [5.0, 4.0],
            "train/mine_ratio": [7.0, 8.0],
            "train/gradient_norm": [0.1, 90.0],
            "validation/log_loss": [0.5, 0.6],
            "validation/auc": [0.6, 0.7],
        }
    )
    _, _, terms, norm = curves.training(history, history.iloc[1], TrainConfig())
    assert terms.text == "Mine from 5 to 4."
    assert norm.text == "Gradient norm from 0.1 to 90."
    ticks = {float(text) for text in re.findall(r">([\d.]+)</text>", norm.svg)}
    assert {0.1, 1.0, 10.0} <= ticks  # A logarithmic axis, in plain numbers.


def test_diagnostics_of_a_model_of_ones_own_are_drawn():
    history = pd.DataFrame({"step": [1, 2], "diagnostics/mine/spread": [1.0, 3.0]})
    (figure,) = curves.diagnostics(history)
    assert figure.title == "Mine"
    assert figure.text == "Spread from 1 to 3."


def _log(dtype):
    return infer_schema(["user_id", "item_id", "timestamp"], time_dtype=dtype)


def test_times_of_another_unit_are_shown_as_they_are():
    log = _log(DType.INT64)
    assert time_units.brief(log, 1_700_000_000) == "2023-11-14"
    assert time_units.brief(log, 1_700_000_000_000) == "1700000000000"
    assert time_units.brief(log, 17) == "17"
    periods = {"train": {"0": 4, "172800": 2}, "validation": {}, "test": {"259200": 1}}
    by_split = {name: {"events_by_period": counts} for name, counts in periods.items()}
    figure = data_sets.events(log, by_split, data_sets.DAY)
    assert figure.title == "Time"
    assert "86,400 units of time" in figure.caption
    assert figure.text == (
        "train: 6 events from 0 to 172800; test: 1 events from 259200 to 259200."
    )


def test_times_of_a_known_unit_are_dates_in_full():
    log = _log(DType.DATETIME)
    assert time_units.brief(log, 1_700_000_000_123_000) == "2023-11-14T22:13:20.123Z"
    assert time_units.brief(log, 17) == "1970-01-01T00:00:00.000017Z"
    day = 86_400 * 10**6
    periods = {"train": {str(19_675 * day): 4}, "validation": {}, "test": {str(19_677 * day): 1}}
    by_split = {name: {"events_by_period": counts} for name, counts in periods.items()}
    figure = data_sets.events(log, by_split, day)
    assert figure.caption.startswith("Events per day,")
    assert figure.text == (
        "train: 4 events from 2023-11-14 to 2023-11-14; "
        "test: 1 events from 2023-11-16 to 2023-11-16."
    )


def test_times_whose_unit_the_schema_says_are_dates():
    record = {"name": "ts", "role": "timestamp", "dtype": "int64", "unit": "milliseconds"}
    keys = [
        {"name": f"{role}_id", "role": role, "dtype": "string", "encoder": {"kind": "vocabulary"}}
        for role in ("user", "item")
    ]
    schema = Schema.from_json({"features": [*keys, record]})
    assert time_units.brief(schema, 1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert time_units.readable(schema, 1_700_000_000_000) == "2023-11-14T22:13:20Z"
    seconds = Schema.from_json({"features": [*keys, {**record, "unit": "seconds"}]})
    assert time_units.readable(seconds, 1_700_000_000) == "2023-11-14T22:13:20Z"
    del record["unit"]
    bare = Schema.from_json({"features": [*keys, record]})
    assert time_units.readable(bare, 1_700_000_000) == "1700000000 (2023-11-14 if in seconds)"
    assert time_units.readable(bare, 17) == "17"


def test_lengths_of_histories_in_numbers():
    counts = {"train": {"1": 3, "4": 1}, "validation": {}, "test": {"2": 1, "4": 1}}
    by_split = {name: {"history_length": some} for name, some in counts.items()}
    text = data_sets.history_lengths(by_split).text
    assert text == "train: median 1, at 4 25.0%; test: median 2, at 4 50.0%."


def test_colours_follow_the_theme_and_dollars_are_text():
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots()
        for number in range(len(html_report.SERIES)):
            axes.plot([0, 1], [number, 1], label="$x$ and $y$")
        axes.legend()
        svg = html_report.svg(figure)
    assert set(re.findall(r"stroke: (#[0-9a-f]{6})", svg)) <= {"#ffffff", "#000000"}
    assert len(set(re.findall(r"var\((--[\w-]+), #", svg))) == len(html_report.SERIES)
    assert "$x$ and $y$" in svg
    assert ' id="axes_1"' not in svg


def test_numbers_in_a_heat_map_can_be_read():
    for place in np.linspace(0, 1, 33):
        colour = plt.get_cmap("viridis")(place)
        linear = np.array(colour[:3])
        linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
        light = linear @ [0.2126, 0.7152, 0.0722]
        text = 0.0 if interest_figures._legible_on(colour) == "black" else 1.0
        assert (max(light, text) + 0.05) / (min(light, text) + 0.05) >= 4.5
