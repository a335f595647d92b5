"""Taobao's UserBehavior log, used in the DemiNet paper.

Published at https://tianchi.aliyun.com/dataset/649 as UserBehavior.csv.zip (3.5 GB unpacked):
100,150,807 events of 987,994 users with 4,162,024 items in 9,439 categories, 25 November to
3 December 2017. Download needs an account; use is subject to the terms of that page (research, no
redistribution).

A line is `user,item,category,behaviour,timestamp` without a header, time in Unix seconds; the
behaviours are `pv` (a click), `cart`, `fav` and `buy`. The file also holds events of other times,
some decades away, which its description excludes: they are filtered as `out_of_window`.
"""

from typing import ClassVar

from pipeline.datasets.adapter import Adapter, integers
from pipeline.log.raw_batch import RawBatch

FIRST_TIME = 1_511_539_200
"""2017-11-25 00:00:00 in China (UTC+8)."""
LAST_TIME = 1_512_316_799
"""2017-12-03 23:59:59 in China (UTC+8)."""


class Taobao(Adapter):
    """Lines of UserBehavior.csv; clicks (`pv`) count."""

    raw_columns: ClassVar = ("user", "item", "category", "behaviour", "timestamp")
    header: ClassVar = raw_columns
    columns: ClassVar = ("user_id", "item_id", "category_id", "timestamp")
    behaviour_column: ClassVar = "behaviour"
    behaviours: ClassVar = ("pv",)

    def adapt(self, batch: RawBatch) -> RawBatch:
        """Renames the columns and filters events outside the published days."""
        batch = batch.renamed({"user": "user_id", "item": "item_id", "category": "category_id"})
        times, missing = integers(batch.columns["timestamp"])
        outside = ~missing & ((times < FIRST_TIME) | (times > LAST_TIME))
        return batch.without(outside, "out_of_window")
