"""The logs of the papers as they are published: raw files to canonical rows. See docs/datasets.md.

An adapter names the raw columns and turns a batch of raw rows into the columns of a canonical log.
All later steps (validation, filters, protocols) are the same for any log.
"""

from collections.abc import Iterator

from pipeline.datasets.adapter import Adapter
from pipeline.datasets.alipay import Alipay
from pipeline.datasets.amazon_reviews import AmazonReviews
from pipeline.datasets.item_history import ItemHistory
from pipeline.datasets.retailrocket import RetailRocket
from pipeline.datasets.taobao import Taobao
from pipeline.log import readers, tables
from pipeline.log.row_checks import columns_of, separators_of
from preprocessing.schema import Schema
from preprocessing.storage.files import AnyPath

ADAPTERS: dict[str, type[Adapter]] = {
    "alipay": Alipay,
    "amazon_reviews": AmazonReviews,
    "retailrocket": RetailRocket,
    "taobao": Taobao,
}
"""Adapters by the name that --dataset takes."""


def open_adapter(dataset: str | None, item_history: AnyPath) -> Adapter | None:
    """The adapter of a published log, None for a log that needs none.

    Args:
        dataset: A key of `ADAPTERS`, or None.
        item_history: Path of the table of the item files, if the adapter needs it.
    """
    if dataset is None:
        return None
    adapter_class = ADAPTERS[dataset]
    return adapter_class(
        ItemHistory(tables.read(item_history)) if adapter_class.describes_items else None
    )


def read_canonical(
    part: readers.InputRange, schema: Schema, adapter: Adapter | None
) -> Iterator[readers.RawBatch]:
    """Reads the columns of the schema from a part of a canonical or of a published log."""
    if adapter is None:
        yield from readers.read(part, columns_of(schema), separators_of(schema))
    else:
        yield from map(adapter.adapt, readers.read(part, adapter.raw_columns))
