"""The whole job by brute force: rows, filters, cut-offs, requests, and what follows from them.

An event is (user, item, time, category, row): rows make equal events distinct.
"""

import collections

from tests.reference import windows

SPLITS = ("train", "validation", "test")


class NothingLeftError(Exception):
    """The job must refuse."""


class Job:
    """What the job must make of a log.

    Attributes:
        requests: Split to request id to (positive, history).
        kept: User to the events that survive the filters.
        filtered: Rows taken out or unused, by rule.
        catalogues: Split to item to the event whose features the item has in that split.
    """

    def __init__(
        self, events, protocol, max_length, negatives, split_fraction, validation_fraction,
        min_history=1, train_prefixes="last", only_available=False, **filters,
    ):  # fmt: skip
        self._only_available = only_available
        self.kept, self.filtered = windows.keep(events, **filters)
        times = [event[2] for own in self.kept.values() for event in own]
        if not times:
            raise NothingLeftError
        cutoffs = None
        if protocol == "time_split":
            end = windows.cutoff(times, split_fraction)
            train_end = windows.cutoff([t for t in times if t <= end], 1 - validation_fraction)
            cutoffs = (train_end, end)
            if not train_end < end < max(times):
                raise NothingLeftError
        wanted = windows.split_requests(
            events, protocol, max_length, min_history, train_prefixes, cutoffs, **filters
        )
        self.requests = wanted
        while True:
            self._fill_catalogues()
            remaining = {
                split: {
                    request: content
                    for request, content in requests.items()
                    if len(self.drawable(split, content[0])) >= negatives
                }
                for split, requests in self.requests.items()
            }
            if remaining == self.requests:
                break
            self.requests = remaining
        if not self.requests["train"]:
            raise NothingLeftError
        self.left_out = {split: len(wanted[split]) - len(self.requests[split]) for split in SPLITS}
        self._count_unused(wanted)

    def drawable(self, split, positive):
        """Items that may be negatives of a request."""
        items = set(self.catalogues[split])
        if self._only_available:
            items = {event[1] for event in self.appeared(split, positive)}
        return items - {event[1] for event in self.kept[positive[0]]}

    def appeared(self, split, positive):
        """Events of a split's catalogue that come no later in the log than a positive."""
        place = (positive[2], positive[4])
        return [event for event in self._seen[split] if (event[2], event[4]) <= place]

    def used(self):
        """Events that some request holds."""
        return set().union(*map(windows.contained, self.requests.values()))

    def first_use(self):
        """Event to the first split whose requests hold it."""
        return {
            event: split
            for split in reversed(SPLITS)
            for event in windows.contained(self.requests[split])
        }

    def values(self, split, key):
        """The raw values that requests of a split hold under a key of the examples."""
        requests = self.requests[split].values()
        if key == "user_id":
            return [positive[0] for positive, _ in requests]
        if key == "hour":
            return [positive[2] for positive, _ in requests]
        kind, name = key.split("/")
        field = {"item_id": 1, "category_id": 3}[name]
        if kind == "history":
            return [event[field] for _, history in requests for event in history]
        return [self.catalogues[split][positive[1]][field] for positive, _ in requests]

    def vocabulary_values(self, name):
        """The values of training requests, each event once: histories' own, candidates' else."""
        if name == "user_id":
            return self.values("train", name)
        field = {"item_id": 1, "category_id": 3}[name]
        requests = self.requests["train"].values()
        in_history = {event for _, history in requests for event in history}
        catalogue = self.catalogues["train"]
        return [event[field] for event in in_history] + [
            catalogue[positive[1]][field] for positive, _ in requests if positive not in in_history
        ]

    def _fill_catalogues(self):
        self.catalogues, self._seen, seen = {}, {}, set()
        for split in SPLITS:
            seen |= windows.contained(self.requests[split])
            in_order = sorted(seen, key=lambda event: (event[2], event[4]))
            self._seen[split] = in_order
            self.catalogues[split] = {event[1]: event for event in in_order}

    def _count_unused(self, wanted):
        used = self.used()
        reachable = set().union(*map(windows.contained, wanted.values()))
        has_request = {content[0][0] for some in wanted.values() for content in some.values()}
        rules = collections.Counter()
        for user, own in self.kept.items():
            for event in own:
                if event in reachable:
                    rules["too_few_negatives"] += event not in used
                else:
                    rules["max_length" if user in has_request else "too_few_events"] += 1
        self.filtered += rules
