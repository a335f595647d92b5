"""Sets of a log without the values beyond `max`, which examples do not hold; these are counted.

Encoding would cut the same values. Here they are cut in the log, so that statistics count what
requests hold.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.log import tables
from pipeline.requests.counting import VALUE, values_of_sets
from preprocessing import splits
from preprocessing.encoders import id_sets
from preprocessing.encoders.fitted import FittedEncoder

_Rows = TypeVar("_Rows", bound=Any)


def keep_values(
    rows: _Rows, encoders: Mapping[str, FittedEncoder], counters: collections.Counter[str]
) -> _Rows:
    """The rows of a partition with the values that examples hold of their sets.

    Args:
        rows: Rows as `LogKind.load` gives them.
        encoders: Encoder of each feature.
        counters: Counters to which the values are added that rows lose, if some request holds the
            row: `cut/<feature>`.
    """
    schema = rows.plan.schema
    many = [feature.name for feature in schema.encoded_features if feature.many is not None]
    if not many:
        return rows
    table = rows.table
    is_used = rows.first_use != splits.NONE
    for name in many:
        kept, cut = id_sets.keep_column(encoders[name], tables.one_array(table[name]))
        counters[f"cut/{name}"] += int(cut[is_used].sum())
        table = table.set_column(table.column_names.index(name), name, kept)
    return dataclasses.replace(rows, table=table)


def held_values(encoder: FittedEncoder, counts: pa.Table) -> pa.Table:
    """Counts of the values that examples hold of sets.

    Args:
        encoder: Encoder of a feature that has many values.
        counts: VALUE, sets or single values as `value_sets.join` makes them, and columns of counts.
    """
    kept, _ = id_sets.keep_column(encoder, tables.one_array(counts[VALUE]))
    return values_of_sets(counts.set_column(counts.column_names.index(VALUE), VALUE, kept))
