"""Features with several values in one row: genres of a film, tags of an article."""

import dataclasses
from typing import Any

from preprocessing.json_checks import check_keys, choice, integer, string

COMBINERS = ("mean", "sum", "sqrtn")
"""How a model makes one vector of the values of a set: their mean, their sum, or their sum divided
by the square root of their number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Many:
    """The values of a row are a set: their order means nothing, and each counts once.

    Attributes:
        max: Largest number M of values that an example holds; of more values the most frequent
            ones of the training data are kept, see `preprocessing.encoders.id_sets`.
        separator: Text between the values of a row that is a text; None if all rows are lists.
        combiner: One of `COMBINERS`.
    """

    max: int
    separator: str | None = None
    combiner: str = "mean"

    def to_json(self) -> dict[str, Any]:
        """The record that `parse` reads."""
        separator = {} if self.separator is None else {"separator": self.separator}
        return {"max": self.max, **separator, "combiner": self.combiner}


def parse(record: Any, where: str) -> Many:
    """The record "many" of a feature.

    Raises:
        UserError: Unknown keys, no `max`, or a value that is not allowed.
    """
    check_keys(record, {"max", "separator", "combiner"}, {"max"}, where)
    separator = record.get("separator")
    return Many(
        max=integer(record["max"], f"{where}: max", 1),
        separator=None if separator is None else string(separator, f"{where}: separator"),
        combiner=choice(record.get("combiner", "mean"), COMBINERS, f"{where}: combiner"),
    )
