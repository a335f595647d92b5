import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from pipeline.job.merging import MergeTables
from pipeline.log import tables
from pipeline.log.row_checks import FILE, LINE, TIME
from pipeline.requests import counting
from preprocessing.schema_inference import infer_schema
from preprocessing.splits import NONE, TEST, TRAIN, VALIDATION

SCHEMA = infer_schema(["user_id", "item_id", "category_id"])


def _counts(table):
    return dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))


def test_counts_leave_nulls_out_and_add_up():
    first = counting.count_values(pa.array(["b", "a", None, "b"]))
    second = counting.count_values(pa.array(["c", "b"]))
    merged = counting.merge_counts(pa.concat_tables([first, second]))
    assert list(_counts(merged).items()) == [("a", 1), ("b", 3), ("c", 1)]
    assert _counts(counting.count_values(pa.array([], pa.int64()))) == {}


def _items(rows):
    """Table of events (item, category, time, file, line) with their first use."""
    item, category, time, file, line, use = zip(*rows, strict=True)
    events = pa.table(
        {
            "item_id": item,
            "category_id": category,
            TIME: time,
            FILE: pa.array(file, pa.int32()),
            LINE: line,
        }  # fmt: skip
    )
    use = np.array(use, np.int8)
    return events, use, (use == TRAIN) & (np.array(line) == 1)


ROWS = [
    ("x", "first", 1, 0, 1, TRAIN),
    ("x", "tie, earlier row", 5, 0, 1, TRAIN),
    ("x", "tie, later row", 5, 0, 2, TRAIN),
    ("x", "validation", 7, 0, 1, VALIDATION),
    ("x", "unused", 99, 0, 1, NONE),
    ("x", "late in train", 6, 1, 1, TRAIN),
    ("y", "test", 2, 0, 9, TEST),
    ("z", "train", 2, 0, 9, TRAIN),
]


def test_catalogues_hold_items_as_of_their_last_event_in_reach():
    items = counting.count_items(*_items(ROWS), SCHEMA)

    trained = counting.catalogue(items, "item_id", TRAIN)
    assert _counts(counting.candidate_values(trained, SCHEMA["category_id"])) == {
        "late in train": 3
    }

    def catalogue(split):
        table = counting.catalogue(items, "item_id", split)
        names = ("item_id", "category_id", counting.COUNT)
        return list(zip(*(table[name].to_pylist() for name in names), strict=True))

    assert catalogue(TRAIN) == [("x", "late in train", 4), ("z", "train", 1)]
    assert catalogue(VALIDATION) == [("x", "validation", 5), ("z", "train", 1)]
    assert catalogue(TEST) == [("x", "validation", 5), ("y", "test", 1), ("z", "train", 1)]


def test_items_merge_the_same_in_any_grouping():
    whole = counting.count_items(*_items(ROWS), SCHEMA).sort_by(
        [("item_id", "ascending"), (counting.FIRST_USE, "ascending")]
    )
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = [ROWS[i] for i in rng.permutation(len(ROWS))]
        parts = [counting.count_items(*_items(rows[i : i + 3]), SCHEMA) for i in range(0, 8, 3)]
        merged = counting.merge_items(pa.concat_tables(parts), "item_id")
        merged = merged.sort_by([("item_id", "ascending"), (counting.FIRST_USE, "ascending")])
        assert merged.to_pylist() == whole.to_pylist()


def test_the_combiner_adds_many_tables_up():
    elements = [tables.to_bytes(counting.count_values(pa.array([n % 7, n]))) for n in range(100)]
    expected = {n: 1 for n in range(100)}
    for n in range(100):
        expected[n % 7] += 1
    with beam.Pipeline(FnApiRunner()) as pipeline:
        merged = (
            pipeline
            | beam.Create(elements)
            | beam.CombineGlobally(MergeTables(counting.merge_counts))
            | beam.Map(lambda data: _counts(tables.from_bytes(data)))
        )
        assert_that(merged, equal_to([expected]))
