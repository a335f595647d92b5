"""The shape of histories: their length, their features, the events that they hold."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Filter on the events that count as behaviour: their `column` holds one of `values`."""

    column: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """The behaviour sequence of a request: the most recent `max_length` events before it.

    Attributes:
        max_length: Largest length L, in events. Longer histories keep their most recent events.
        features: Names of the item features that each event carries, in the order in which the
            vertical convolutions of MISS see them. The item key comes first.
        behaviours: Filter on events, or None if every event counts.
    """

    max_length: int = 50
    features: tuple[str, ...]
    behaviours: Behaviours | None = None


def default_history(items: Sequence[str]) -> tuple[str, ...]:
    """Default order of item features in a history: the key, category_id, then by name.

    Args:
        items: Names of the item features that have one value or a set of values; the key first.
    """
    key, *other_names = items
    return (key, *sorted(other_names, key=lambda name: (name != "category_id", name)))
