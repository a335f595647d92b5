"""The reports of a build: manifest.json, stats.json and the line printed at the end."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.job.log_files import TOPICS, topics_read
from pipeline.job.vocabularies import Fitted
from pipeline.log import file_accounts, tables
from pipeline.log.raw_batch import InputFile
from pipeline.requests.events import Plan
from pipeline.stats import findings
from preprocessing import data_dir, known_items, splits, time_units
from preprocessing.data_dir import DataDir
from preprocessing.example_keys import candidate_key
from preprocessing.storage import files


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
    """Accounts for every row read: used by a request, filtered by a rule, or rejected for a reason.

    Raises:
        AssertionError: The counts do not add up, which is a bug.
    """
    filtered, rejected = by_prefix(counters, "filtered/"), by_prefix(counters, "rejected/")
    read, used = counters["read"], counters["used"]
    if read != used + sum(filtered.values()) + sum(rejected.values()):
        raise AssertionError(f"rows are not conserved: {read=} {used=} {filtered=} {rejected=}")
    return {"read": read, "used": used, "filtered": filtered, "rejected": rejected}


def manifest(
    plan: Plan,
    log: Sequence[InputFile],
    counters: Mapping[str, int],
    kept: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of manifest.json; all other files are written by then.

    Args:
        plan: Plan of the build.
        log: Files of the log.
        counters: Counters of all steps.
        kept: What `keep_tails.record` says of the tails, or why there are `none`.

    Raises:
        AssertionError: Rows or requests got lost, which is a bug, perhaps the runner's.
    """
    reports = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in files.children(plan.work / "shards", "*.json")
    ]
    by_split = {}
    for split in splits.SPLITS:
        shards = [
            {key: value for key, value in report.items() if key != "split"}
            for report in reports
            if report["split"] == split
        ]
        requests = sum(shard["requests"] for shard in shards)
        encoded = counters.get(f"{split}/requests", 0)
        if requests != encoded:
            raise AssertionError(f"requests are not conserved: {encoded=} written={requests}")
        by_split[split] = {
            "requests": requests,
            "candidates": counters.get(f"{split}/candidates", 0),
            "shards": shards,
        }
    cutoffs = plan.cutoffs
    output = plan.arguments.output_path
    vocabularies = files.children(output / data_dir.VOCABULARIES)
    small_files = [
        data_dir.STATS,
        *(f"{data_dir.VOCABULARIES}/{path.name}" for path in vocabularies),
    ]
    content = {
        "format_version": data_dir.FORMAT_VERSION,
        "schema_hash": plan.schema.hash(),
        "code_version": importlib.metadata.version("sequence-ctr"),
        "arguments": plan.arguments.to_json(),
        "files": {name: data_dir.sha256_file(output / name) for name in small_files},
        "splits": by_split,
        "cutoffs": {}
        if cutoffs is None
        else {"train_end": cutoffs.train_end, "validation_end": cutoffs.validation_end},
        "time_unit": time_units.UNIT if time_units.is_datetime(plan.schema) else None,
        "conservation": conservation(counters),
        "inputs": file_accounts.accounts(log, counters),
        "metadata": by_prefix(counters, "metadata/"),
        "tails": dict(kept),
    }
    if topics := topics_read(log, {} if plan.base is None else plan.base.topics):
        content[TOPICS] = topics
    if plan.arguments.expire_days:
        content["expired"] = by_prefix(counters, "expired/")
    return content if plan.base is None else {**content, "base": _of_base(plan, counters)}


def _of_base(plan: Plan, counters: Mapping[str, int]) -> dict[str, Any]:
    """What the manifest says of the base: which it is, its time, and what was late to it."""
    base = plan.base
    assert base is not None
    return {
        "path": base.location,
        "sha256": base.fingerprint,
        "watermark": base.watermark,
        "generation": base.generation + plan.arguments.rerank,
        "late": counters.get("late", 0),
        "duplicates": counters.get("filtered/duplicate", 0),
    }


def stats(
    plan: Plan,
    counters: Mapping[str, int],
    fitted: Mapping[str, Fitted],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of stats.json; docs/data_directory.md explains it.

    Args:
        plan: Plan of the build.
        counters: Counters of all steps.
        fitted: What is known of the encoders.
        values: What `value_statistics.describe` says of values and times.
    """
    by_split = values["splits"]
    content = {
        "users": counters["users"],
        "defaulted": by_prefix(counters, "defaulted/"),
        "encoders": {name: one.numbers for name, one in fitted.items()},
        "cardinality": {name: one.cardinality for name, one in fitted.items()},
        "splits": {
            split: _split_stats(plan, counters, split, by_split[split]) for split in splits.SPLITS
        },
        "period": values["period"],
        "vocabularies": values["vocabularies"],
    }
    many = [feature.name for feature in plan.schema.encoded_features if feature.many is not None]
    if many:
        content["cut"] = {name: counters.get(f"cut/{name}", 0) for name in many}
    measured = splits.measured(plan.arguments.protocol, plan.arguments.validation_fraction)
    return content | {"findings": findings.of_data(plan.schema, content, measured)}


def _split_stats(
    plan: Plan, counters: Mapping[str, int], split: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    lengths = by_prefix(counters, f"{split}/history_length/")
    times = json.loads((plan.work / "counters" / "times.json").read_text(encoding="utf-8"))
    requests = counters.get(f"{split}/requests", 0)
    positives = counters.get(f"{split}/positives", 0)
    candidates = counters.get(f"{split}/candidates", 0)
    unknown = known_items.UnknownItems(
        positives,
        candidates - positives,
        counters.get(f"{split}/unknown_positives", 0),
        counters.get(f"{split}/unknown_negatives", 0),
    )
    item_key = candidate_key(plan.schema.item_key.name)
    return {
        "requests": requests,
        "positives": positives,
        "candidates": candidates,
        "unknown_items": unknown._asdict(),
        "requests_without_positive": counters.get(f"{split}/without_positive", 0),
        "items": values["features"][item_key]["distinct"],
        "requests_left_out": counters.get(f"{split}/left_out", 0),
        "users": counters.get(f"{split}/users", 0),
        "items_to_draw_from": tables.read(plan.catalogue(split)).num_rows,
        "time_range": times.get(split),
        "history_length": {length: lengths[length] for length in sorted(lengths, key=int)},
        **values,
    }


def summary(data: DataDir, seconds: float) -> str:
    """The line that a build prints at its end."""
    account = data.manifest["conservation"]
    left_out = {name: data.stats["splits"][name]["requests_left_out"] for name in splits.SPLITS}
    requests = ", ".join(
        f"{name} {data.num_requests(name)}" + (f" ({count} left out)" if count else "")
        for name, count in left_out.items()
    )
    late = data.manifest.get("base", {}).get("late", 0)
    return (
        f"{data.path}: {account['read']} rows read, {account['used']} used, "
        f"{sum(account['filtered'].values())} filtered, {sum(account['rejected'].values())} "
        f"rejected{f', {late} late' if late else ''}; requests: {requests}; {seconds:.1f} s "
        f"({account['read'] / seconds:,.0f} rows/s)"
    )
