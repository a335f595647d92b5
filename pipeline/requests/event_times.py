"""What follows from the times of a log: hour and weekday of requests, gaps of their events.

The hour and the weekday are columns of the rows. A gap belongs to an event and the request that
sees it, so gaps are computed for the histories of some requests at a time. The event before another
is the one before it in the same history: the oldest event of a history has none, whether or not its
user did something before. A served model, which sees no more than the history, does the same.

Shapes: R requests, S steps of their histories, one history after the other.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.requests.counting import VALUE
from preprocessing import splits, time_units
from preprocessing.example_keys import history_key
from preprocessing.features import derived
from preprocessing.features.derived import Derived
from preprocessing.features.encoder_specs import Bucketised
from preprocessing.features.feature import Feature
from preprocessing.schema import Schema
from preprocessing.sequences import Windows

_BLOCK_REQUESTS = 8192


class Timed(Protocol):
    """The rows of a partition, as far as gaps need them."""

    @property
    def timestamps(self) -> np.ndarray:
        """Time of everything that can be a request, int64."""

    @property
    def event_times(self) -> np.ndarray:
        """Time of each row, int64."""

    @property
    def split(self) -> np.ndarray:
        """Split of everything that can be a request, int8, or NONE."""

    def windows(self, requests: np.ndarray) -> Windows:
        """The histories of some requests, as rows."""


def with_request_features(rows: pa.Table, schema: Schema, times: np.ndarray) -> pa.Table:
    """The rows with a column for each hour and weekday of the schema.

    Args:
        rows: Rows of a partition.
        schema: Schema of the log.
        times: Time of the request of each row.
    """
    ticks = time_units.ticks_per_second(schema)
    for feature in schema.features:
        if feature.derived is not None and not feature.is_gap:
            values = derived.of_request(feature.derived, times, ticks)
            rows = rows.append_column(feature.name, pa.array(values.astype(np.int64)))
    return rows


def gaps(rows: Timed, schema: Schema, requests: np.ndarray) -> dict[str, pa.Array]:
    """The gaps of the steps of some requests by feature, int64 [S] in seconds, null if undefined.

    Args:
        rows: Rows of a partition.
        schema: Schema of the log.
        requests: Requests as `rows` numbers them, int64 [R].
    """
    features = [feature for feature in schema.event_features if feature.is_gap]
    if not features:
        return {}
    windows, ticks = rows.windows(requests), time_units.ticks_per_second(schema)
    times_S = rows.event_times[windows.rows]
    request_times_S = np.repeat(rows.timestamps[requests], windows.lengths)
    is_oldest_S = np.zeros(len(times_S), bool)
    is_oldest_S[windows.row_splits[:-1][windows.lengths > 0]] = True
    previous_S = np.concatenate([times_S[:1], times_S[:-1]])
    by_kind = {
        Derived.GAP_TO_REQUEST: pa.array(derived.gap(times_S, request_times_S, ticks)),
        Derived.GAP_TO_PREVIOUS: pa.array(
            derived.gap(previous_S, times_S, ticks), mask=is_oldest_S
        ),
    }
    return {feature.name: by_kind[feature.derived] for feature in features if feature.derived}


def count_gaps(rows: Timed, schema: Schema) -> Iterator[tuple[str, pa.Table]]:
    """Yields the counts of each gap by key of an example: VALUE, one column per split.

    Gaps of one interval count as its lower end, so that counts are few however long the log is.

    Args:
        rows: Rows of a partition.
        schema: Schema of the log.
    """
    features = [feature for feature in schema.event_features if feature.is_gap]
    counts = {feature.name: _no_counts(feature) for feature in features}
    for split in range(len(splits.SPLITS) if features else 0):
        requests = np.flatnonzero(rows.split == split)
        for start in range(0, len(requests), _BLOCK_REQUESTS):
            columns = gaps(rows, schema, requests[start : start + _BLOCK_REQUESTS])
            for feature in features:
                intervals = _intervals(feature, columns[feature.name])
                counts[feature.name][split] += np.bincount(
                    intervals, minlength=counts[feature.name].shape[1]
                )
    for feature in features:
        held = np.flatnonzero(counts[feature.name].sum(axis=0))
        lower_ends = np.array([0, 0, *_boundaries(feature)], np.int64)
        values = pa.array(lower_ends[held], mask=held == 0)
        by_split = dict(zip(splits.SPLITS, counts[feature.name][:, held], strict=True))
        yield history_key(feature.name), pa.table({VALUE: values, **by_split})


def _boundaries(feature: Feature) -> tuple[float, ...]:
    assert isinstance(feature.encoder, Bucketised)
    return feature.encoder.boundaries


def _no_counts(feature: Feature) -> np.ndarray:
    """Counts of 0 by split, for undefined gaps and each interval."""
    return np.zeros((len(splits.SPLITS), len(_boundaries(feature)) + 2), np.int64)


def _intervals(feature: Feature, column: pa.Array) -> np.ndarray:
    """Number of the interval of each gap, from 1; 0 for undefined gaps."""
    seconds = column.fill_null(0).to_numpy()
    intervals = 1 + np.searchsorted(_boundaries(feature), seconds, side="right")
    return np.where(column.is_null().to_numpy(zero_copy_only=False), 0, intervals)
