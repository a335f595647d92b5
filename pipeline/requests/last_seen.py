"""When each value of a vocabulary was last seen, and which values are thereby expired.

A build with `expire_days` keeps the time of the last event of every value, whether or not requests
hold the event. Values that no event has had in the days before its requests begin, and none since,
are expired: they are out of vocabulary, and items among them are no negatives.

Shapes: E events, V distinct values.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.log import tables
from pipeline.log.row_checks import TIME
from pipeline.requests import counting
from pipeline.requests.base import Base
from pipeline.requests.counting import VALUE
from pipeline.requests.events import Plan, in_log
from preprocessing import time_units
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from preprocessing.values import value_sets

_DAY_SECONDS = 86_400


def features(schema: Schema) -> list[Feature]:
    """The features whose values can expire: those with a vocabulary."""
    return [f for f in schema.encoded_features if isinstance(f.encoder, Vocabulary)]


def of_rows(rows: pa.Table, schema: Schema) -> Iterator[tuple[str, pa.Table]]:
    """Yields for each feature its values in the log, VALUE, with the time of the last, TIME.

    Args:
        rows: Rows of a partition; those that a base keeps are left out.
        schema: Schema of the log.
    """
    rows = rows.filter(pa.array(in_log(rows))).combine_chunks()
    for feature in features(schema):
        yield feature.name, _of_column(feature, tables.one_array(rows[feature.name]), rows[TIME])


def _of_column(feature: Feature, column: pa.Array, times: pa.ChunkedArray) -> pa.Table:
    is_there = pc.is_valid(column)
    values, codes_E = tables.distinct(column.filter(is_there))
    last_V = np.full(len(values), np.iinfo(np.int64).min)
    np.maximum.at(last_V, codes_E, times.filter(is_there).to_numpy())
    values = tables.decoded(values)
    if feature.many is not None:
        values, sizes = value_sets.split(values)
        last_V = np.repeat(last_V, sizes)
    return merge(pa.table({VALUE: values, TIME: last_V}))


def merge(seen: pa.Table) -> pa.Table:
    """The latest time of each value, by value."""
    merged = seen.group_by(VALUE).aggregate([(TIME, "max")])
    return merged.select([VALUE, f"{TIME}_max"]).rename_columns([VALUE, TIME]).sort_by(VALUE)


def so_far(plan: Plan, feature: Feature) -> pa.Table:
    """When each value was last seen, here and in all data sets below: VALUE, TIME, by value."""
    seen = counting.read(plan.seen(feature.name))
    if plan.base is None:
        return seen
    earlier = plan.base.seen(feature.name)
    if earlier is None:
        earlier = _at_the_latest(plan.base, plan.schema, feature)
    return merge(pa.concat_tables([earlier.cast(seen.schema), seen]))


def _at_the_latest(base: Base, schema: Schema, feature: Feature) -> pa.Table:
    """The values of a base that kept no times, as if all had been seen when its log ended."""
    values = [pc.cast(base.counts(feature.name)[VALUE], pa.large_string())]
    words = base.encoders(schema)[feature.name].vocabulary  # type: ignore[attr-defined]
    values.append(words.cast(pa.large_string()))
    if feature == schema.item_key:
        values.append(base.items()[feature.name].cast(pa.large_string()))
    column = pa.chunked_array([chunk for one in values for chunk in _chunks(one)]).unique()
    return pa.table({VALUE: column, TIME: np.full(len(column), base.watermark)})


def _chunks(values: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def expired(plan: Plan, feature: Feature) -> pa.Array | None:
    """The values of a feature that are expired; None if none can be.

    Args:
        plan: Plan of a build that has counted its training values.
        feature: Any feature.
    """
    arguments = plan.arguments
    is_kept = isinstance(feature.encoder, Vocabulary)
    if not arguments.expire_days or plan.requests_from is None or not is_kept:
        return None
    ticks = time_units.ticks_per_second(plan.schema)
    since = plan.requests_from - arguments.expire_days * _DAY_SECONDS * ticks
    seen = so_far(plan, feature)
    return tables.one_array(seen.filter(pc.less(seen[TIME], since))[VALUE])
