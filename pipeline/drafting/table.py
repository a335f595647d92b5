"""A draft as a table for people."""

from pipeline.drafting.decisions import Decision
from pipeline.drafting.draft import Draft
from preprocessing.errors import shown
from preprocessing.features.feature import Role

_TITLES = ("column", "role", "type", "encoder", "missing", "distinct", "reason")
_LONGEST_NAME = 40
_LONGEST_REASON = 160
_ON_THE_RIGHT = (4, 5)


def table(draft: Draft) -> str:
    """The decisions as lines of aligned columns, then a line for each doubt."""
    rows = [_TITLES, *map(_row, draft.decisions)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in _ON_THE_RIGHT else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if draft.schema is not None and draft.schema.timestamp is None:
        lines.append("no column of times: rows count in the order of the file")
    lines += [f"uncertain: {shown(doubt, 2 * _LONGEST_REASON)}" for doubt in draft.doubts]
    return "".join(f"{line}\n" for line in lines)


def summary(draft: Draft) -> str:
    """The columns by role, the keys first, as a part of a line."""
    names: dict[str, list[str]] = {}
    for decision in draft.decisions:
        role = decision.role.value if decision.role else "left out"
        names.setdefault(role, []).append(shown(decision.column.name, _LONGEST_NAME))
    if Role.TIMESTAMP.value not in names:
        names[Role.TIMESTAMP.value] = ["none, the order of rows"]
    return "; ".join(f"{role}: {', '.join(columns)}" for role, columns in names.items())


def _row(decision: Decision) -> tuple[str, ...]:
    """The cells of a column."""
    column = decision.column
    is_readable = not column.unreadable
    mark = " (uncertain)" if decision.doubt else ""
    rule = f"positive {decision.positive}" if decision.positive else ""
    return (
        shown(column.name, _LONGEST_NAME),
        f"{decision.role.value if decision.role else 'left out'}{mark}",
        decision.dtype.value if decision.role else "",
        f"{decision.encoder.kind}{', many' * bool(decision.many)}" if decision.encoder else rule,
        f"{column.missing:.1%}" if is_readable else "",
        f"{column.distinct:,}" if is_readable else "",
        shown(decision.reason, _LONGEST_REASON),
    )
