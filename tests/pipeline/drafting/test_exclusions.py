"""pipeline.drafting.exclusions: every rule that leaves a column out."""

import numpy as np
import pytest

from pipeline.drafting import exclusions
from pipeline.drafting.columns import Column
from tests.helpers.foreign_logs import column, keys

USER, ITEM = keys()
NUMBERS = [str(number + 0.5) for number in range(19)]


@pytest.mark.parametrize(
    ("rule", "left_out", "stays", "reason"),
    [
        (exclusions.row_number, ("Unnamed: 0", [1, 2]), ("unnamed", [1, 2]), "numbers of rows"),
        (exclusions.empty, ("a", [None, "NULL"]), ("a", [None, "x"]), "no row has a value"),
        (exclusions.constant, ("a", ["x", "x"]), ("a", ["x", None]), "the same value"),
        (exclusions.list_text, ("a", ["[1, 2]", "[]"]), ("a", ["[1, 2]", "1"]), "a list"),
        (exclusions.dates, ("a", ["2024-01-01"]), ("a", ["2024-01-01", "soon"]), "a date or time"),
        (exclusions.mixed_numbers, ("a", [*NUMBERS, "NA"]), ("a", [*NUMBERS, "7"]), "also 'NA'"),
        (exclusions.free_text, ("a", ["a b c d e f", "g h i j k l"]), ("a", ["New York", "Paris"]),
         "free text"),
        (exclusions.own_per_row, ("a", [f"r{i}" for i in range(50)]), ("a", ["x", "y"] * 25),
         "own value"),
    ],
)  # fmt: skip
def test_a_rule(rule, left_out, stays, reason):
    assert reason in rule(column(*left_out))
    assert rule(column(*stays)) == ""


def test_what_cannot_be_read_keeps_its_reason():
    assert exclusions.unreadable(Column("a", np.zeros(0, int), column("a", []).values, "why")) == (
        "why"
    )
    assert exclusions.unreadable(column("a", ["x"])) == ""


def test_measures_may_have_their_own_value_in_every_row():
    values = np.random.default_rng(0).random(50)
    assert exclusions.own_per_row(column("weight", values)) == ""
    assert exclusions.own_per_row(column("weight", range(50))) == ""
    assert exclusions.own_per_row(column("x", range(50))) != ""


def test_another_name_of_a_key_is_a_copy():
    rule = exclusions.copy_of(column("item_id", ITEM))
    assert rule(column("title", [f"Film {one}" for one in ITEM])) == "another name for item_id"
    assert rule(column("product_key", ITEM + 7)) == "another name for item_id"
    assert rule(column("brand", ITEM % 5)) == ""
    assert rule(column("price", ITEM + 0.5)) == ""


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x", ["09 13, 2009", "1 1, 2010"]),
        ("x", ["25.11.2017", "1/2/18"]),
        ("date", [20240101, 20240102]),
        ("signup_time", [1_700_000_000, 1_700_000_001]),
    ],
)
def test_dates_in_any_form_are_left_out(name, values):
    assert "a date or time beside that of the row" in exclusions.dates(column(name, values))


@pytest.mark.parametrize(
    "values", [["1-2", "3-4"], ["1.5", "2.5"], ["10.0.0.1x", "a"], ["12,5,10"]]
)
def test_what_only_looks_like_a_date_stays(values):
    assert exclusions.dates(column("x", values)) == ""


def test_what_tells_the_label_is_left_out():
    click = np.random.default_rng(8).integers(0, 2, len(USER))
    rule = exclusions.gives_away(column("click", click), column("user", USER), column("item", ITEM))
    assert rule(column("noclick", 1 - click)) == (
        "nearly every value has one click: as a feature it would give it away"
    )
    assert rule(column("device", np.random.default_rng(9).integers(0, 3, len(USER)))) == ""
    assert rule(column("age", USER)) == ""


def test_the_first_rule_that_applies_gives_the_reason():
    rules = (exclusions.empty, exclusions.constant, exclusions.dates)
    assert exclusions.first_reason(column("a", ["2024-01-01"]), rules) == (
        "every row has the same value"
    )
    assert exclusions.first_reason(column("a", ["x", "y"]), rules) == ""
