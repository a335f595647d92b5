"""Days of a small log, and builds of them."""

import json

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import write_log

NAMES = ("user_id", "item_id", "timestamp", "category_id", "price", "platform", "genres", "dwell")
"""Columns of an event."""


def schema_file(directory, max_length, min_count=1):
    vocabulary = {"kind": "vocabulary", "min_count": min_count}
    features = [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": vocabulary},
        {"name": "platform", "role": "context", "dtype": "string", "encoder": vocabulary,
         "many": {"max": 3, "separator": "|"}},
        {"name": "item_id", "role": "item", "dtype": "string", "encoder": vocabulary},
        {"name": "category_id", "role": "item", "dtype": "string", "encoder": vocabulary,
         "default": "none"},
        {"name": "price", "role": "item", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {"name": "genres", "role": "item", "dtype": "string", "encoder": vocabulary,
         "many": {"max": 2, "separator": "|"}},
        {"name": "dwell", "role": "weight", "dtype": "float32"},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ]  # fmt: skip
    history = {"max_length": max_length, "features": ["item_id", "category_id", "genres"]}
    path = directory / "schema.json"
    path.write_text(json.dumps({"features": features, "history": history}))
    return str(path)


def build(directory, days, output, order=0, max_length=4, min_count=1, **arguments):
    """Builds from some days, given by number and events."""
    paths = []
    for number, events in days:
        log = {name: [event[i] for event in events] for i, name in enumerate(NAMES)}
        paths.append(write_log(directory / f"day{number}.jsonl", log))
    with inline(order):
        return build_examples(
            BuildArguments(
                input=",".join(paths),
                output=str(directory / output),
                schema=schema_file(directory, max_length, min_count),
                num_shards=2,
                max_bad_fraction=1.0,
                **arguments,
            )
        )
