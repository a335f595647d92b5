"""The transforms of the job, each on a few rows; whole builds are tested elsewhere."""

import collections
import json

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.arguments import BuildArguments
from pipeline.datasets import read_canonical
from pipeline.job import core_filter, merging, pipelines, reading, time_cutoffs
from pipeline.job.pipelines import COUNTERS, ITEMS, PERIODS, RECORDS, ROWS, TIMES, VALUES
from pipeline.job.sink import WriteShards
from pipeline.log import readers, tables
from pipeline.log.input_files import list_inputs
from pipeline.log.raw_batch import InputFile
from pipeline.log.row_checks import REQUEST, validate
from pipeline.requests import counting, impressions
from pipeline.requests.click_log import ClickLog
from pipeline.requests.counting import COUNT, VALUE
from pipeline.requests.encoding import KEY, RECORD
from pipeline.requests.events import Plan
from pipeline.requests.impression_log import ImpressionLog
from pipeline.requests.impressions import REQUEST_TIME
from preprocessing import splits
from preprocessing.encoders import encoder_files, fitting
from preprocessing.schema import Schema
from preprocessing.schema_inference import infer_schema
from preprocessing.storage.tfrecord import read_records
from tests.helpers.impression_logs import VOCABULARY
from tests.helpers.small_logs import write_log

CLICKS = {
    "user_id": ["u1", "u1", "u1", "u1", "u2"],
    "item_id": ["a", "b", "c", "d", "a"],
    "timestamp": [40, 10, 30, 20, 15],
}
CLICK_SCHEMA = infer_schema(list(CLICKS))

IMPRESSIONS = {
    "user_id": ["u1", "u1", "u1", "u1", "u1", "u1"],
    "item_id": ["a", "b", "a", "c", "b", "c"],
    "time": [1, 1, 2, 2, 3, 4],
    "session": ["r1", "r1", "r2", "r2", "r3", "r4"],
    "click": [1, 0, 0, 1, 1, 1],
}
_FEATURES = [
    {"name": "user_id", "role": "user", "dtype": "string", "encoder": VOCABULARY},
    {"name": "item_id", "role": "item", "dtype": "string", "encoder": VOCABULARY},
    {"name": "time", "role": "timestamp", "dtype": "int64"},
    {"name": "session", "role": "request", "dtype": "string"},
    {"name": "click", "role": "label", "dtype": "int64"},
]
IMPRESSION_SCHEMA = Schema.from_json({"features": _FEATURES})
LABELLED_ROWS_SCHEMA = Schema.from_json(
    {"features": [feature for feature in _FEATURES if feature["role"] != "request"]}
)


CLICK_LOG = ClickLog(CLICK_SCHEMA)
IMPRESSION_LOG = ImpressionLog(IMPRESSION_SCHEMA)
LABELLED_ROWS = ImpressionLog(LABELLED_ROWS_SCHEMA)


def _pipeline():
    return test_pipeline.TestPipeline(runner=FnApiRunner())


def _plan(directory, schema=CLICK_SCHEMA, **arguments):
    arguments = BuildArguments(input="", output=str(directory), num_shards=2, **arguments)
    plan = Plan(arguments, schema, num_partitions=4)
    for stage in ("read", "time", "fit", "core_01", "shards"):  # as the runner makes them
        (plan.work / stage).mkdir(parents=True)
    return plan


def _log(directory, rows):
    """The one part of a log."""
    (file,) = list_inputs(write_log(directory / "log.csv", rows))
    (part,) = readers.ranges(file)
    return part


def _dealt(directory, plan, rows):
    """A reference to validated rows."""
    (batch,) = read_canonical(_log(directory, rows), plan.schema, None)
    (reference,) = tables.write_parts(
        directory / "dealt.arrow", [validate(batch, plan.schema).events]
    )
    return reference


def _write_sorted(directory, plan, kind, rows):
    """Writes the rows as partition 0."""
    rows, _ = kind.sort(tables.read_part(_dealt(directory, plan, rows)), deduplicate=False)
    tables.write(plan.partition(0), rows)


def _rows(reference, *names):
    table = tables.read_part(reference)
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _counts(data):
    table = tables.from_bytes(data)
    return dict(zip(table[VALUE].to_pylist(), table[COUNT].to_pylist(), strict=True))


def test_rows_are_read_checked_and_dealt_out_by_user(tmp_path):
    plan = _plan(tmp_path / "data")
    part = _log(tmp_path, CLICKS | {"timestamp": ["40", "10", "30", "20", "noon"]})
    with _pipeline() as pipeline:
        read = (
            pipeline
            | beam.Create([part])
            | beam.ParDo(reading.ReadEvents(plan, CLICK_LOG)).with_outputs(COUNTERS, main=ROWS)
        )
        users = read[ROWS] | beam.MapTuple(lambda _, reference: _rows(reference, "user_id"))
        assert_that(users, equal_to([[("u1",)] * 4]), "dealt")
        names = ("read", "file/0/read", "file/0/rejected")
        numbers = read[COUNTERS] | beam.Map(lambda counters: [counters[name] for name in names])
        assert_that(numbers, equal_to([[5, 5, 1]]), "counters")
    (rejected,) = (tmp_path / "data" / "rejected").iterdir()
    assert [json.loads(line)["line"] for line in rejected.read_text().splitlines()] == [6]
    assert len(list((plan.work / "read").iterdir())) == 1  # the progress that the driver shows


def test_rows_of_a_request_meet_in_one_partition_and_agree(tmp_path):
    plan = _plan(tmp_path / "data", IMPRESSION_SCHEMA)
    assert IMPRESSION_LOG.deal_key == REQUEST
    rows = IMPRESSIONS | {
        "user_id": ["u1", "u2", "u1", "u1", "u1", "u1"],
        "time": [5, 1, 3, 2, 3, 4],
    }
    with _pipeline() as pipeline:
        checked = (
            pipeline
            | beam.Create([(3, [_dealt(tmp_path, plan, rows)])])
            | beam.ParDo(
                reading.CheckRequests(plan, {0: InputFile("log.csv", 0, "csv", 1)})
            ).with_outputs(COUNTERS, main=ROWS)
        )
        kept = checked[ROWS] | beam.FlatMap(lambda dealt: _rows(dealt[1], REQUEST, REQUEST_TIME))
        expected = [("r1", 5), ("r2", 2), ("r2", 2), ("r3", 3), ("r4", 4)]
        assert_that(kept, equal_to(expected), "rows")
        reason = "rejected/column 'user_id': another value than its request"
        counted = checked[COUNTERS]
        assert_that(counted, equal_to([{reason: 1, "file/0/rejected": 1}]), "counters")


@pytest.mark.parametrize(
    ("kind", "schema", "log", "items"),
    [
        (CLICK_LOG, CLICK_SCHEMA, CLICKS, ["b", "d", "c", "a", "a"]),
        (IMPRESSION_LOG, IMPRESSION_SCHEMA, IMPRESSIONS, ["a", "b", "a", "c", "b", "c"]),
        (LABELLED_ROWS, LABELLED_ROWS_SCHEMA, IMPRESSIONS, ["a", "b", "a", "c", "b", "c"]),
    ],
    ids=["clicks", "impressions", "labelled rows"],
)
def test_partitions_are_sorted_as_their_kind_of_log_says(tmp_path, kind, schema, log, items):
    plan = _plan(tmp_path / "data", schema)
    dealt = (2, _dealt(tmp_path, plan, log))
    if kind.deal_key == REQUEST:
        with_times = impressions.with_request_times(tables.read_part(dealt[1]))
        (reference,) = tables.write_parts(tmp_path / "checked.arrow", [with_times])
        dealt = (2, reference)
    with _pipeline() as pipeline:
        _ = pipeline | beam.Create([dealt]) | reading.SortPartitions(plan, kind)
    assert tables.read(plan.partition(2))["item_id"].to_pylist() == items


def test_repeated_rows_are_left_out_and_counted_and_items_are_those_that_are_left(tmp_path):
    plan = _plan(tmp_path / "data", min_item_events=2, deduplicate=True)
    twice = {name: [*values, *values[:2]] for name, values in CLICKS.items()}
    dealt = (2, _dealt(tmp_path, plan, twice))
    with _pipeline() as pipeline:
        done = pipeline | beam.Create([dealt]) | reading.SortPartitions(plan, CLICK_LOG)
        expected = dict(collections.Counter(CLICKS["item_id"]))
        assert_that(done[ITEMS] | beam.Map(_counts), equal_to([expected]), "items")
        counters = {"filtered/duplicate": 2, "file/0/filtered": 2}
        assert_that(done[COUNTERS], equal_to([counters]), "counters")
    assert tables.read(plan.partition(2)).num_rows == len(CLICKS["item_id"])


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [[time_cutoffs.ALL_TIMES], [(0, 2), (15, 30)]])
def test_times_are_those_of_rows_or_of_their_requests(tmp_path, ranges):
    with _pipeline() as pipeline:
        for name, kind, schema, log, expected in (
            ("clicks", CLICK_LOG, CLICK_SCHEMA, CLICKS, {10: 1, 15: 1, 20: 1, 30: 1, 40: 1}),
            ("rows", LABELLED_ROWS, LABELLED_ROWS_SCHEMA, IMPRESSIONS, {1: 2, 2: 2, 3: 1, 4: 1}),
        ):
            directory = tmp_path / name
            directory.mkdir()
            plan = _plan(directory / "data", schema)
            _write_sorted(directory, plan, kind, log)
            counted = (
                pipeline
                | f"{name} partitions" >> beam.Create([0])
                | f"{name} times" >> time_cutoffs.CountTimes(plan, kind, ranges, plan.work / "time")
                | f"{name} counts" >> beam.MapTuple(lambda place, counts: (place, _counts(counts)))
            )
            in_ranges = [
                (str(place), {time: n for time, n in expected.items() if first <= time <= last})
                for place, (first, last) in enumerate(ranges)
            ]
            assert_that(counted, equal_to(in_ranges), name)


def test_training_data_of_clicks_are_histories_and_what_they_lead_to(tmp_path):
    kind, plan = CLICK_LOG, _plan(tmp_path / "data")
    _write_sorted(tmp_path, plan, kind, CLICKS)
    with _pipeline() as pipeline:
        values, items, counters = _counted_training(pipeline, plan, kind)
        # The events of u1 in order: b, d (train), c (validation), a (test); u2 has too few.
        assert_that(values, equal_to([("item_id", {"b": 1}), ("user_id", {"u1": 1})]), "values")
        assert_that(items, equal_to([["a", "b", "c", "d"]]), "items")
        expected = {"train/requests": 1, "used": 4, "users": 1, "filtered/too_few_events": 1}
        assert_that(counters, equal_to([expected]), "counters")


def test_training_data_of_impressions_are_rows_shown(tmp_path):
    kind = LABELLED_ROWS
    plan = _plan(tmp_path / "data", LABELLED_ROWS_SCHEMA)
    _write_sorted(tmp_path, plan, kind, IMPRESSIONS)
    with _pipeline() as pipeline:
        values, items, counters = _counted_training(pipeline, plan, kind)
        # The last rows but two are the training request, c at 2, and its history, a at 1.
        assert_that(
            values, equal_to([("item_id", {"a": 1, "c": 1}), ("user_id", {"u1": 1})]), "values"
        )
        assert_that(items, equal_to([["a", "b", "c", "c"]]), "items")
        expected = {"train/requests": 1, "used": 4, "users": 1, "filtered/protocol": 2}
        assert_that(counters, equal_to([expected]), "counters")


def _counted_training(pipeline, plan, kind):
    count = beam.ParDo(pipelines.CountTraining(plan, kind))
    counted = pipeline | beam.Create([0]) | count.with_outputs(COUNTERS, ITEMS, main=VALUES)
    names = ("train/requests", "used", "users")

    def shown(counters):
        return {
            name: count
            for name, count in counters.items()
            if name in names or name.startswith("filtered/")
        }

    return (
        counted[VALUES] | "values" >> beam.MapTuple(lambda name, data: (name, _counts(data))),
        counted[ITEMS]
        | "items" >> beam.Map(lambda data: sorted(tables.from_bytes(data)["item_id"].to_pylist())),
        counted[COUNTERS] | "counters" >> beam.Map(shown),
    )


@pytest.mark.parametrize(
    ("kind", "schema", "log"),
    [
        (CLICK_LOG, CLICK_SCHEMA, CLICKS),
        (LABELLED_ROWS, LABELLED_ROWS_SCHEMA, IMPRESSIONS),
    ],
    ids=["clicks", "labelled rows"],
)
def test_requests_are_encoded_counted_and_described(tmp_path, kind, schema, log):
    plan = _plan(tmp_path / "data", schema, negatives=0)
    _write_sorted(tmp_path, plan, kind, log)
    items = kind.count_training(plan, 0).items
    for split, name in enumerate(splits.SPLITS):
        tables.write(plan.catalogue(name), counting.catalogue(items, "item_id", split))
    vocab_dir = tmp_path / "vocab"
    vocab_dir.mkdir()
    numbers = {}
    for feature in plan.schema.encoded_features:
        fitted = fitting.fit(feature, pa.array(["u1", "a", "b"]), np.ones(3, np.int64))
        encoder_files.save_vocabulary(fitted, vocab_dir)
        numbers[feature.name] = fitted.numbers()

    with _pipeline() as pipeline:
        encode = beam.ParDo(pipelines.EncodeRequests(plan, kind, vocab_dir, numbers))
        encoded = (
            pipeline
            | beam.Create([0])
            | encode.with_outputs(COUNTERS, TIMES, VALUES, PERIODS, main=RECORDS)
        )
        split_indices = encoded[RECORDS] | beam.MapTuple(lambda key, _: key[0])
        assert_that(
            split_indices, equal_to([splits.TRAIN, splits.VALIDATION, splits.TEST]), "records"
        )
        requests = encoded[COUNTERS] | beam.Map(
            lambda counters: [counters[f"{name}/requests"] for name in splits.SPLITS]
        )
        assert_that(requests, equal_to([[1, 1, 1]]), "counters")
        times = {"train": [20, 20], "validation": [30, 30], "test": [40, 40]}
        if kind.time_column == REQUEST_TIME:
            times = {"train": [2, 2], "validation": [3, 3], "test": [4, 4]}
        assert_that(encoded[TIMES], equal_to([times]), "times")
        keys = encoded[VALUES] | "keys" >> beam.Keys()
        assert_that(keys, equal_to(["user_id", "candidate/item_id", "history/item_id"]), "keys")
        used = encoded[PERIODS] | beam.Map(
            lambda data: sum(
                sum(tables.from_bytes(data)[name].to_pylist()) for name in splits.SPLITS
            )
        )
        assert_that(used, equal_to([4]), "periods")


def test_every_shard_is_written_even_if_nothing_is_in_it(tmp_path):
    table = pa.table({KEY: pa.array([2], pa.uint64()), RECORD: pa.array([b"r"], pa.large_binary())})
    (reference,) = tables.write_parts(tmp_path / "records.arrow", [table])
    (tmp_path / "reports").mkdir()
    records = [((0, 1), None), ((0, 1), reference), ((1, 0), None)]
    with _pipeline() as pipeline:
        _ = pipeline | beam.Create(records) | WriteShards(tmp_path, tmp_path / "reports", (2, 1, 1))
    written = {path.name: list(read_records(path)) for path in tmp_path.glob("*.gz")}
    assert written == {
        "train-00001-of-00002.tfrecord.gz": [b"r"],
        "validation-00000-of-00001.tfrecord.gz": [],
    }
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_tables_are_merged_and_written_under_their_name(tmp_path):
    first, second = (
        tables.to_bytes(counting.count_values(pa.array(values))) for values in (["a", "b"], ["b"])
    )
    merge = counting.merge_counts
    with _pipeline() as pipeline:
        _ = pipeline | beam.Create([first, second]) | merging.WriteMerged(tmp_path / "all", merge)
        _ = (
            pipeline
            | "named" >> beam.Create([("x", first), ("y", first), ("x", second)])
            | merging.WriteMergedByName(lambda name: tmp_path / name, merge)
        )
    merged = {path.name: tables.read(path)[COUNT].to_pylist() for path in tmp_path.iterdir()}
    assert merged == {"all": [1, 2], "x": [1, 2], "y": [1, 1]}


def test_counters_are_added_up_and_ranges_spanned(tmp_path):
    counters = [{"read": 2, "used": 1}, {"read": 3}]
    with _pipeline() as pipeline:
        _ = pipeline | beam.Create(counters) | merging.WriteCounters(tmp_path / "counters.json")
        ranges = [{"train": [3, 5]}, {"train": [1, 4], "test": [7, 7]}]
        _ = (
            pipeline
            | "ranges" >> beam.Create(ranges)
            | merging.WriteTimeRanges(tmp_path / "times.json")
        )
    assert json.loads((tmp_path / "counters.json").read_text()) == {"read": 5, "used": 1}
    ranges = json.loads((tmp_path / "times.json").read_text())
    assert ranges == {"train": [1, 5], "test": [7, 7]}


def test_a_round_of_the_filter_counts_items_of_users_with_enough_kept_events(tmp_path):
    plan = _plan(tmp_path / "data", min_user_events=2, min_item_events=2)
    _write_sorted(tmp_path, plan, CLICK_LOG, CLICKS)
    tables.write(plan.kept_items, pa.table({VALUE: ["a", "c"], COUNT: [2, 1]}))
    with _pipeline() as pipeline:
        counted = pipeline | beam.Create([0]) | core_filter.CountKeptItems(plan, 1)
        assert_that(counted | beam.Map(_counts), equal_to([{"a": 1, "c": 1}]))


def test_transforms_say_what_they_take_and_give(tmp_path):
    plan, kind = _plan(tmp_path / "data"), CLICK_LOG
    pipeline = _pipeline()
    count = beam.ParDo(pipelines.CountTraining(plan, kind))
    counted = pipeline | beam.Create([0]) | count.with_outputs(COUNTERS, ITEMS, main=VALUES)
    assert [counted[tag].element_type for tag in (VALUES, ITEMS, COUNTERS)] == [
        beam.typehints.Tuple[str, bytes],
        bytes,
        beam.typehints.Dict[str, int],
    ]
    for transform, element in (
        (time_cutoffs.CountTimes(plan, kind, [(0, 1)], plan.work / "time"), "0"),
        (core_filter.CountKeptItems(plan, 1), "0"),
        (merging.WriteMerged(tmp_path / "all", counting.merge_counts), "table"),
        (merging.WriteMergedByName(plan.values, counting.merge_counts), b"table"),
        (merging.WriteCounters(tmp_path / "counters"), 1),
        (merging.WriteTimeRanges(tmp_path / "times"), {"train": 1}),
        (reading.SortPartitions(plan, kind), ("0", ("path", 0))),
        (WriteShards(tmp_path, tmp_path, (1, 1, 1)), (0, None)),
    ):
        elements = pipeline | f"{transform.label} takes" >> beam.Create([element])
        with pytest.raises(beam.typehints.TypeCheckError):
            _ = elements | transform
