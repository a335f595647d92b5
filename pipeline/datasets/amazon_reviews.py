"""Amazon product reviews (1996 to 2014), used in both papers; a review counts as a click.

Published at http://jmcauley.ucsd.edu/data/amazon/ (now https://cseweb.ucsd.edu/~jmcauley/datasets/
amazon/links.html) by product category: all reviews (reviews_Books.json.gz), those of the 5-core, in
which every user and item has at least five (reviews_Books_5.json.gz), and metadata of the items
(meta_Books.json.gz). There is no formal licence: research use, with the citations that the page
asks for.

A review is a JSON line with reviewerID, asin and unixReviewTime (whole days, in seconds). Metadata
lines of 2014 are Python literals, those of 2018 JSON. The category of an item is the leaf of its
last path: the last of `categories` (2014: a list of paths) or of `category` (2018: one path). Items
without metadata or without a path get `unknown`.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from pipeline.datasets.adapter import Adapter
from pipeline.datasets.item_history import ITEM, VALUE
from pipeline.log.raw_batch import InputFile, RawBatch, Rejection
from pipeline.log.readers import read_lines

# A Python string: a simple one, which JSON writes with the other quotation mark, or any.
_TEXT = re.compile(r"""'([^'"\\]*)'|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


class AmazonReviews(Adapter):
    """Lines of reviews_<category>.json.gz; items are described by meta_<category>.json.gz."""

    raw_columns: ClassVar = ("reviewerID", "asin", "unixReviewTime")
    columns: ClassVar = ("user_id", "item_id", "category_id", "timestamp")
    optional: ClassVar = ("category_id",)
    describes_items: ClassVar = True

    @classmethod
    def read_items(cls, files: Sequence[InputFile]) -> Iterator[RawBatch]:
        """Yields the items with their categories; see `Adapter.read_items`."""
        for file in files:
            for first_line, lines, _ in read_lines(file.path):
                yield _items(file, first_line, lines)

    def adapt(self, batch: RawBatch) -> RawBatch:
        """Renames the columns and adds the category of the item."""
        batch = batch.renamed(
            {"reviewerID": "user_id", "asin": "item_id", "unixReviewTime": "timestamp"}
        )
        return self.with_item_value(batch, "category_id", np.zeros(len(batch.lines), np.int64))


def _items(file: InputFile, first_line: int, lines: Sequence[bytes]) -> RawBatch:
    items, categories, numbers, rejections = [], [], [], []
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        record = _parse(line)
        if not isinstance(record, dict):
            reason = "neither a JSON object nor a Python dictionary"
            text = line.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
            rejections.append(Rejection.of(file.path, number, reason, text))
            continue
        items.append(_encodable(record.get("asin")))
        categories.append(_leaf(record.get("categories", record.get("category"))))
        numbers.append(number)
    columns = {ITEM: pa.array(items, pa.string()), VALUE: pa.array(categories, pa.string())}
    return RawBatch(file, columns, np.array(numbers, np.int64), rejections)


def _leaf(categories: Any) -> str | None:
    """The last text of the last list, or None."""
    while isinstance(categories, list) and categories:
        categories = categories[-1]
    return _encodable(categories)


def _encodable(value: Any) -> str | None:
    """The value if it is a text that UTF-8 can encode, else None (half a surrogate pair)."""
    try:
        return value if isinstance(value, str) and value.encode() else None
    except UnicodeEncodeError:
        return None


def _parse(line: bytes) -> Any:
    """The content of a line of metadata; None if it is neither JSON nor a Python literal.

    `ast.literal_eval` takes a quarter of a millisecond per line. In nearly all lines only the
    quotation marks differ from JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        text = line.decode("utf-8")
        try:
            return orjson.loads(_TEXT.sub(_as_json, text))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _as_json(match: re.Match[str]) -> str:
    simple = match[1]
    if simple is not None:
        return f'"{simple}"'
    return orjson.dumps(ast.literal_eval(match[0])).decode()
