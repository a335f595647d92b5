"""Runs commands that end at once, with what they print and which large packages they load.

Each command needs a process of its own, for its flags and its modules. One process that has loaded
what all of them need (NumPy, Arrow, absl) forks them, so that each takes a tenth of a second.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGE = ("tensorflow", "tf_keras", "apache_beam", "pandas", "sklearn", "scipy", "optuna")
"""Packages that take long to load, or belong to others that do."""

_FORKS = """
import json, os, pathlib, runpy, sys
import absl.app, absl.flags, numpy, pyarrow.compute, pyarrow.csv, pyarrow.fs, pyarrow.json
import pyarrow.parquet, tqdm
large, directory, calls = json.load(sys.stdin)
for number, (module, argv) in enumerate(calls):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        continue
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{directory}/{number}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = [module, *argv]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    found = [name for name in large if name in sys.modules]
    pathlib.Path(f"{directory}/{number}.json").write_text(json.dumps([status, found]))
    os._exit(0)
"""


class Ended(NamedTuple):
    """A command that has ended.

    Attributes:
        status: Exit status; None if it ended with an exception, which `error` shows.
        output: Standard output.
        error: Standard error.
        loaded: Which of the packages `LARGE` it loaded.
    """

    status: int | None
    output: str
    error: str
    loaded: tuple[str, ...]


def run_all(calls: list[tuple[str, list[str]]], directory: pathlib.Path) -> list[Ended]:
    """Runs commands one after the other.

    Args:
        calls: Module and arguments of each.
        directory: Empty directory for what they print.
    """
    subprocess.run(
        [sys.executable, "-c", _FORKS],
        cwd=ROOT,
        input=json.dumps([LARGE, str(directory), calls]),
        text=True,
        check=True,
    )
    return [_ended(directory, number) for number in range(len(calls))]


def _ended(directory: pathlib.Path, number: int) -> Ended:
    output, error = ((directory / f"{number}.{name}").read_text() for name in ("out", "err"))
    status, loaded = None, []
    with contextlib.suppress(FileNotFoundError):
        status, loaded = json.loads((directory / f"{number}.json").read_text())
    return Ended(status, output, error, tuple(loaded))
