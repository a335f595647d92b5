"""Days of a small log, and builds of them."""

import json
import zlib

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import write_log

NAMES = ("user_id", "item_id", "timestamp", "category_id", "price", "platform", "genres", "dwell")
"""Columns of an event."""


def happened(event):
    """What happened at an event, beside its columns: its action, amount and tags."""
    number = zlib.crc32(repr(event).encode())
    tags = "|".join(f"t{n}" for n in range(number % 4))
    return f"a{number % 5}", None if number % 3 == 0 else number % 90 / 4, tags


def _event_features(vocabulary):
    return [
        {"name": "action", "role": "event", "dtype": "string", "encoder": vocabulary},
        {"name": "amount", "role": "event", "dtype": "float32", "default": 1.5,
         "encoder": {"kind": "numeric"}},
        {"name": "tags", "role": "event", "dtype": "string", "encoder": vocabulary,
         "many": {"max": 2, "separator": "|"}},
        {"name": "age", "role": "event", "from": "gap_to_request"},
        {"name": "pause", "role": "event", "from": "gap_to_previous"},
        {"name": "hour", "role": "context", "from": "hour"},
        {"name": "weekday", "role": "context", "from": "weekday"},
    ]  # fmt: skip


def schema_file(directory, max_length, min_count=1, with_events=False, unit=None):
    """Writes schema.json, perhaps with features of events and of times; returns its path."""
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
    features[-1] |= {"unit": unit} if unit else {}
    if with_events:
        features += _event_features(vocabulary)
    history = {"max_length": max_length, "features": ["item_id", "category_id", "genres"]}
    path = directory / "schema.json"
    path.write_text(json.dumps({"features": features, "history": history}))
    return str(path)


def build(
    directory,
    days,
    output,
    order=0,
    max_length=4,
    min_count=1,
    with_events=False,
    in_seconds=None,
    **arguments,
):
    """Builds from some days, given by number and events.

    With features of events, and where values expire, or `in_seconds`, times count quarter hours and
    become seconds.
    """
    in_seconds = in_seconds or with_events or bool(arguments.get("expire_days"))
    paths = []
    for number, events in days:
        log = {name: [event[i] for event in events] for i, name in enumerate(NAMES)}
        if in_seconds:
            log["timestamp"] = [900 * time for time in log["timestamp"]]
        if with_events:
            log |= {
                name: [happened(event)[i] for event in events]
                for i, name in enumerate(("action", "amount", "tags"))
            }
        paths.append(write_log(directory / f"day{number}.jsonl", log))
    with inline(order):
        return build_examples(
            BuildArguments(
                input=",".join(paths),
                output=str(directory / output),
                schema=schema_file(
                    directory, max_length, min_count, with_events, "seconds" if in_seconds else None
                ),
                num_shards=2,
                max_bad_fraction=1.0,
                **arguments,
            )
        )
