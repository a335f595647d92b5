"""The installed programs work where the current directory has packages of our names."""

import os
import pathlib
import subprocess
import sys

import pytest

from pipeline.job import search_path
from preprocessing import cli
from tests import command_page
from tests.helpers.small_logs import columns, random_events, write_log

ROOT = pathlib.Path(__file__).parents[1]
BIN = pathlib.Path(sys.executable).parent
ROOMS = ("models", "pipeline", "serving", "preprocessing")


@pytest.fixture
def elsewhere(tmp_path):
    """A directory with packages of our names that are none of ours."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"raise RuntimeError('another {room}')\n")
    return tmp_path


def _run(program, *flags, cwd):
    return subprocess.run(
        [BIN / program, *flags],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("program", ["ctr-run", "ctr-train", "ctr-server"])
def test_a_program_finds_our_packages(elsewhere, program):
    done = _run(program, "--help", cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Of every command:" in done.stdout
    assert f"    {program} --" in done.stdout.replace(f"{BIN}/", "")
    assert "python -m" not in done.stdout


def test_a_program_names_programs_in_its_errors(tmp_path):
    done = _run("ctr-audit", cwd=tmp_path)
    assert done.stderr == (
        f"error: Expected a data directory, found none. Fix: {BIN}/ctr-audit DATA\n"
    )


def test_programs_are_called_after_their_modules():
    for name, module in command_page.scripts().items():
        assert cli.with_programs(f"python -m {module} --x") == f"{name} --x"


def test_commands_are_printed_as_one_can_type_them(tmp_path, monkeypatch):
    text = "run python -m pipeline.build_examples again; see python -m tests.bench"
    monkeypatch.setattr(sys, "argv", ["/x/models/train.py"])
    assert cli.as_started(text) == text
    program = tmp_path / "bin" / "ctr-train"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(program.parent))
    assert cli.as_started(text) == "run ctr-build-examples again; see python -m tests.bench"
    monkeypatch.setenv("PATH", "/bin")
    assert cli.as_started(text).startswith(f"run {program.parent}/ctr-build-examples again")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
def test_so_do_the_processes_of_a_build(elsewhere):
    write_log(elsewhere / "log.csv", columns(random_events()))
    workers = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    flags = ("--input=log.csv", "--output=data", "--num_shards=2", *workers)
    done = _run("ctr-build-examples", *flags, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "data" / "_COMPLETED").exists()


@pytest.mark.parametrize("module", ["pipeline.run", "serving.server"])
def test_a_module_says_whose_packages_it_found(tmp_path, module):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    for program in (("-m", module), ("-c", f"import {module}")):
        done = subprocess.run(
            [sys.executable, *program, "--help"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        line = done.stderr.splitlines()[-1]
        assert f"Expected the package 'models' in {ROOT}, found another one in {tmp_path}" in line
        assert "ctr-run" in line
        if program[0] == "-m":
            assert done.stderr == f"{line}\n"
            assert line.startswith("error: ")


def test_other_processes_look_where_this_one_does(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "/a"])
    monkeypatch.setenv("PYTHONPATH", "/b")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with search_path.inherited():
        assert os.environ["PYTHONPATH"] == f"{os.getcwd()}{os.pathsep}/a"
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONPATH"] == "/b"
    assert "PYTHONSAFEPATH" not in os.environ
