"""Limits of fields: what they admit, how they read, and that derived classes keep them."""

import dataclasses

import pytest

from preprocessing.errors import UserError
from preprocessing.values import limits
from preprocessing.values.limits import Limit, limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    rate: float = limited(0.5, above=0, at_most=1)
    widths: tuple[int, ...] = limited((8, 4), at_least=1)
    weight: float | None = limited(None, at_least=0)
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Derived(_Settings):
    rate: float = 0.25
    widths: tuple[int, ...] = limited((8,), at_least=2)


@pytest.mark.parametrize(
    ("limit", "condition", "inside", "outside"),
    [
        (Limit(at_least=1), ">= 1", (1, 1e9), (0, float("nan"))),
        (Limit(above=0), "> 0", (1e-9,), (0, -1)),
        (Limit(at_least=0, below=1), "in [0, 1)", (0, 0.5), (-1e-9, 1)),
        (Limit(above=0, below=1), "in (0, 1)", (0.5,), (0, 1)),
        (Limit(above=0, at_most=1), "in (0, 1]", (1,), (0, 1.5)),
    ],
)
def test_what_a_limit_admits_and_how_it_reads(limit, condition, inside, outside):
    assert limit.condition(0) == condition
    assert all(map(limit.admits, inside))
    assert not any(map(limit.admits, outside))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (_Settings(rate=0.0), "Expected a.rate in (0, 1], found 0.0."),
        (_Settings(widths=(8, 0)), "Expected a.widths each >= 1, found [8, 0]."),
        (_Settings(weight=-1.0), "Expected a.weight >= 0, found -1.0."),
        (_Derived(rate=2.0), "Expected a.rate in (0, 1], found 2.0."),
        (_Derived(widths=(1,)), "Expected a.widths each >= 2, found [1]."),
    ],
)
def test_a_value_beyond_a_limit_is_one_line(settings, message):
    with pytest.raises(UserError) as caught:
        limits.check(settings, "a.")
    assert str(caught.value) == message


@pytest.mark.parametrize("settings", [_Settings(), _Settings(widths=()), _Derived(), None])
def test_what_is_within_limits_passes(settings):
    limits.check(settings, "a.")


def test_a_help_text_ends_with_the_limit():
    assert limits.with_limit("Share.", _Derived, "rate") == "Share. Must be in (0, 1]."
    assert limits.with_limit("Name.", _Derived, "name") == "Name."
