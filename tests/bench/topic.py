"""Rows of a topic against the same rows in a file of JSON lines: from bytes to Arrow batches.

The broker is the one within the client, in this process, so the figure says what the client and our
work on each message cost, and nothing of a network.
"""

import json
import pathlib
import tempfile
from collections.abc import Sequence

from pipeline.log import readers, topic_files
from pipeline.log.input_files import list_inputs
from pipeline.log.raw_batch import InputFile
from pipeline.log.topics.topic import Topic
from tests.helpers import topics

from .figures import Figure, compare

_ROWS = 160_000  # the broker keeps no more than 5 MB of a partition
_NAMES = ["user_id", "item_id", "category_id", "timestamp"]


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a row."""
    rows = 4000 if quick else _ROWS
    values = [
        json.dumps(dict(zip(_NAMES, (f"u{n % 999}", f"i{n % 9999}", f"c{n % 99}", n), strict=True)))
        for n in range(rows)
    ]
    share = rows // topics.PARTITIONS
    sent = {
        number: [value.encode() for value in values[number * share : (number + 1) * share]]
        for number in range(topics.PARTITIONS)
    }
    with tempfile.TemporaryDirectory() as directory, topics.broker() as broker:
        file = pathlib.Path(directory) / "log.jsonl"
        file.write_bytes(topics.lines(sent))
        broker.send("rows", sent)
        logs = topic_files.list_topic(Topic.parse(broker.url("rows"))), list_inputs(str(file))
        assert [_read(log) for log in logs] == [rows, rows]
        times = compare(
            lambda: _read(logs[0]), lambda: _read(logs[1]), ours_units=rows, baseline_units=rows
        )
    return [times.cost("topic", f"a file of JSON lines, {rows:,} rows", at_most=4)]


def _read(log: Sequence[InputFile]) -> int:
    """Reads a log; returns the number of its rows."""
    parts = [part for file in log for part in readers.ranges(file)]
    return sum(len(batch.lines) for part in parts for batch in readers.read(part, _NAMES))
