"""The cells of notebooks, and what is left when they have run."""

import json
import pathlib
from typing import Any

WALK = pathlib.Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
"""The notebook that goes from a stranger's CSV to served scores."""


def cells(path: pathlib.Path, kind: str = "code") -> list[str]:
    """Sources of the cells of a kind, in their order."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def run(path: pathlib.Path, sources: list[str]) -> dict[str, Any]:
    """Runs sources of cells of a notebook in one namespace; returns the namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(sources, 1):
        exec(compile(source, f"{path}, code cell {number}", "exec"), names)
    return names
