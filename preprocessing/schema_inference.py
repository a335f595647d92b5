"""The schema of a canonical log, from its columns."""

from collections.abc import Iterable

from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, REQUEST_ID, TIMESTAMP
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import DType, Feature, Role
from preprocessing.features.history import History, default_history
from preprocessing.schema import Schema

POSITION = "position"
"""Column of a canonical log without times: the place of an event among those of its user."""


def infer_schema(
    columns: Iterable[str], max_length: int = 50, time_dtype: DType = DType.INT64
) -> Schema:
    """The schema of a canonical log: user_id, item_id, perhaps a time, further item columns.

    Every id is read as a string and gets a vocabulary. Time is the column timestamp or, in a log
    that only has the order of each user's events, the column position. The columns label and
    request_id make it an impression log. The order of the columns means nothing: the history has
    the item, its category, then the other columns by name.

    Args:
        columns: Column names of the log, in any order.
        max_length: Largest length L of a history, in events.
        time_dtype: Type of the column timestamp.

    Raises:
        UserError: The log has no user_id or no item_id, has both timestamp and position, or has a
            column whose name is no identifier.

    Example:
        >>> schema = infer_schema(["user_id", "item_id", "brand", "category_id", "timestamp"])
        >>> schema.history.features
        ('item_id', 'category_id', 'brand')
    """
    columns = list(columns)
    for required in ("user_id", "item_id"):
        if required not in columns:
            raise UserError(
                f"Expected the columns user_id and item_id, found {', '.join(columns)}.",
                "name a schema file with --schema.",
            )

    times = [name for name in (TIMESTAMP, POSITION) if name in columns]
    if len(times) > 1:
        raise UserError(
            f"Expected one column that orders events, found both {TIMESTAMP} and {POSITION}.",
            f'name a schema file with --schema; it can give {POSITION} the role "item" or '
            '"context", or leave it out.',
        )

    def categorical(name: str, role: Role) -> Feature:
        return Feature(name=name, column=name, role=role, dtype=DType.STRING, encoder=Vocabulary())

    request_columns = {LABEL: (Role.LABEL, DType.INT64), REQUEST_ID: (Role.REQUEST, DType.STRING)}
    item_columns = [
        name for name in columns if name not in ("user_id", "item_id", *times, *request_columns)
    ]
    items = default_history(["item_id", *item_columns])
    for name in items:
        if not name.isidentifier():
            raise UserError(
                f"Expected column names that are identifiers, found {name!r}.",
                'name a schema file with --schema; it maps columns to names ("column").',
            )
    features = [categorical("user_id", Role.USER)]
    features += [categorical(name, Role.ITEM) for name in items]
    features += [
        Feature(
            name=TIMESTAMP,
            column=column,
            role=Role.TIMESTAMP,
            dtype=time_dtype if column == TIMESTAMP else DType.INT64,
        )
        for column in times
    ]
    features += [
        Feature(name=column, column=column, role=role, dtype=dtype)
        for column, (role, dtype) in request_columns.items()
        if column in columns
    ]
    return Schema(tuple(features), History(max_length=max_length, features=items))
