"""Brute-force protocols: loops over users and events, to the letter of the description.

An event is a tuple (user, item, timestamp, ...); its place in the list is its row. Ties in time are
broken by row. Equal rows are different events: what the log says twice happened twice.
"""

import collections
import itertools
import math

Event = tuple  # of user, item, timestamp and anything else


def cutoff(times, fraction):
    """The earliest time t of which at least `fraction` of all times are <= t."""
    wanted = math.ceil(fraction * len(times))
    return next(t for t in sorted(set(times)) if sum(time <= t for time in times) >= wanted)


def keep(events, min_user_events=1, min_item_events=1, max_user_events=10_000, core_filter="once"):
    """Events that survive the filters, by user in order of time; rows taken out by rule."""
    filtered = collections.Counter()
    rows = [(event[0], event[2], row, event) for row, event in enumerate(events)]
    for number in itertools.count(1):
        before = len(rows)
        in_rounds = core_filter == "fixed_point" and min_item_events > 1
        suffix = f"/round_{number:02d}" if in_rounds else ""
        for rule, field, least in (
            ("min_item_events", 1, min_item_events),
            ("min_user_events", 0, min_user_events),
        ):
            counts = collections.Counter(row[3][field] for row in rows)
            kept = [row for row in rows if counts[row[3][field]] >= least]
            filtered[rule + suffix] += len(rows) - len(kept)
            rows = kept
        if not in_rounds or len(rows) == before:
            break
    by_user = collections.defaultdict(list)
    for user, *_, event in sorted(rows, key=lambda row: row[:3]):
        by_user[user].append(event)
    for user, own in by_user.items():
        filtered["max_user_events"] += max(0, len(own) - max_user_events)
        by_user[user] = own[-max_user_events:]
    return by_user, +filtered


def split_requests(
    events: list[Event],
    protocol: str,
    max_length: int,
    min_history: int = 1,
    train_prefixes: str = "last",
    cutoffs: tuple[int, int] | None = None,
    **filters,
) -> dict[str, dict[str, tuple[Event, list[Event]]]]:
    """Split to request id to (positive, history)."""
    requests = {"train": {}, "validation": {}, "test": {}}
    for user, own in keep(events, **filters)[0].items():
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
