"""Checks on parsed JSON, each with a message that says what was expected, found, and where."""

import difflib
import enum
import json
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from preprocessing.errors import UserError
from preprocessing.storage.files import AnyPath

_Member = TypeVar("_Member", bound=enum.Enum)


def read_json(path: AnyPath, what: str, fix: str = "", kind: type = dict) -> Any:
    """The content of a JSON file.

    Args:
        path: Path of the file.
        what: Description of the expected content, for error messages.
        fix: Advice for a file that does not hold it, for error messages.
        kind: Expected type of the content: `dict` for an object, `list` for an array.

    Raises:
        UserError: There is no such file; it cannot be read; it holds no JSON, or JSON of another
            type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"Expected {what} in {path}, found no such file.", fix) from None
    except OSError as error:
        raise UserError(f"Expected {what} in {path}, found: {error.strerror}.", fix) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"Expected {what} in {path}, found a syntax error in its JSON: {error}.", fix
        ) from None
    if not isinstance(content, kind):
        name = "object" if kind is dict else "array"
        raise UserError(
            f"Expected {what} in {path}, a JSON {name}, found {type(content).__name__}.", fix
        )
    return content


def check_keys(record: Any, known: Collection[str], required: Collection[str], where: str) -> None:
    """Raises `UserError` unless `record` is an object of known keys with all required ones."""
    if not isinstance(record, Mapping):
        raise UserError(f"{where}: expected an object, found {type(record).__name__}.")
    for key in record:
        if key not in known:
            hint = did_you_mean(key, known) or f"known keys: {', '.join(sorted(known))}."
            raise UserError(f"{where}: unknown key {key!r}.", hint)
    for key in sorted(set(required) - set(record)):
        raise UserError(f"{where}: expected the key {key!r}, found {', '.join(sorted(record))}.")


def string(value: Any, where: str) -> str:
    """Returns the value if it is a string that is not empty, else raises `UserError`."""
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: expected a string, found {value!r}.")
    return value


def integer(value: Any, where: str, lowest: int) -> int:
    """Returns the value if it is an integer of at least `lowest`, else raises `UserError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise UserError(f"{where}: expected an integer of at least {lowest}, found {value!r}.")
    return value


def array(value: Any, where: str) -> list[Any]:
    """Returns the value if it is an array, else raises `UserError`."""
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: expected an array, found {value!r}.")
    return list(value)


def choice(value: Any, choices: Collection[str], where: str) -> str:
    """Returns the value if it is one of the choices, else raises `UserError` with a hint."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(
            f"{where}: expected one of {', '.join(choices)}, found {value!r}.",
            did_you_mean(value, choices),
        )
    return value


def member(kind: type[_Member], value: Any, where: str) -> _Member:
    """Returns the member of a string enumeration with this value, else raises `UserError`."""
    return kind(choice(value, [option.value for option in kind], where))


def did_you_mean(value: Any, known: Collection[str]) -> str:
    """A hint at the closest known word; empty if none is close."""
    close_matches = difflib.get_close_matches(str(value), sorted(known), 1)
    return f"did you mean {close_matches[0]!r}?" if close_matches else ""
