"""Export, signatures, parity, the embedded server and its client."""

from typing import Any

from preprocessing import lazy_name, require_neighbours

require_neighbours("models")

_NAMES = {
    "export_run": "serving.export:export",
    "ExportOptions": "serving.export",
    "Client": "serving.client.clients",
}


def __getattr__(name: str) -> Any:
    return lazy_name(__name__, _NAMES, name)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
