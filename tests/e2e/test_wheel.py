"""A wheel of the checkout works away from it: entry points, files of packages, a small run."""

import pathlib
import zipfile

import pytest

from tests.helpers.python_runs import python
from tests.helpers.small_logs import columns, random_events, write_log

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
_ENTRIES = """
import importlib.metadata, pathlib, sys
import models, pipeline, preprocessing, serving
home = pathlib.Path(sys.argv[1])
for package in (models, pipeline, preprocessing, serving):
    assert home in pathlib.Path(package.__file__).parents, package.__file__
(found,) = importlib.metadata.distributions(name="sequence-ctr", path=[str(home)])
entries = [entry for entry in found.entry_points if entry.group == "console_scripts"]
assert all(callable(entry.load()) for entry in entries)
print(len(entries))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the files that belong to the project, built without a network."""
    path = tmp_path_factory.mktemp("wheel")
    source = path / "source"
    source.mkdir()
    for name in ("models", "pipeline", "preprocessing", "serving"):
        (source / name).symlink_to(ROOT / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    pip = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    python(*pip, "--wheel-dir", path, source, cwd=path, PYTHONPATH="")
    (built,) = path.glob("*.whl")
    return built


def test_files_of_packages_are_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = ("models/reporting/templates", "pipeline/templates", "serving/explore_page")
    for folder in (*kinds, "serving/deploy", "models/ops/native"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        wanted = {str(f.relative_to(ROOT)) for f in files if "__pycache__" not in f.parts}
        assert wanted
        assert wanted <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_a_small_run_away_from_the_checkout(wheel, tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    away.mkdir()
    pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-index")
    python(*pip, "--target", home, wheel, cwd=away, PYTHONPATH="")
    assert int(python("-c", _ENTRIES, home, cwd=away, PYTHONPATH=str(home))) >= 20
    assert "ctr-train --data=DATA" in python(
        home / "bin" / "ctr-train", "--help", cwd=away, PYTHONPATH=str(home)
    )
    write_log(away / "log.csv", columns(random_events()))
    printed = python(
        "-m",
        "pipeline.run",
        "--input=log.csv",
        "--workdir=work",
        "--model=din",
        "--set=train.max_steps=2",
        cwd=away,
        home=home,
    )
    assert "report" in printed
    assert (away / "work" / "report.html").exists()
    assert (away / "work" / "model" / "1" / "saved_model.pb").exists()
