"""pipeline.drafting.features: what a feature describes, and how it is encoded."""

import numpy as np
import pytest

from pipeline.drafting.features import (
    Keys,
    default_of,
    encoder_of,
    feature,
    kinds_of_events,
    role_of,
)
from preprocessing.features.encoder_specs import Numeric, Vocabulary
from preprocessing.features.feature import DType, Role
from tests.helpers.foreign_logs import column, keys

USER, ITEM = keys()
RNG = np.random.default_rng(3)
NOISE = RNG.integers(0, 3, len(USER))
REQUESTS = USER * 100 + np.arange(len(USER)) // 100
CLICKS = Keys(column("user", USER), column("item", ITEM))
CLICK = column("click", RNG.integers(0, 2, len(USER)))
ROWS = Keys(CLICKS.user, CLICKS.item, label=CLICK)
SHOWN = Keys(CLICKS.user, CLICKS.item, column("request", REQUESTS), CLICK)


def test_kinds_of_events_are_few_texts_with_a_name_that_says_so():
    decision = kinds_of_events(column("action", ["view", "buy", None]))
    assert (decision.role, decision.encoder, decision.default) == (
        Role.EVENT,
        Vocabulary(),
        "unknown",
    )
    assert decision.reason == "kinds of events (buy, view), all of which count"
    assert kinds_of_events(column("brand", ["view", "buy"])) is None
    assert kinds_of_events(column("action", [1, 2])) is None
    assert kinds_of_events(column("action", [f"kind {i}" for i in range(21)])) is None


@pytest.mark.parametrize(
    ("values", "role", "reason"),
    [
        (USER % 7, Role.USER, "nearly every user has one value (100%)"),
        (ITEM % 7, Role.ITEM, "nearly every item has one value (100%)"),
        (NOISE, Role.CONTEXT, "neither users ("),
    ],
)
def test_the_data_tells_what_a_feature_describes(values, role, reason):
    for name in ("x", "user_x", "item_x"):
        chosen = role_of(column(name, values), CLICKS)
        assert chosen[0] is role
        assert reason in chosen[1]
        assert chosen[2] == ""


def test_a_few_exceptions_do_not_change_what_a_feature_describes():
    moved = np.where(RNG.random(len(USER)) < 0.03, NOISE, USER % 7)
    assert role_of(column("city", moved), CLICKS)[0] is Role.USER


def test_what_varies_within_requests_describes_the_candidate():
    assert role_of(column("place", NOISE), SHOWN)[0] is Role.ITEM
    assert role_of(column("device", REQUESTS % 3), SHOWN)[0] is Role.CONTEXT
    assert not feature(column("place", NOISE), SHOWN).in_history
    assert feature(column("brand", ITEM % 5), SHOWN).in_history


def test_context_that_tells_the_clicked_item_is_in_doubt():
    mostly = np.where(RNG.random(len(ITEM)) < 0.4, RNG.integers(0, 7, len(ITEM)), ITEM % 7)
    price = 10.0 * ITEM + RNG.random(len(ITEM))
    for one in (column("shelf", mostly), column("price", price)):
        role, _, doubt = role_of(one, CLICKS)
        assert role is Role.CONTEXT
        assert f"{one.name} may describe the item" in doubt
        assert role_of(one, ROWS)[2] == ""


def test_names_tell_where_keys_do_not_come_back():
    unique = Keys(column("user", range(50)), column("item", range(50)))
    values = [number % 3 for number in range(50)]
    roles = [role_of(column(name, values), unique)[0] for name in ("user_x", "item_x", "x")]
    assert roles == [Role.USER, Role.ITEM, Role.CONTEXT]


@pytest.mark.parametrize(
    ("name", "values", "encoder"),
    [
        ("x", ["a", "b"], Vocabulary()),
        ("x", [0.5, 1.5, 2.5], Numeric()),
        ("price", [1, 2, 3], Numeric()),
        ("price", [1, 2, 3, 4, 1000], Numeric(normalisation="log_standard")),
        ("category_id", [1, 2, 3], Vocabulary()),
        ("x", [1, 2, 3], Vocabulary()),
        ("age", [0, 1], Vocabulary()),
        ("x", [True, False], Vocabulary()),
    ],
)
def test_numbers_and_categories(name, values, encoder):
    assert encoder_of(column(name, values))[0] == encoder


def test_what_stands_in_for_missing_values():
    assert default_of(column("price", [1.25, 2.5, 10.0, None]), Numeric()) == 2.5
    assert default_of(column("brand", ["a", None]), Vocabulary()) == "unknown"
    assert default_of(column("brand", ["a", "b"]), Vocabulary()) is None


def test_a_number_is_a_float_and_in_no_history():
    price = feature(column("price", ITEM + 0.5), CLICKS)
    assert (price.role, price.dtype, price.in_history) == (Role.ITEM, DType.FLOAT32, False)
    brand = feature(column("brand", ITEM % 5), CLICKS)
    assert (brand.dtype, brand.in_history) == (DType.STRING, True)
