"""Values of a configuration from JSON: names are checked, and types are those of a dataclass."""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean

_INTEGERS = 1 << 31
"""Bound on the size of integers: TensorFlow's seeds and steps have no more bits."""

ALIASES = {
    "lr": "learning_rate",
    "embedding_lr": "embedding_learning_rate",
    "ssl_lr": "ssl_learning_rate",
    "bs": "batch_size",
    "num_epochs": "epochs",
    "num_steps": "max_steps",
    "early_stopping": "patience",
    "weight_decay": "l2",
    "grad_clip": "clip_norm",
    "random_seed": "seed",
    "random_state": "seed",
    "class_weight": "positive_weight",
    "optimizer": "embedding_optimizer",
    "embedding_dim": "embedding_size",
    "emb_dim": "embedding_size",
    "hidden_units": "units",
    "num_heads": "heads",
    "tau": "temperature",
}
"""Common names of settings in other projects, with the names here."""


def check_known(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises `UserError` for the first key that is not known, with the one that was meant."""
    known = list(known)
    for key in values:
        if key not in known:
            alias = ALIASES.get(key)
            raise UserError(
                f"Unknown key {key!r} in {where}; known are {', '.join(known)}.",
                f"did you mean {alias!r}?" if alias in known else did_you_mean(key, known),
            )


def fill(kind: type[Any], values: Mapping[str, Any], section: str) -> Any:
    """Builds a dataclass from JSON values.

    Args:
        kind: The dataclass.
        values: Values by the name of a field; the other fields keep their defaults.
        section: Section of the values, for error messages.

    Raises:
        UserError: A name is unknown, or a value has another type than its field.
    """
    types = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    check_known(values, sorted(fields), f"section {section!r}")
    return kind(
        **{key: cast(value, types[key], f"{section}.{key}") for key, value in values.items()}
    )


def cast(value: Any, expected: Any, where: str) -> Any:
    """The value, converted to the type of a setting.

    Raises:
        UserError: It has another type, or is a number that is not finite or too large.
    """
    origin = typing.get_origin(expected) or expected
    if origin is tuple and isinstance(value, (list, tuple)):
        item = typing.get_args(expected)[0]
        return tuple(cast(element, item, where) for element in value)
    if isinstance(value, int) and not -_INTEGERS < value < _INTEGERS:
        raise UserError(f"Expected {where} to be smaller than 2^31 in size, found {value}.")
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"Expected {where} to be a finite number, found {value}.")
    options = typing.get_args(expected) if origin not in (tuple, float, int, str, bool) else ()
    if options:
        for option in options:
            try:
                return cast(value, option, where)
            except UserError:
                continue
    elif isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
        return value
    name = str(expected) if typing.get_args(expected) else expected.__name__
    hint = "write a list, as in [200, 80]." if origin is tuple else ""
    raise UserError(f"Expected {where} of type {name}, found {value!r}.", hint)
