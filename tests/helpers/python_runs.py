"""Python in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def python(*arguments, cwd=ROOT, **environment: str) -> str:
    """What Python prints; fails the test with the end of its standard error if it fails.

    Args:
        arguments: Arguments of Python, such as `-m` and a module, or `-c` and a program.
        cwd: Working directory; that of the project finds its packages.
        environment: Variables of the environment that differ.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
