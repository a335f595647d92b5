import numpy as np
import pytest
from scipy.stats import chisquare

from preprocessing import negatives
from preprocessing.negatives import Catalogue, OwnItems

KEYS = negatives.splitmix64(np.arange(4000, dtype=np.uint64))


def _uniform(items):
    return Catalogue(np.asarray(items, np.int64))


def test_splitmix64_equals_the_published_sequence():
    # The first outputs of the generator whose state starts at 1234567 and grows by gamma.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert negatives.splitmix64(states).tolist() == expected


def test_draws_depend_on_the_request_alone():
    own = OwnItems(np.arange(4000), np.arange(4000) % 50, 50)
    users = np.arange(4000)
    drawn = negatives.sample(_uniform(range(50)), own, users, KEYS, 3, seed=7)
    some = np.array([3999, 17, 0])
    again = negatives.sample(_uniform(range(50)), own, users[some], KEYS[some], 3, seed=7)
    assert np.array_equal(again, drawn[some])
    other = negatives.sample(_uniform(range(50)), own, users, KEYS, 3, seed=8)
    assert (other != drawn).mean() > 0.9


def test_negatives_are_distinct_and_never_own_items():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 100, 3000), rng.integers(0, 60, 3000)
    own = OwnItems(users, items, 60)
    owned = set(zip(users.tolist(), items.tolist(), strict=True))
    free = 60 - own.count_below(np.arange(100), np.full(100, 60))
    num_negatives = int(free.min())
    request_users = np.arange(4000) % 100
    drawn = negatives.sample(_uniform(range(60)), own, request_users, KEYS, num_negatives, seed=1)
    for user, row in zip(request_users.tolist(), drawn.tolist(), strict=True):
        assert len(set(row)) == num_negatives
        assert not owned & {(user, item) for item in row}


def test_a_user_with_one_free_item_gets_it():
    own = OwnItems(np.zeros(999, np.int64), np.delete(np.arange(1000), 123), 1000)
    drawn = negatives.sample(_uniform(range(1000)), own, np.zeros(5, np.int64), KEYS[:5], 1, seed=1)
    assert (drawn == 123).all()


@pytest.mark.parametrize("own_items", [[], list(range(4, 100))])
def test_popular_items_are_drawn_by_count(own_items):
    # With 96 of 100 items owned most draws go through the list of free items: same distribution.
    weights = np.ones(100, np.int64)
    weights[:4] = [10, 20, 30, 40]
    catalogue = Catalogue(np.arange(100), np.cumsum(weights))
    own = OwnItems(np.zeros(len(own_items), np.int64), np.array(own_items, np.int64), 100)
    drawn = negatives.sample(catalogue, own, np.zeros(4000, np.int64), KEYS, 1, seed=3)
    shares = np.bincount(drawn[:, 0], minlength=100)[:4] / 4000
    total = weights.sum() - len(own_items)
    assert shares == pytest.approx(weights[:4] / total, abs=0.03)


def test_items_out_of_every_catalogue_are_nobodys():
    own = OwnItems(np.array([0, 0]), np.array([-1, 2]), 5)
    assert own.of(0).tolist() == [2]
    assert own.count_below(np.array([0, 0, 1]), np.array([3, 2, 5])).tolist() == [1, 0, 0]
    assert OwnItems(np.array([], int), np.array([], int), 0).contain(
        np.array([0]), np.array([0])
    ).tolist() == [False]


@pytest.mark.parametrize("own_items", [[0, 7], list(range(25))])
def test_a_request_draws_its_first_tickets_only(own_items):
    """Alike whether draws are repeated or made among the free tickets, one by one."""
    tickets = np.arange(200) % 40  # items 0 to 39, again and again
    own = OwnItems(np.zeros(len(own_items), np.int64), np.array(own_items), 40)
    limits = np.repeat([27, 60], 2000)
    users = np.zeros(4000, np.int64)
    drawn = negatives.sample(Catalogue(tickets), own, users, KEYS, 2, seed=5, tickets_R=limits)
    for limit in (27, 60):
        some = drawn[limits == limit]
        counts = np.bincount(np.setdiff1d(np.arange(40), own_items), minlength=40)
        counts *= np.bincount(tickets[:limit], minlength=40)
        first = np.bincount(some[:, 0], minlength=40)
        assert (first[counts == 0] == 0).all()
        expected = counts[counts > 0] / counts.sum() * 2000
        assert chisquare(first[counts > 0], expected).pvalue > 0.001
        assert (some[:, 0] != some[:, 1]).all()
        assert (counts[some] > 0).all()


def test_candidate_order_is_a_permutation_without_preference():
    order = negatives.candidate_order(KEYS, 4, seed=1)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    places = np.bincount(order.argmin(axis=1), minlength=4) / len(KEYS)  # where the positive is
    assert places == pytest.approx(np.full(4, 0.25), abs=0.03)
