"""pipeline.drafting.columns: facts of a column, and how far one follows from another."""

import numpy as np
import pytest

from pipeline.drafting.columns import agreement, follows, variance_explained
from tests.helpers.foreign_logs import column, keys


def test_facts_of_a_column():
    prices = column("price", [1.5, None, 2.5, 2.5])
    assert (prices.distinct, prices.present, prices.missing) == (2, 3, 0.25)
    assert prices.integers is None
    assert sorted(prices.numbers) == [1.5, 2.5]
    assert column("a", [7.0, 8.0]).integers.tolist() == [7, 8]
    assert column("a", [True, False]).is_binary
    assert not column("a", ["a", "1"]).is_binary
    assert column("a", ["2024-01-01", "2024-01-02 10:00:00"]).is_times
    assert not column("a", ["2024-01-01", "soon"]).is_times
    assert not column("a", [20240101]).is_times
    assert column("a", [f"r{i}" for i in range(20)]).is_own_per_row
    assert column("a", ["one two", "three"]).words_per_value == 1.5
    empty = column("a", [None, ""])
    assert (empty.distinct, empty.missing) == (0, 1)
    assert empty.numbers is None
    assert not empty.is_times


def test_agreement_is_one_for_what_follows_and_nought_for_what_does_not():
    user, _ = keys(rows=20_000)
    users = column("user", user)
    noise = np.random.default_rng(1).integers(0, 3, len(user))
    assert agreement(column("age", user % 7), users) == 1
    assert agreement(column("noise", noise), users) == pytest.approx(0, abs=0.01)
    moved = np.where(np.random.default_rng(2).random(len(user)) < 0.05, noise, user % 7)
    assert 0.8 < agreement(column("city", moved), users) < 0.95
    assert follows(column("city", moved), users)
    assert not follows(column("city", moved), users, least=0.99)


def test_what_hardly_varies_does_not_follow_for_that():
    user, _ = keys(rows=20_000)
    rare = np.random.default_rng(1).random(len(user)) < 0.02
    assert agreement(column("rare", rare), column("user", user)) == pytest.approx(0, abs=0.02)


def test_keys_of_one_row_tell_nothing():
    users = column("user", list(range(100)))
    assert agreement(column("age", [i % 7 for i in range(100)]), users) is None
    assert not follows(column("age", [i % 7 for i in range(100)]), users)


def test_rows_without_a_value_are_left_out_of_an_agreement():
    user, _ = keys()
    prices = [None if i % 4 else float(one) for i, one in enumerate(user)]
    assert agreement(column("price", prices), column("user", user)) == 1


def test_numbers_that_vary_around_a_value_of_each_key_are_explained_by_it():
    _, item = keys()
    rng = np.random.default_rng(0)
    items = column("item", item)
    prices = column("price", 10.0 * item + rng.normal(size=len(item)))
    assert agreement(prices, items) < 0.1
    assert variance_explained(prices, items) > 0.95
    assert variance_explained(column("x", rng.normal(size=len(item))), items) < 0.1
    assert variance_explained(column("x", ["a"] * len(item)), items) == 0
