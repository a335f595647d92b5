"""A Beam job that handles a log row by row, as tutorials do: the baseline of `build_examples`.

It writes the same requests: those of the same protocol, with a sampled negative that is none of
the user's own items, shuffled candidates, and as many shards. Every line is parsed by itself, every
event is an element that is shuffled by user, every user is sorted by itself and every example is a
protobuf message. It leaves out what would make it slower: schema, validation, vocabularies (ids are
hashed), a catalogue for each split, statistics, the manifest.
"""

import csv
import pathlib
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from models.keras import tf

Item = tuple[str, str]
"""Item, category."""
Event = tuple[int, Item]
"""Time, item."""

_MAX_LENGTH = 50
_BUCKETS = 1 << 20
_SHARDS = {"train": 16, "validation": 4, "test": 4}
_PERCENTILES = 101
_TRAIN_END, _VALIDATION_END = 72, 80  # time_split: 80% of the rows, a tenth of them validation


def build(log: str, output: pathlib.Path, protocol: str) -> None:
    """Writes the examples of a canonical CSV log.

    Args:
        log: A file with the columns user_id, item_id, category_id, timestamp.
        output: Directory of the shards.
        protocol: `leave_last_out` (one train positive per user) or `time_split`.
    """
    with beam.Pipeline(FnApiRunner(), PipelineOptions([])) as pipeline:
        events = (
            pipeline
            | "Read" >> beam.io.ReadFromText(log, skip_header_lines=1)
            | "Parse" >> beam.Map(_parse)
        )
        catalogue = events | "Items" >> beam.MapTuple(lambda _, event: event[1]) | beam.Distinct()
        percentiles = (
            events
            | "Times" >> beam.MapTuple(lambda _, event: event[0])
            | beam.ApproximateQuantiles.Globally(_PERCENTILES)
        )
        examples = (
            events
            | "GroupByUser" >> beam.GroupByKey()
            | "Encode"
            >> beam.FlatMap(
                _examples,
                protocol,
                beam.pvalue.AsList(catalogue),
                beam.pvalue.AsSingleton(percentiles),
            )
        )
        for number, (name, shards) in enumerate(_SHARDS.items()):
            _ = (
                examples
                | f"Only {name}" >> beam.Filter(lambda example, n=number: example[0] == n)
                | f"Values {name}" >> beam.Values()
                | f"Write {name}"
                >> beam.io.WriteToTFRecord(
                    str(output / name), file_name_suffix=".tfrecord.gz", num_shards=shards
                )
            )


def _parse(line: str) -> tuple[str, Event]:
    user, item, category, timestamp = next(csv.reader([line]))
    return user, (int(timestamp), (item, category))


def _examples(
    grouped: tuple[str, Iterable[Event]],
    protocol: str,
    catalogue: Sequence[Item],
    percentiles: Sequence[int],
) -> Iterator[tuple[int, bytes]]:
    """The requests of a user: split, serialised example."""
    user, events = grouped
    ordered = sorted(events)
    own = {item for _, item in ordered}
    for place in range(1, len(ordered)):
        time, positive = ordered[place]
        if protocol == "time_split":
            split = sum(time > percentiles[end] for end in (_TRAIN_END, _VALIDATION_END))
        else:
            split = place - len(ordered) + 3
            if split < 0 or len(ordered) < 4:
                continue
        generator = random.Random(f"{user}:{place}")
        negative = generator.choice(catalogue)
        while negative in own:
            negative = generator.choice(catalogue)
        candidates = [positive, negative]
        generator.shuffle(candidates)
        history = ordered[max(0, place - _MAX_LENGTH) : place]
        yield split, _example(user, place, time, candidates, positive, history)


def _example(
    user: str,
    place: int,
    time: int,
    candidates: Sequence[Item],
    positive: Item,
    history: Sequence[Event],
) -> bytes:
    context = {
        "user_id": _ints([_id(user)]),
        "timestamp": _ints([time]),
        "request_id": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[f"{user}:{place}".encode()])
        ),
        "request/user": tf.train.Feature(bytes_list=tf.train.BytesList(value=[user.encode()])),
        "request/index": _ints([place]),
        "candidate/item_id": _ints([_id(item) for item, _ in candidates]),
        "candidate/category_id": _ints([_id(category) for _, category in candidates]),
        "label": _ints([int(candidate == positive) for candidate in candidates]),
    }
    steps = {
        "history/timestamp": [then for then, _ in history],
        "history/item_id": [_id(item) for _, (item, _) in history],
        "history/category_id": [_id(category) for _, (_, category) in history],
    }
    lists = {
        name: tf.train.FeatureList(feature=[_ints([value]) for value in values])
        for name, values in steps.items()
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature=context),
        feature_lists=tf.train.FeatureLists(feature_list=lists),
    ).SerializeToString()


def _id(value: str) -> int:
    return zlib.crc32(value.encode()) % _BUCKETS


def _ints(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
