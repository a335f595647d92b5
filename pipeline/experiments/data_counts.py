"""Counts of data sets, as the papers print them."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.reporting.html_report import Grid, Section
from pipeline.experiments.planned_runs import NamedData
from pipeline.experiments.recipe import Table


def rows_and_sections(
    table: Table, data: Sequence[NamedData]
) -> tuple[list[dict[str, Any]], list[Section]]:
    """Rows of the CSV file and sections of the page: our data sets, then those of the paper."""
    columns = list(table.counts[table.reference])
    named_counts = [
        *((named.name, _counts(named)) for named in data),
        *((f"paper, {name}", counts) for name, counts in table.counts.items()),
    ]
    grid = Grid(
        "Counts",
        1,
        ["data set", *columns],
        [[name, *(f"{counts[column]:,}" for column in columns)] for name, counts in named_counts],
        [
            "Samples: requests of all splits. Instances: candidates of the test split. Features: "
            "distinct values of all categorical fields. Fields: features of user, context and "
            "candidate, and one per history feature."
        ],
    )
    rows = [
        {"data": name, **{column: counts[column] for column in columns}}
        for name, counts in named_counts
    ]
    return rows, [Section("Data sets", [grid])]


def _counts(named: NamedData) -> Mapping[str, int]:
    """The counts of a data set that the papers print."""
    schema, splits = named.data.schema, named.data.stats["splits"]

    def distinct(name: str) -> int:
        return max(
            key_stats["distinct"]
            for split in splits.values()
            for key, key_stats in split["features"].items()
            if key.rpartition("/")[2] == name and "distinct" in key_stats
        )

    users = named.data.stats["users"]
    items = splits["test"]["items_to_draw_from"]
    other_counts = [
        distinct(feature.name)
        for feature in (*schema.user_features, *schema.item_features)
        if feature.is_categorical and feature not in (schema.user_key, schema.item_key)
    ]
    categories = [
        distinct(feature.name)
        for feature in schema.history_features
        if feature.is_categorical and feature != schema.item_key
    ]
    return {
        "users": users,
        "items": items,
        "categories": next(iter(categories), 0),
        "samples": sum(split["requests"] for split in splits.values()),
        "instances": splits["test"]["candidates"],
        "features": users + items + sum(other_counts),
        "fields": len(schema.encoded_features) + len(schema.history_features),
    }
