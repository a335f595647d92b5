"""How logs are drawn: a catalogue, an item of an interest for each event, and the table of a log.

Shapes: E events, M places of the catalogue, D days, G interests.
"""

import numpy as np
import pyarrow as pa

from pipeline.synthetic.truth import (
    Floats,
    Ints,
    SynthesizeArguments,
    Truth,
    numbered_ids,
)

COLUMNS = ("user_id", "item_id", "category_id", "timestamp")
DAY_SECONDS = 86_400


def draw_catalogue(args: SynthesizeArguments, rng: np.random.Generator) -> Truth:
    """Deals items out to interests and categories, popular and rare ones alike."""
    rank_M, interest_M = np.divmod(np.arange(args.items), args.interests)
    weight_M = (rank_M + 1.0) ** -args.popularity_exponent
    weight_M /= np.bincount(interest_M, weight_M)[interest_M]
    category_M = interest_M * args.categories_per_interest + rank_M % args.categories_per_interest
    category_M = rng.permutation(args.interests * args.categories_per_interest)[category_M]
    order_M = rng.permutation(args.items)  # an item's number says nothing about it
    return Truth(
        arguments=args,
        interest_M=interest_M[order_M],
        category_M=category_M[order_M],
        weight_M=weight_M[order_M],
    )


def draw_items(
    truth: Truth,
    item_DM: Ints,
    user_E: Ints,
    day_E: Ints,
    interest_E: Ints,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Draws an item of the interest of each event, none twice for a user.

    Draws with repetition, then redraws every event whose item an earlier event of its user holds,
    until none does. That is exactly "draw until the item is new", event after event: once an event
    holds an item, that event or an earlier one keeps it, hence an event only rejects items that
    earlier events end up with.

    Args:
        truth: The catalogue, whose places items take one after the other.
        item_DM: Item at each place of the catalogue on each day.
        user_E: User of each event; events of a user stand together, oldest first.
        day_E: Day of each event.
        interest_E: Interest of each event.
        rng: Source of everything random.

    Returns:
        The place [E] and the item [E] of each event.
    """
    args = truth.arguments
    by_interest_M = np.argsort(truth.interest_M, kind="stable")
    weight_M = truth.weight_M[by_interest_M]
    size_G = np.bincount(truth.interest_M, minlength=args.interests)
    num_items = int(item_DM.max()) + 1
    place_E = by_interest_M[draw_within(weight_M, size_G, interest_E, rng)]
    active = np.arange(len(user_E))  # events of the users that may still hold an item twice
    while len(active):
        key = user_E[active] * num_items + item_DM[day_E[active], place_E[active]]
        order = np.argsort(key, kind="stable")  # stable: the earlier event comes first
        key = key[order]
        repeated = np.sort(active[order[1:][key[1:] == key[:-1]]])
        place_E[repeated] = by_interest_M[draw_within(weight_M, size_G, interest_E[repeated], rng)]
        unsettled_U = np.zeros(args.users, bool)
        unsettled_U[user_E[repeated]] = True
        active = active[unsettled_U[user_E[active]]]
    return place_E, item_DM[day_E, place_E]


def draw_within(probability: Floats, size: Ints, group_E: Ints, rng: np.random.Generator) -> Ints:
    """Draws an entry of a group for each event, by inverting the distribution function.

    Args:
        probability: Probability of each entry, group after group; each group sums to 1.
        size: Number of entries of each group.
        group_E: Group to draw from, for each event.
        rng: Source of one uniform number per event.

    Returns:
        Positions in `probability`, [E].
    """
    end = np.cumsum(size)
    start = end - size
    cumulative = np.cumsum(probability)
    # Group g takes [g, g + 1): one search over all groups. Clipping catches rounding at the ends.
    before = np.repeat(cumulative[start] - probability[start], size)
    steps = cumulative - before + np.repeat(np.arange(len(size)), size)
    entry_E = np.searchsorted(steps, group_E + rng.random(len(group_E)), side="right")
    return np.clip(entry_E, start[group_E], end[group_E] - 1)


def event_table(user_E: Ints, item_E: Ints, category_E: Ints, timestamp_E: Ints) -> pa.Table:
    """A log as it is written: in the order of time, with the canonical columns."""
    order_E = np.lexsort((user_E, timestamp_E))
    return pa.table(
        [
            _take(numbered_ids("u", int(user_E.max()) + 1), user_E[order_E]),
            _take(numbered_ids("i", int(item_E.max()) + 1), item_E[order_E]),
            _take(numbered_ids("c", int(category_E.max()) + 1), category_E[order_E]),
            pa.array(timestamp_E[order_E]),
        ],
        names=list(COLUMNS),
    )


def _take(names: list[str], index_E: Ints) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(index_E))
