"""pipeline.drafting.labels: outcomes and requests."""

import numpy as np
import pytest

from pipeline.drafting.labels import label, request, rule_of
from preprocessing.features.encoder_specs import Numeric
from preprocessing.features.feature import DType, Role
from tests.helpers.foreign_logs import column, keys

USER, ITEM = keys()
USERS, ITEMS = column("user", USER), column("item", ITEM)
COIN, OTHER_COIN = np.random.default_rng(5).integers(0, 2, (2, len(USER)))
STARS = np.random.default_rng(6).integers(1, 6, len(USER))


def _label(*columns, has_time=True):
    return label(columns, USERS, ITEMS, has_time)


@pytest.mark.parametrize(
    ("values", "dtype", "positive"),
    [
        ([0, 1], DType.INT64, None),
        ([True, False], DType.INT64, None),
        ([-1, 1], DType.INT64, ">=1"),
        ([1, 2, 3, 4, 5], DType.FLOAT32, ">=4"),
        ([0.5, 1, 4.5, 5], DType.FLOAT32, ">=4"),
        (list(range(1, 11)), DType.FLOAT32, ">=8"),
        (list(range(101)), DType.FLOAT32, ">=80"),
    ],
)
def test_what_is_positive(values, dtype, positive):
    rule = rule_of(column("x", values))
    assert (rule.dtype, rule.positive) == (dtype, positive)


@pytest.mark.parametrize("values", [[1, 1], [0.1, 0.25, 0.3], [0, 1, 500], ["a", "b"], [-3, 0, 2]])
def test_what_is_no_outcome(values):
    assert rule_of(column("x", values)) is None


def test_a_click_and_a_rating_are_labels():
    (click,) = _label(column("is_clicked", COIN), column("brand", ITEM % 3))
    assert (click.role, click.positive, click.doubt) == (Role.LABEL, None, "")
    (rating,) = _label(column("overall", STARS.astype(float)))
    assert (rating.dtype, rating.positive) == (DType.FLOAT32, ">=4")
    assert "ratings from 1 to 5, of which 4 and more count as positive" in rating.reason


def test_what_follows_from_the_item_or_the_user_is_no_outcome():
    assert _label(column("mean_rating", ITEM % 5), column("likes", USER % 7)) == []


def test_two_labels_are_in_doubt_and_other_outcomes_left_out():
    dwell = column("dwell_time", np.random.default_rng(1).random(len(USER)))
    chosen, *others = _label(column("purchase", OTHER_COIN), column("click", COIN), dwell)
    assert (chosen.column.name, chosen.role) == ("click", Role.LABEL)
    assert "the label could be click or purchase" in chosen.doubt
    assert {other.column.name: other.role for other in others} == {
        "purchase": None,
        "dwell_time": None,
    }
    assert others[0].reason == "an outcome of the row like click, which it would give away"


def test_outcomes_are_features_of_events_in_a_log_without_a_label():
    (decision,) = _label(column("dwell_time", np.random.default_rng(1).random(len(USER))))
    assert (decision.role, decision.reason, decision.doubt) == (
        Role.EVENT,
        "an outcome, known after the row only; numbers",
        "",
    )
    assert decision.encoder == Numeric()


def test_a_label_needs_a_time():
    (decision,) = _label(column("click", COIN), has_time=False)
    assert decision.role is None
    assert "needs a column of times" in decision.doubt


def test_a_column_of_0_and_1_without_a_name_may_be_the_label():
    (decision,) = _label(column("x", COIN), column("is_adult", ITEM % 2))
    assert (decision.column.name, decision.role) == ("x", None)
    assert 'x may be the label: if so, give it the role "label"' in decision.doubt


def test_rows_of_a_request_have_one_user():
    sessions = column("session", USER * 100 + np.arange(len(USER)) // 200)
    decision = request([sessions, column("search_terms", ITEM)], USERS, has_label=True)
    assert (decision.column.name, decision.role) == ("session", Role.REQUEST)
    assert request([column("impression_id", range(len(USER)))], USERS, has_label=True) is None
    clicks_only = request([sessions], USERS, has_label=False)
    assert (clicks_only.role, clicks_only.reason) == (
        None,
        "names requests, which only a log with a label has",
    )


def test_the_finer_of_two_requests_is_taken():
    session, part = USER * 100, USER * 100 + np.arange(len(USER)) // 100
    columns = [column("session", session), column("request", part)]
    assert request(columns, USERS, has_label=True).column.name == "request"
