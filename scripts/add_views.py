"""Adds events that say nothing to a generated log, and a column that says which they are.

    python -m pipeline.synthesize --output=log.parquet --users=8000
    python scripts/add_views.py log.parquet log_with_views.parquet

Every event of the log becomes a "buy". Before the last three buys of each user, as many items that
the user never buys, drawn uniformly, are strewn among the buys as "view". What a user buys next
depends on the buys alone: a model that cannot tell the kinds apart has to read twice as many events
of which half are noise. The table beyond/events measures what it gains from knowing them.
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet

_LAST = 3
_SEED = 1


def with_views(log: pa.Table) -> pa.Table:
    """The log with views.

    Args:
        log: Columns user_id, item_id, category_id, timestamp, sorted by user and time.
    """
    rng = np.random.default_rng(_SEED)
    columns = {name: log[name].to_pylist() for name in log.column_names}
    categories = dict(zip(columns["item_id"], columns["category_id"], strict=True))
    items = sorted(categories)
    by_user: dict[str, list[tuple[int, str, str]]] = {}
    for user, item, time in zip(
        columns["user_id"], columns["item_id"], columns["timestamp"], strict=True
    ):
        by_user.setdefault(user, []).append((time, item, "buy"))
    rows: list[tuple[str, str, str, int, str]] = []
    for user, buys in by_user.items():
        buys.sort()
        bought = {item for _, item, _ in buys}
        end = buys[max(0, len(buys) - _LAST)][0]
        times = rng.integers(buys[0][0], end, max(0, len(buys) - _LAST)) if end > buys[0][0] else []
        views = []
        for time in times:
            item = items[rng.integers(len(items))]
            while item in bought:
                item = items[rng.integers(len(items))]
            views.append((int(time), item, "view"))
        rows += [
            (user, item, categories[item], time, kind) for time, item, kind in sorted(buys + views)
        ]
    names = ("user_id", "item_id", "category_id", "timestamp", "action")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


if __name__ == "__main__":
    pyarrow.parquet.write_table(with_views(pyarrow.parquet.read_table(sys.argv[1])), sys.argv[2])
