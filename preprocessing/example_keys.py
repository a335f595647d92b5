"""Keys of an example: those that every example has, and those of features."""

TIMESTAMP = "timestamp"
REQUEST_ID = "request_id"
REQUEST_USER = "request/user"
"""Key of the raw user of a request. No feature can have it: their names are identifiers."""
REQUEST_INDEX = "request/index"
"""Key of the index of the positive among the events of its user; impression logs have none."""
LABEL = "label"
LABEL_WEIGHT = "label/weight"
"""Key of the weight of each candidate in the loss and in weighted metrics, if the log has any."""


def candidate_key(name: str) -> str:
    """Name of an item feature of the candidates in an example."""
    return f"candidate/{name}"


def history_key(name: str) -> str:
    """Name of an item feature (or the timestamp) of the history in an example."""
    return f"history/{name}"


def lengths_key(name: str) -> str:
    """Name of the numbers of values per candidate of an item feature that has many values."""
    return f"{candidate_key(name)}/lengths"
