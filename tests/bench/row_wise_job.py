"""A Beam job that handles a log row by row, as tutorials do: the baseline of `build_examples`.

It does less than `build_examples`: no schema, no validation, no vocabularies, no negatives, no
manifest. Every line is parsed by itself, every event is an element that is shuffled by user, every
user is sorted by itself and every example is a protobuf message.
"""

import csv
import pathlib
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from models.keras import tf

Event = tuple[int, str, str]
"""Time, item, category."""

_MAX_LENGTH = 50
_POSITIVES = 3  # the last events of each user: train, validation and test of leave_last_out
_BUCKETS = 1 << 20


def build(log: str, output: pathlib.Path) -> None:
    """Writes the examples of a canonical CSV log.

    Args:
        log: A file with the columns user_id, item_id, category_id, timestamp.
        output: Directory of the shards.
    """
    with beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
        _ = (
            pipeline
            | "Read" >> beam.io.ReadFromText(log, skip_header_lines=1)
            | "Parse" >> beam.Map(_parse)
            | "GroupByUser" >> beam.GroupByKey()
            | "Encode" >> beam.FlatMapTuple(_examples)
            | "Write" >> beam.io.WriteToTFRecord(str(output / "part"), file_name_suffix=".gz")
        )


def _parse(line: str) -> tuple[str, Event]:
    user, item, category, timestamp = next(csv.reader([line]))
    return user, (int(timestamp), item, category)


def _examples(user: str, events: Iterable[Event]) -> Iterator[bytes]:
    """The requests of a user, serialised."""
    ordered = sorted(events)
    for place in range(max(1, len(ordered) - _POSITIVES), len(ordered)):
        time, item, category = ordered[place]
        history = ordered[max(0, place - _MAX_LENGTH) : place]
        context = {
            "user_id": _ints([_id(user)]),
            "timestamp": _ints([time]),
            "candidate/item_id": _ints([_id(item)]),
            "candidate/category_id": _ints([_id(category)]),
            "label": _ints([1]),
        }
        steps = {
            "history/timestamp": [event[0] for event in history],
            "history/item_id": [_id(event[1]) for event in history],
            "history/category_id": [_id(event[2]) for event in history],
        }
        lists = {
            name: tf.train.FeatureList(feature=[_ints([value]) for value in values])
            for name, values in steps.items()
        }
        yield tf.train.SequenceExample(
            context=tf.train.Features(feature=context),
            feature_lists=tf.train.FeatureLists(feature_list=lists),
        ).SerializeToString()


def _id(value: str) -> int:
    return zlib.crc32(value.encode()) % _BUCKETS


def _ints(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
