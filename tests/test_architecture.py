"""The import graph of the design: arrows point one way, between rooms and inside of them."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests import room_page
from tests.room_page import FLOORS, ROOMS, ROOT

KERAS_MODULE = "models/keras.py"
MAX_BOXES = 20
"""A room whose top level shows more is no drawing that anybody reads."""


def _imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _sources() -> list[pathlib.Path]:
    return list(room_page.modules().values())


def test_rooms_import_only_downwards():
    wrong = [
        f"{module} imports {name}"
        for module in room_page.modules()
        for name in room_page.imports(module)
        if ROOMS.index(name.split(".")[0]) > ROOMS.index(module.split(".")[0])
    ]
    assert not wrong


@pytest.mark.parametrize("folder", [*ROOMS, *FLOORS])
def test_arrows_inside_of_a_room_point_one_way(folder):
    graph = room_page.arrows(folder)
    assert graph
    assert not [box for box in graph if box in room_page.reachable(graph, box)]


@pytest.mark.parametrize("folder", ROOMS)
def test_a_room_is_seen_at_a_glance(folder):
    assert len(room_page.boxes(folder)) <= MAX_BOXES


def test_every_folder_says_what_it_holds():
    packages = {path for path in room_page.modules().values() if path.name == "__init__.py"}
    assert {path.parent for path in _sources()} == {path.parent for path in packages}
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in packages)


def test_the_drawings_are_up_to_date():
    current = room_page.PAGE.read_text(encoding="utf-8")
    assert current == room_page.page(current), "run python -m tests.room_page"


def test_one_module_imports_keras_and_one_tensorflow_io():
    found = {"keras": set(), "tensorflow_io": set(), "apache_beam": set()}
    for path in _sources():
        for name in _imports(path):
            top = "keras" if name.split(".")[0] in ("keras", "tf_keras") else name.split(".")[0]
            if top in found:
                found[top].add(str(path.relative_to(ROOT)))
    assert found["keras"] == {KERAS_MODULE}
    assert found["tensorflow_io"] == {"preprocessing/storage/tensorflow_files.py"}
    assert {name.split("/")[0] for name in found["apache_beam"]} == {"pipeline"}


@pytest.mark.parametrize("module", ["pipeline.build_examples", "pipeline.synthesize"])
def test_beam_jobs_import_no_tensorflow(module):
    program = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('tensorflow', 'tf_keras', 'keras'):\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        f"import {module}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_files_fit_in_a_readers_head():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long
