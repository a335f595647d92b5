"""The same windows and negatives in Polars, in one process, written as Parquet.

What an experienced user of data frames writes for the job of `build_examples`: vocabularies from
training data, both protocols, histories of at most 50 events, one uniform negative of the split's
catalogue that is none of the user's own items, shuffled candidates, encoded ids. Every step runs on
all cores. It keeps the log and the requests in memory, and leaves out what a data frame does not
give: validation and rejected rows, item features as of a split, negatives that do not depend on the
order of rows, examples in TFRecords with checksums, hashes, statistics.
"""

import pathlib

import numpy as np
import polars as pl

_MAX_LENGTH = 50
_SPLITS = ("train", "validation", "test")
_TRAIN_END, _VALIDATION_END = 0.72, 0.8  # time_split: 80% of the rows, a tenth of them validation


def build(log: str, output: pathlib.Path, protocol: str, seed: int = 1) -> None:
    """Writes one Parquet file per split.

    Args:
        log: A CSV file with the columns user_id, item_id, category_id, timestamp.
        output: Directory of the files.
        protocol: `leave_last_out` (one train positive per user) or `time_split`.
        seed: Of negatives and candidate order.
    """
    rng = np.random.default_rng(seed)
    events = _encoded(_split(_events(log), protocol))
    steps = events.select(pl.col("item_id", "category_id", "timestamp").name.prefix("history/"))
    num_items = int(events["item"].to_numpy().max()) + 1
    own = (events["user"].cast(pl.Int64) * num_items + events["item"]).unique()
    for split, name in enumerate(_SPLITS):
        catalogue = events.filter(pl.col("use") <= split).unique("item", keep="any")
        catalogue = catalogue.select("item", "item_id", "category_id")
        positives = events.filter(pl.col("split") == split)
        row_of_negative = _negatives(positives["user"], catalogue["item"], num_items, own, rng)
        columns = [_candidates(positives, catalogue[row_of_negative], rng)]
        columns.append(_histories(positives, steps))
        pl.concat(columns, how="horizontal").write_parquet(output / f"{name}.parquet")


def _events(log: str) -> pl.DataFrame:
    """The log by user and time, with the place of each event among those of its user."""
    events = pl.scan_csv(log).with_row_index("line").sort("user_id", "timestamp", "line")
    place = pl.int_range(pl.len()).over("user_id")
    size = pl.len().over("user_id").cast(pl.Int64)
    return events.with_columns(place=place, size=size).drop("line").with_row_index("row").collect()


def _split(events: pl.DataFrame, protocol: str) -> pl.DataFrame:
    """Adds the split of which an event is the positive, and the first that contains it."""
    if protocol == "time_split":
        times = events["timestamp"].sort()
        ends = [times[int(share * len(times)) - 1] for share in (_TRAIN_END, _VALIDATION_END)]
        use = pl.sum_horizontal((pl.col("timestamp") > end).cast(pl.Int8) for end in ends)
        is_positive = pl.col("place") > 0
    else:
        after = pl.col("size") - 1 - pl.col("place")
        use = (2 - after).clip(0, 2).cast(pl.Int8)
        is_positive = (after < 3) & (pl.col("size") > 3)
    return events.with_columns(use=use, split=pl.when(is_positive).then(use))


def _encoded(events: pl.DataFrame) -> pl.DataFrame:
    """Values as ids: 1 if training does not have them, else from 2 on by count in training.

    Users and items also get a number each, to tell own items apart.
    """
    added = {"user_text": events["user_id"]}
    for name, number in (("user_id", "user"), ("item_id", "item"), ("category_id", "category")):
        numbers = events[name].cast(pl.Categorical).to_physical()
        trained = events.select(name, "use", number=numbers).filter(pl.col("use") == 0)
        counts = trained.group_by("number").agg(pl.len(), pl.col(name).first())
        words = counts.sort(["len", name], descending=[True, False])["number"].to_numpy()
        ids = np.ones(1 + numbers.to_numpy().max(), np.int64)
        ids[words] = np.arange(2, 2 + len(words))
        added |= {name: pl.Series(ids).gather(numbers), number: numbers}
    return events.with_columns(**added)


def _negatives(
    users: pl.Series, items: pl.Series, num_items: int, own: pl.Series, rng: np.random.Generator
) -> np.ndarray:
    """For each user a row of the catalogue whose item is none of the user's own."""
    drawn = rng.integers(0, len(items), len(users))
    pairs = users.cast(pl.Int64) * num_items
    wrong = np.arange(len(users))
    while len(wrong):
        is_own = (pairs.gather(wrong) + items.gather(drawn[wrong])).is_in(own.implode())
        wrong = wrong[is_own.to_numpy()]
        drawn[wrong] = rng.integers(0, len(items), len(wrong))
    return drawn


def _candidates(
    positives: pl.DataFrame, negatives: pl.DataFrame, rng: np.random.Generator
) -> pl.DataFrame:
    """Everything but histories."""
    names = ("item_id", "category_id")
    both = pl.concat(
        [positives, negatives.select(pl.col(*names).name.prefix("negative/"))], how="horizontal"
    ).with_columns(first=pl.Series(rng.random(len(positives)) < 0.5, dtype=pl.Boolean))

    def pair(positive: pl.Expr, negative: pl.Expr) -> pl.Expr:
        first = pl.when("first").then(positive).otherwise(negative)
        return pl.concat_list(first, pl.when("first").then(negative).otherwise(positive))

    return both.select(
        "user_id",
        "timestamp",
        pl.format("{}:{}", "user_text", "place").alias("request_id"),
        pl.col("user_text").alias("request/user"),
        pl.col("place").cast(pl.Int64).alias("request/index"),
        pair(pl.lit(1), pl.lit(0)).alias("label"),
        *(pair(pl.col(n), pl.col(f"negative/{n}")).alias(f"candidate/{n}") for n in names),
    )


def _histories(positives: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """The at most 50 events before each positive, oldest first, as lists."""
    row, place = pl.col("row").cast(pl.Int64), pl.col("place").cast(pl.Int64)
    windows = positives.select(step=pl.int_ranges(row - pl.min_horizontal(place, _MAX_LENGTH), row))
    windows = windows.with_row_index("request").explode("step")
    histories = steps[windows["step"]].with_columns(windows["request"])
    return histories.group_by("request", maintain_order=True).agg(pl.all()).drop("request")
