"""Draws the rooms: what imports what inside of each, as Mermaid in docs/architecture.md.

    python -m tests.room_page

A box is a file or a folder. Arrows that follow from others are left out of a drawing.
"""

import ast
import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("preprocessing", "models", "serving", "pipeline")
"""From the lowest to the highest: each imports only those before it."""
FLOORS = ("models.layers", "models.ops", "pipeline.log", "serving.tfserving")
"""Folders that have folders of their own."""
_BEGIN, _END = "<!-- drawn by python -m tests.room_page -->\n", "<!-- end of the drawings -->\n"

Arrows = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Every module of the rooms by its dotted name; a package is its `__init__`."""
    paths = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of the rooms that a module imports, wherever in its file."""
    targets = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= (inner & modules().keys()) or {node.module}
    return frozenset(targets & modules().keys())


def boxes(folder: str) -> list[str]:
    """Files and folders of a folder, by dotted name; its `__init__` is none."""
    inside = {_box(name, folder) for name in modules() if name.startswith(f"{folder}.")}
    return sorted(inside)


def arrows(folder: str) -> Arrows:
    """Of every box of a folder, which other boxes it imports from."""
    targets: dict[str, set[str]] = {box: set() for box in boxes(folder)}
    for module in modules():
        if module.startswith(f"{folder}."):
            box = _box(module, folder)
            inside = {name for name in imports(module) if name.startswith(f"{folder}.")}
            targets[box] |= {_box(name, folder) for name in inside} - {box}
    return {box: frozenset(others) for box, others in targets.items()}


def reachable(graph: Arrows, start: str) -> set[str]:
    """What arrows lead to from a box, in one step or many."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        box = waiting.pop()
        if box not in seen:
            seen.add(box)
            waiting += graph[box]
    return seen


def drawing(folder: str) -> str:
    """A folder as a Mermaid flowchart, without arrows that follow from others."""
    graph = arrows(folder)
    lines = ["```mermaid", "flowchart TD"]
    for box in graph:
        name = box.rpartition(".")[2]
        is_folder = modules()[box].name == "__init__.py"
        lines.append(f"  {name}[[{name}/]]" if is_folder else f"  {name}[{name}]")
    for box, targets in graph.items():
        implied = set().union(*(reachable(graph, target) for target in targets))
        for target in sorted(targets - implied):
            lines.append(f"  {box.rpartition('.')[2]} --> {target.rpartition('.')[2]}")
    return "\n".join([*lines, "```"])


def page(current: str) -> str:
    """docs/architecture.md with its drawings made anew.

    Args:
        current: The page as it is.
    """
    before, _, rest = current.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return before + _BEGIN + "".join(_sections()) + _END + after


def _sections() -> Iterator[str]:
    for folder in (*ROOMS, *FLOORS):
        yield f"\n### `{folder.replace('.', '/')}`\n\n{_table(folder)}\n\n{drawing(folder)}\n\n"


def _table(folder: str) -> str:
    """What the folders of a folder are for, from their docstrings."""
    rows = ["| folder | holds |", "| --- | --- |"]
    for box in boxes(folder):
        if modules()[box].name == "__init__.py":
            tree = ast.parse(modules()[box].read_text(encoding="utf-8"))
            summary = (ast.get_docstring(tree) or "").partition("\n")[0]
            rows.append(f"| `{box.rpartition('.')[2]}/` | {summary} |")
    return "\n".join(rows)


def _box(module: str, folder: str) -> str:
    depth = folder.count(".") + 2
    return ".".join(module.split(".")[:depth])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
