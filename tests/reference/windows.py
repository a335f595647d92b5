"""Brute-force protocols: loops over users and events, to the letter of the description.

An event is (user, item, timestamp); its place in the list is its row.
"""

import collections
import math

Event = tuple[str, str, int]


def cutoff(times, fraction):
    """The earliest time t of which at least `fraction` of all times are <= t."""
    wanted = math.ceil(fraction * len(times))
    return next(t for t in sorted(set(times)) if sum(time <= t for time in times) >= wanted)


def split_requests(
    events: list[Event],
    protocol: str,
    max_length: int,
    min_history: int = 1,
    train_prefixes: str = "last",
    cutoffs: tuple[int, int] | None = None,
    min_user_events: int = 1,
    min_item_events: int = 1,
    max_user_events: int = 10_000,
) -> dict[str, dict[str, tuple[Event, list[Event]]]]:
    """Split to request id to (positive, history)."""
    item_counts = collections.Counter(item for _, item, _ in events)
    by_user = collections.defaultdict(list)
    for row, event in enumerate(events):
        if item_counts[event[1]] >= min_item_events:
            by_user[event[0]].append((event[2], row, event))
    requests = {"train": {}, "validation": {}, "test": {}}
    for user, rows in by_user.items():
        if len(rows) < min_user_events:
            continue
        own = [event for _, _, event in sorted(rows)][-max_user_events:]
        for index, event in enumerate(own):
            split = _split(own, index, protocol, min_history, train_prefixes, cutoffs)
            if split:
                history = own[:index][-max_length:]
                requests[split][f"{user}:{index}"] = (event, history)
    return requests


def _split(own, index, protocol, min_history, train_prefixes, cutoffs):
    if index < min_history:
        return None
    if protocol == "time_split":
        train_end, validation_end = cutoffs
        time = own[index][2]
        if time <= train_end:
            return "train"
        return "validation" if time <= validation_end else "test"
    if len(own) < min_history + 3:
        return None
    if index == len(own) - 1:
        return "test"
    if index == len(own) - 2:
        return "validation"
    if index == len(own) - 3 or train_prefixes == "all":
        return "train"
    return None


def contained(requests: dict[str, tuple[Event, list[Event]]]) -> set[Event]:
    """Events that some request contains, as positive or history; for distinct events."""
    return {e for positive, history in requests.values() for e in (positive, *history)}
