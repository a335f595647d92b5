"""Which column says what became of a row (a click, a rating), and which one names its request."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.drafting import features, names
from pipeline.drafting.columns import ALWAYS, Column, follows
from pipeline.drafting.decisions import Decision, left_out
from preprocessing.features.feature import DType, Role

_MOST_RATINGS, _HIGHEST_RATING = 101, 100
_POSITIVE_SHARE = 0.8


class Rule(NamedTuple):
    """How the values of a column become labels.

    Attributes:
        dtype: Type of the values.
        positive: Rule of the schema; None if the values are 0 and 1.
        meaning: The same in words.
    """

    dtype: DType
    positive: str | None
    meaning: str


def rule_of(column: Column) -> Rule | None:
    """The rule by which a column could be the label; None if its values are no outcomes."""
    if column.is_binary:
        return Rule(DType.INT64, None, "0 or 1")
    numbers = column.numbers
    if numbers is None or not 2 <= column.distinct <= _MOST_RATINGS:
        return None
    low, high = numbers.min(), numbers.max()
    if column.distinct == 2 and column.integers is not None:
        return Rule(DType.INT64, f">={high:.0f}", f"{low:.0f} or {high:.0f}, the larger one counts")
    steps = 2 * numbers
    if low < 0 or high > _HIGHEST_RATING or (steps != np.round(steps)).any():
        return None
    # 4 of 5, 8 of 10, 80 of 100.
    threshold = round(_POSITIVE_SHARE * high)
    meaning = f"ratings from {low:g} to {high:g}, of which {threshold} and more count as positive"
    return Rule(DType.FLOAT32, f">={threshold}", meaning)


def label(columns: Sequence[Column], user: Column, item: Column, has_time: bool) -> list[Decision]:
    """The label, if there is one, and other outcomes.

    Beside a label they are left out; without one they are features of events.

    Args:
        columns: Columns other than keys and time.
        user: Column of the user. What has one value for each user or each item is no outcome.
        item: Column of the item.
        has_time: Whether the log has times, without which the schema has no label.
    """
    outcomes = [
        column
        for column in columns
        if names.mentions(column.name, names.OUTCOME)
        and column.numbers is not None
        and not follows(column, user)
        and not follows(column, item)
    ]
    candidates = [c for c in outcomes if _rank(c) < len(names.LABELS) and rule_of(c)]
    if not candidates:
        rest = [column for column in columns if column not in outcomes]
        return [*map(features.known_later, outcomes), *_possible_label(rest, user, item)]
    chosen = min(candidates, key=lambda column: (_rank(column), column.name))
    others = [column for column in outcomes if column is not chosen]
    decisions = [
        left_out(column, f"an outcome of the row like {chosen.name}, which it would give away")
        for column in others
    ]
    rule = rule_of(chosen)
    assert rule is not None
    if not has_time:
        doubt = f"{chosen.name} is a label, but a label needs a column of times: add one to the log"
        reason = f"{rule.meaning}, but a label needs times, which this log lacks"
        return [*decisions, Decision(column=chosen, role=None, reason=reason, doubt=doubt)]
    rivals = [column.name for column in candidates if column is not chosen]
    doubt = ""
    if rivals:
        doubt = (
            f"the label could be {chosen.name} or {', '.join(rivals)}: give the outcome to predict "
            'the role "label"'
        )
    decision = Decision(
        column=chosen,
        role=Role.LABEL,
        reason=f"its name says so; {rule.meaning}",
        dtype=rule.dtype,
        positive=rule.positive,
        doubt=doubt,
    )
    return [decision, *decisions]


def _rank(column: Column) -> int:
    """Place of the first word of a name among those of labels."""
    return min(
        (i for i, word in enumerate(names.LABELS) if names.mentions(column.name, {word})),
        default=len(names.LABELS),
    )


def _possible_label(columns: Sequence[Column], user: Column, item: Column) -> list[Decision]:
    """Columns of 0 and 1 that describe neither user nor item: one of them may be the label."""
    decisions = []
    for column in columns:
        if column.is_binary and not follows(column, user) and not follows(column, item):
            doubt = (
                f'{column.name} may be the label: if so, give it the role "label"; if it was '
                'known before the row happened, the role "context"'
            )
            decisions.append(
                Decision(
                    column=column,
                    role=None,
                    reason="0 and 1, and neither users nor items have one value: maybe an outcome",
                    doubt=doubt,
                )
            )
    return decisions


def request(columns: Sequence[Column], user: Column, has_label: bool) -> Decision | None:
    """The column whose values rows of one request share; None if no column does.

    Args:
        columns: Columns other than keys, time and label.
        user: Column of the user: a request has one.
        has_label: Whether the log has a label, without which the schema has no requests.
    """
    candidates = [
        column
        for column in columns
        if names.mentions(column.name, names.REQUEST)
        and column.distinct > 1
        and not column.is_own_per_row
        and not column.missing
        and follows(user, column, ALWAYS)
    ]
    if not candidates:
        return None
    chosen = min(candidates, key=lambda column: (-column.distinct, column.name))
    if not has_label:
        return left_out(chosen, "names requests, which only a log with a label has")
    return Decision(
        column=chosen,
        role=Role.REQUEST,
        reason=f"rows that share one of its {chosen.distinct:,} values have one user",
    )
