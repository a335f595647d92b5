"""Impression logs by the rules of docs/schema.md, one row after the other.

Rows are (user, item, time, request, label) in the order of the log; those of a log without
requests get them from `with_own_requests`.
"""

import collections


def requests_by_user(rows):
    """user -> [(request time, rows)] in the order of time and, at one time, of the log."""
    by_request = collections.defaultdict(list)
    for row in rows:
        by_request[row[3]].append(row)
    by_user = collections.defaultdict(list)
    for group in by_request.values():  # in the order of their first rows
        by_user[group[0][0]].append((min(row[2] for row in group), group))
    return {user: sorted(found, key=lambda pair: pair[0]) for user, found in by_user.items()}


def with_own_requests(rows):
    """The rows, each with a request of its own: its user and its place among the user's rows."""
    place = {}
    for user in {row[0] for row in rows}:
        own = [n for n, row in enumerate(rows) if row[0] == user]
        own.sort(key=lambda n: rows[n][2])
        place |= {n: f"{user}:{number}" for number, n in enumerate(own)}
    return [(*row[:3], place[n], row[4]) for n, row in enumerate(rows)]


def history(rows, user, time, max_length):
    """Clicked rows strictly before a time, oldest first."""
    clicks = [row for row in rows if row[0] == user and row[4] == 1 and row[2] < time]
    clicks.sort(key=lambda row: row[2])
    return clicks[-max_length:]


def split_requests(
    rows,
    protocol,
    max_length,
    min_history=1,
    train_prefixes="last",
    cutoffs=None,
    aims_at_all=False,
):
    """split -> {request: (user, time, rows, history)}; `aims_at_all`: not at clicks alone."""
    splits = {"train": {}, "validation": {}, "test": {}}
    for user, requests in requests_by_user(rows).items():
        clicked = [
            n
            for n, (_, group) in enumerate(requests)
            if aims_at_all or any(row[4] for row in group)
        ]
        for number, (time, group) in enumerate(requests):
            seen = history(rows, user, time, len(rows))
            if protocol == "time_split":
                split = next(
                    (name for name, end in zip(splits, cutoffs, strict=False) if time <= end),
                    "test",
                )
                split = split if len(seen) >= min_history else None
            else:
                split = _leave_last_out(
                    rows, user, requests, clicked, number, min_history, train_prefixes
                )
            if split:
                splits[split][group[0][3]] = (user, time, group, seen[-max_length:])
    return splits


def _leave_last_out(rows, user, requests, clicked, number, min_history, train_prefixes):
    if len(clicked) < 3:
        return None

    def enough(n):
        return len(history(rows, user, requests[n][0], len(rows))) >= min_history

    if not enough(clicked[-3]):
        return None
    if number in clicked[-2:]:
        return "validation" if number == clicked[-2] else "test"
    if train_prefixes == "all":
        return "train" if number < clicked[-2] and enough(number) else None
    return "train" if number == clicked[-3] else None
