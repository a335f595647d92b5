"""What a build says about itself: manifest.json, stats.json and the line printed at the end."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from pipeline import tables
from pipeline.events import Plan
from preprocessing import data_dir, splits
from preprocessing.data_dir import DataDir
from preprocessing.encoders import FittedEncoder


def counters(plan: Plan, stage: str) -> dict[str, int]:
    """The counters of a stage."""
    path = plan.work / "counters" / f"{stage}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def by_prefix(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The counters other than zero whose name starts with a prefix, without it."""
    return {
        name.removeprefix(prefix): count
        for name, count in sorted(counters.items())
        if name.startswith(prefix) and count
    }


def conservation(counters: Mapping[str, int]) -> dict[str, Any]:
    """Every row read is used by a request, filtered by a rule, or rejected for a reason.

    Raises:
        AssertionError: The counts do not add up, which is a bug.
    """
    filtered, rejected = by_prefix(counters, "filtered/"), by_prefix(counters, "rejected/")
    read, used = counters["read"], counters["used"]
    if read != used + sum(filtered.values()) + sum(rejected.values()):
        raise AssertionError(f"rows are not conserved: {read=} {used=} {filtered=} {rejected=}")
    return {"read": read, "used": used, "filtered": filtered, "rejected": rejected}


def manifest(plan: Plan, counters: Mapping[str, int]) -> dict[str, Any]:
    """The content of manifest.json; stats.json and the vocabularies are written by then."""
    reports = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((plan.work / "shards").glob("*.json"))
    ]
    candidates = 1 + plan.arguments.negatives
    by_split = {}
    for split in splits.SPLITS:
        shards = [
            {key: value for key, value in report.items() if key != "split"}
            for report in reports
            if report["split"] == split
        ]
        requests = sum(shard["requests"] for shard in shards)
        by_split[split] = {
            "requests": requests,
            "candidates": requests * candidates,
            "shards": shards,
        }
    cutoffs = plan.cutoffs
    output = plan.arguments.output_path
    small = [output / data_dir.STATS, *sorted((output / data_dir.VOCABULARIES).iterdir())]
    return {
        "format_version": data_dir.FORMAT_VERSION,
        "schema_hash": plan.schema.hash(),
        "code_version": importlib.metadata.version("sequence-ctr"),
        "arguments": plan.arguments.to_json(),
        "files": {str(path.relative_to(output)): data_dir.sha256_file(path) for path in small},
        "splits": by_split,
        "cutoffs": {}
        if cutoffs is None
        else {"train_end": cutoffs.train_end, "validation_end": cutoffs.validation_end},
        "conservation": conservation(counters),
    }


def stats(
    plan: Plan, counters: Mapping[str, int], encoders: Mapping[str, FittedEncoder]
) -> dict[str, Any]:
    """The content of stats.json."""
    return {
        "users": counters["users"],
        "encoders": {name: encoder.numbers() for name, encoder in encoders.items()},
        "cardinality": {name: encoder.cardinality for name, encoder in encoders.items()},
        "splits": {split: _split_stats(plan, counters, split) for split in splits.SPLITS},
    }


def _split_stats(plan: Plan, counters: Mapping[str, int], split: str) -> dict[str, Any]:
    values = by_prefix(counters, f"{split}/values/")
    lengths = by_prefix(counters, f"{split}/history_length/")
    times = json.loads((plan.work / "counters" / "times.json").read_text(encoding="utf-8"))
    return {
        "requests": counters.get(f"{split}/requests", 0),
        "requests_left_out": counters.get(f"{split}/left_out", 0),
        "users": counters.get(f"{split}/users", 0),
        "items_to_draw_from": tables.read(plan.catalogue(split)).num_rows,
        "positive_share": 1 / (1 + plan.arguments.negatives),
        "time_range": times.get(split),
        "history_length": {length: lengths[length] for length in sorted(lengths, key=int)},
        "oov_rate": {
            key: counters.get(f"{split}/oov/{key}", 0) / count for key, count in values.items()
        },
    }


def summary(data: DataDir, seconds: float) -> str:
    """One line for people."""
    account = data.manifest["conservation"]
    requests = ", ".join(f"{split} {data.num_requests(split)}" for split in splits.SPLITS)
    return (
        f"{data.path}: {account['read']} rows read, {account['used']} used, "
        f"{sum(account['filtered'].values())} filtered, {sum(account['rejected'].values())} "
        f"rejected; requests: {requests}; {seconds:.1f} s "
        f"({account['read'] / seconds:,.0f} rows/s)"
    )
