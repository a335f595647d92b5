"""The IJCAI-16 log of Taobao, Tmall and Alipay, called Alipay in the MISS paper.

Published at https://tianchi.aliyun.com/dataset/53 as IJCAI16_data.zip, of which
ijcai2016_taobao.csv is the log: online behaviour from 1 July to 30 November 2015 (without the days
of the November sale). Download needs an account; use is subject to the terms of that page
(research, no redistribution).

Columns: use_ID, sel_ID, ite_ID, cat_ID, act_ID (0 a click, 1 a purchase) and time, a day written
20150826. A day becomes the Unix time of its first second in China (UTC+8).
"""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.adapter import Adapter
from pipeline.log.raw_batch import RawBatch
from preprocessing.values.spelling import spelled

_UTC_OFFSET = 8 * 3600
_NAMES = {
    "use_ID": "user_id",
    "sel_ID": "seller_id",
    "ite_ID": "item_id",
    "cat_ID": "category_id",
    "act_ID": "action",
}


class Alipay(Adapter):
    """Rows of ijcai2016_taobao.csv; clicks (`0`) count."""

    raw_columns: ClassVar = ("use_ID", "sel_ID", "ite_ID", "cat_ID", "act_ID", "time")
    columns: ClassVar = ("user_id", "item_id", "category_id", "seller_id", "timestamp")
    behaviour_column: ClassVar = "action"
    behaviours: ClassVar = ("0",)

    def adapt(self, batch: RawBatch) -> RawBatch:
        """Renames the columns and turns days into seconds."""
        days = spelled(batch.columns["time"]).texts.dictionary_encode()
        times = _first_seconds(days.dictionary).take(days.indices)
        batch = batch.renamed(_NAMES).with_columns({"timestamp": times})
        bad = np.asarray(times.is_null().to_numpy(zero_copy_only=False), bool)
        return batch.rejecting(bad, "column 'time': not a day such as 20150826")


def _first_seconds(days: pa.Array) -> pa.Array:
    """Unix time at which days written 20150826 begin in China; null for other texts."""
    parsed = pc.strptime(days, format="%Y%m%d", unit="s", error_is_null=True)
    # `strptime` accepts days such as 30 February.
    is_day = pc.equal(pc.strftime(parsed, format="%Y%m%d"), days)
    times = pc.subtract(parsed.cast(pa.int64()), _UTC_OFFSET)
    return pc.if_else(is_day, times, pa.scalar(None, pa.int64()))
