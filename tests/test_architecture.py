"""The import graph of the design: arrows point downwards only."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ALLOWED = {
    "preprocessing": set(),
    "models": {"preprocessing"},
    "serving": {"models", "preprocessing"},
    "pipeline": {"serving", "models", "preprocessing"},
}
KERAS_MODULE = "models/keras.py"


def _imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _sources() -> list[pathlib.Path]:
    return [path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))]


def test_rooms_import_only_downwards():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources()
        for name in _imports(path)
        for room in [path.relative_to(ROOT).parts[0]]
        if name.split(".")[0] in ALLOWED
        and name.split(".")[0] != room
        and name.split(".")[0] not in ALLOWED[room]
    ]
    assert not wrong


def test_one_module_imports_keras_and_one_tensorflow_io():
    found = {"keras": set(), "tensorflow_io": set(), "apache_beam": set()}
    for path in _sources():
        for name in _imports(path):
            top = "keras" if name.split(".")[0] in ("keras", "tf_keras") else name.split(".")[0]
            if top in found:
                found[top].add(str(path.relative_to(ROOT)))
    assert found["keras"] == {KERAS_MODULE}
    assert found["tensorflow_io"] == {"preprocessing/tensorflow_files.py"}
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
