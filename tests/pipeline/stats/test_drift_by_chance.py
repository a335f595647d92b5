"""How far two samples of one distribution are apart: the closed form, and draws."""

import numpy as np
import pytest

from pipeline.stats import drift


@pytest.mark.parametrize(("distinct", "sizes"), [(50, (4000, 1000)), (300, (9000, 9000))])
def test_categories(distinct, sizes):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(distinct, 5.0))
    drawn = [
        drift.jensen_shannon(*(rng.multinomial(size, shares) for size in sizes)) for _ in range(200)
    ]
    assert drift.by_chance(distinct, *sizes, is_number=False) == pytest.approx(
        np.mean(drawn), rel=0.1
    )


def test_numbers():
    rng = np.random.default_rng(0)
    sizes, edges = (3000, 700), np.linspace(-5, 5, 4001)
    drawn = [
        drift.kolmogorov_smirnov(*(np.histogram(rng.normal(size=n), edges)[0] for n in sizes))
        for _ in range(200)
    ]
    assert drift.by_chance(0, *sizes, is_number=True) == pytest.approx(np.mean(drawn), rel=0.1)


def test_a_value_per_event_is_as_far_as_it_gets():
    assert drift.by_chance(1000, 10, 10, is_number=False) == 1.0
