"""Parsing of the paths of the REST interface."""

import dataclasses
import re
import urllib.parse

from serving.tfserving.status import invalid

_MAX_INT64 = 2**63 - 1
_SPEC = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_POST = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_SPEC}:(?P<method>classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(
    rf"/v1/models(?:/(?P<model>[^/:]+))?{_SPEC}(?:/(?P<method>metadata))?", re.IGNORECASE
)
_METHODS = ("predict", "classify", "regress")


@dataclasses.dataclass(frozen=True)
class Route:
    """The call and the model version that a request line asks for.

    Attributes:
        method: Name of the call: "predict", "classify", "regress", "status" or "metadata".
        model: Name of the model; "" if the path has none.
        version: Number of the version, or None for the latest.
        label: Label of the version, or None.
    """

    method: str
    model: str
    version: int | None
    label: str | None


def in_api(target: str) -> bool:
    """Whether a path (with its query string) belongs to the API, well-formed or not."""
    return _API.fullmatch(target) is not None


def route(verb: str, target: str) -> Route:
    """Parses a request line.

    The path may be in any case, but calls have names in lower case: `:PREDICT` is refused, and a
    path that ends in `/METADATA` asks for the status.

    Args:
        verb: HTTP method.
        target: Path and query string as sent, still percent-encoded. The query string is part of
            the text that must match, as in TensorFlow Serving.

    Raises:
        ServingError: INVALID_ARGUMENT if no call has this request line.
    """
    pattern = {"POST": _POST, "GET": _GET}.get(verb)
    match = pattern.fullmatch(target) if pattern else None
    if match is None or (verb == "POST" and match["method"] not in _METHODS):
        raise invalid(f"Malformed request: {verb} {target}")
    version = None
    if match["version"]:
        # The length is checked first, because int() raises an error for thousands of digits.
        if len(match["version"].lstrip("0")) > 19 or int(match["version"]) > _MAX_INT64:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        version = int(match["version"])
    method = match["method"]
    if verb == "GET" and method != "metadata":
        method = "status"
    return Route(
        method=method,
        model=urllib.parse.unquote(match["model"] or ""),
        version=version,
        label=None if match["label"] is None else urllib.parse.unquote(match["label"]),
    )
