"""Sampled negatives, and the order of the candidates of a request.

Random bits come from a counter, not from a generator with a state: SplitMix64 (Steele, Lea and
Flood, 2014) of the seed, the fingerprint of the request id and the number of the draw. A request
therefore gets the same negatives whatever partition, worker or batch it is processed in.

Each split draws from its own catalogue, which holds the items that its requests and those of
earlier splits contain. If the training negatives were drawn from the whole log, then items from the
future, which all share the out-of-vocabulary id, would only ever be seen as negatives. A request
may be limited to the beginning of a catalogue that is in the order in which items appeared.

Shapes: R requests, N negatives per request, K entries of a catalogue.
"""

import dataclasses

import numpy as np

MAX_TRIES = 32
"""Number of draws before the free items of a request are listed one by one."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ORDER_STREAM = 1 << 62


def splitmix64(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output function of `state + gamma`: 64 well mixed bits per 64-bit input."""
    z = np.asarray(state, np.uint64) + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_bits(seed: int, keys_R: np.ndarray, counter: int | np.ndarray) -> np.ndarray:
    """Bits of draw number `counter` of each request, uint64 [R].

    Args:
        seed: Seed of the data set.
        keys_R: uint64, fingerprint of each request id.
        counter: Number of the draw, one for all requests or one for each.
    """
    mixed_seed = splitmix64(np.array([seed % 2**64], np.uint64))
    stream_R = splitmix64(keys_R ^ mixed_seed)
    return splitmix64(stream_R + np.atleast_1d(counter).astype(np.uint64) * _GAMMA)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Tickets that may be drawn in one split, each of which stands for an item.

    Attributes:
        items_K: Integers, the item of each entry; an item may occur more than once.
        cumulative_K: int64, cumulative numbers of tickets of the entries, such as of the events of
            each item; None if every entry is one ticket.
    """

    items_K: np.ndarray
    cumulative_K: np.ndarray | None = None

    @property
    def num_tickets(self) -> int:
        """Number of all tickets."""
        return len(self.items_K) if self.cumulative_K is None else int(self.cumulative_K[-1])

    def draw(self, bits: np.ndarray, num_tickets: int | np.ndarray) -> np.ndarray:
        """One item per 64 random bits; the modulo bias is below the number of tickets / 2^64.

        Args:
            bits: Random bits of each draw, uint64.
            num_tickets: Number of the first tickets to draw from: one number for all draws, or one
                per draw.
        """
        ticket = (bits % np.asarray(num_tickets).astype(np.uint64)).astype(np.int64)
        if self.cumulative_K is not None:
            ticket = np.searchsorted(self.cumulative_K, ticket, side="right")
        return self.items_K[ticket]

    def without(self, items: np.ndarray, num_tickets: int) -> "Catalogue":
        """A catalogue of the first tickets without those of some items.

        Args:
            items: Items to leave out.
            num_tickets: Number of the first tickets; it must be all of them if entries are more
                than one ticket.
        """
        if self.cumulative_K is None:
            first = self.items_K[:num_tickets]
            return Catalogue(first[~np.isin(first, items)])
        free = ~np.isin(self.items_K, items)
        weights = np.diff(self.cumulative_K, prepend=0)[free]
        return Catalogue(self.items_K[free], np.cumsum(weights))


class OwnItems:
    """The items that each user has ever touched.

    Args:
        users: int64, number of the user of each event.
        items: int64, number of the item of each event, or negative for an item that no catalogue
            holds.
        num_items: One more than the largest item number.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, num_items: int) -> None:
        self._num_items = np.int64(max(num_items, 1))
        has_item = items >= 0
        self._pairs = np.unique(users[has_item] * self._num_items + items[has_item])

    def contain(self, users_R: np.ndarray, items_R: np.ndarray) -> np.ndarray:
        """Whether each user has touched each item, bool [R]."""
        pairs_R = users_R * self._num_items + items_R
        rows = np.searchsorted(self._pairs, pairs_R)
        rows[rows == len(self._pairs)] = 0
        return (self._pairs[rows] == pairs_R) if len(self._pairs) else np.zeros(len(pairs_R), bool)

    def of(self, user: int) -> np.ndarray:
        """Items of one user in increasing order."""
        low, high = np.searchsorted(
            self._pairs, [user * self._num_items, (user + 1) * self._num_items]
        )
        return self._pairs[low:high] % self._num_items

    def count_below(self, users_R: np.ndarray, limits_R: np.ndarray) -> np.ndarray:
        """Number of items below a limit that each user has touched, int64 [R].

        Args:
            users_R: int64, number of the user of each request.
            limits_R: int64, limit of each request, at most the number of items.
        """
        first_R = users_R * self._num_items
        return np.searchsorted(self._pairs, first_R + limits_R) - np.searchsorted(
            self._pairs, first_R
        )


def sample(
    catalogue: Catalogue,
    own: OwnItems,
    users_R: np.ndarray,
    keys_R: np.ndarray,
    num_negatives: int,
    seed: int,
    tickets_R: np.ndarray | None = None,
) -> np.ndarray:
    """Draws distinct items that the user of the request never touched, int64 [R, N].

    A draw that hits one of the user's own items or an earlier negative of the same request is
    repeated; after `MAX_TRIES` the draw is made among the free items alone, which has the same
    distribution.

    Args:
        catalogue: Items to draw from.
        own: Items of every user.
        users_R: int64, number of the user of each request.
        keys_R: uint64, fingerprint of each request id.
        num_negatives: Number N of negatives per request. Every user must leave at least N items of
            the catalogue free (see `OwnItems.count_below`).
        seed: Seed of the data set.
        tickets_R: int64, number of the first tickets that each request may draw from, in a
            catalogue whose entries are one ticket each; None for all tickets.
    """
    if tickets_R is None:
        tickets_R = np.full(len(keys_R), catalogue.num_tickets)
    negatives_RN = np.full((len(keys_R), num_negatives), -1, np.int64)
    for n in range(num_negatives):
        open_rows = np.arange(len(keys_R))
        for attempt in range(MAX_TRIES):
            bits = random_bits(seed, keys_R[open_rows], n * (MAX_TRIES + 1) + attempt)
            drawn_items = catalogue.draw(bits, tickets_R[open_rows])
            is_taken = own.contain(users_R[open_rows], drawn_items)
            is_taken |= (negatives_RN[open_rows, :n] == drawn_items[:, None]).any(axis=1)
            negatives_RN[open_rows[~is_taken], n] = drawn_items[~is_taken]
            open_rows = open_rows[is_taken]
            if not len(open_rows):
                break
        last_bits = random_bits(seed, keys_R[open_rows], n * (MAX_TRIES + 1) + MAX_TRIES)
        for row, bits in zip(open_rows, last_bits, strict=True):
            taken_items = np.concatenate([own.of(users_R[row]), negatives_RN[row, :n]])
            free = catalogue.without(taken_items, int(tickets_R[row]))
            negatives_RN[row, n] = free.draw(np.array([bits]), free.num_tickets)[0]
    return negatives_RN


def order_bits(seed: int, keys_R: np.ndarray, positions: int | np.ndarray) -> np.ndarray:
    """Random bits by which candidates are sorted, one per candidate, uint64 [R].

    Args:
        seed: Seed of the data set.
        keys_R: uint64, fingerprint of the request id of each candidate.
        positions: Position of each candidate among those of its request.
    """
    return random_bits(seed, keys_R, _ORDER_STREAM + positions)


def candidate_order(keys_R: np.ndarray, num_candidates: int, seed: int) -> np.ndarray:
    """A random order of the candidates of each request, int64 [R, num_candidates].

    If the positive always came first, anything that sees positions would recognise it.
    """
    bits = [order_bits(seed, keys_R, position) for position in range(num_candidates)]
    return np.argsort(np.stack(bits, axis=1), axis=1, kind="stable")
