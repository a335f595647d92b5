"""The RetailRocket log, used in the DemiNet paper.

Published at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset under CC BY-NC-SA 4.0:
events.csv with 2,756,101 events of 1,407,580 visitors from May to September 2015, and
item_properties_part1.csv and _part2.csv with 20,275,902 weekly snapshots of properties of 417,053
items. Download needs an account.

Events have the columns timestamp (Unix milliseconds), visitorid, event (`view`, `addtocart`,
`transaction`) and itemid; snapshots have timestamp, itemid, property and value, and the property
`categoryid` is the category of an item. An event gets the category that its item had at that time:
the value of the last snapshot up to then. A value that never changes is published once, with any
date, and holds at all times. An item that has no category yet gets `unknown`.

Times stay in milliseconds: the file is not in the order of time, and a visitor may have several
events in one second.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyarrow.compute as pc

from pipeline.datasets.adapter import Adapter, integers
from pipeline.datasets.item_history import ITEM, TIME, VALUE
from pipeline.log.raw_batch import InputFile, RawBatch
from pipeline.log.readers import ranges, read


class RetailRocket(Adapter):
    """Rows of events.csv; views and additions to the cart count."""

    raw_columns: ClassVar = ("timestamp", "visitorid", "event", "itemid")
    columns: ClassVar = ("user_id", "item_id", "category_id", "timestamp")
    optional: ClassVar = ("category_id",)
    behaviour_column: ClassVar = "event"
    behaviours: ClassVar = ("view", "addtocart")
    describes_items: ClassVar = True
    item_columns: ClassVar = ("itemid", "timestamp", "value", "property")

    @classmethod
    def read_items(cls, files: Sequence[InputFile]) -> Iterator[RawBatch]:
        """Yields the snapshots of categories; see `Adapter.read_items`."""
        names = dict(zip(cls.item_columns, (ITEM, TIME, VALUE, "property"), strict=True))
        for file in files:
            for part in ranges(file):
                for batch in read(part, cls.item_columns):
                    is_other = pc.not_equal(batch.columns["property"], b"categoryid")
                    yield batch.without(
                        is_other.to_numpy(zero_copy_only=False), "other_properties"
                    ).renamed(names)

    def adapt(self, batch: RawBatch) -> RawBatch:
        """Renames the columns and adds the category of the item at the time of the event."""
        times, _ = integers(batch.columns["timestamp"])
        batch = batch.renamed({"visitorid": "user_id", "itemid": "item_id"})
        return self.with_item_value(batch, "category_id", times)
