"""Compiles the operations for this machine, on explicit request only."""

import os
import pathlib
import subprocess
import sys

from models.ops.native import library
from preprocessing.errors import UserError, explained_write_errors

_PLAIN = "without it training uses TensorFlow's operations, which are slower"


def build() -> pathlib.Path:
    """Compiles the library of this machine unless it is there; returns its path.

    Raises:
        UserError: There is no compiler; it fails; the result cannot be loaded or written.
    """
    compiler = library.compiler()
    if not compiler:
        raise UserError(
            f"Expected the compiler {library.COMPILER} on PATH, found none; {_PLAIN}.",
            f"install it (on Debian: apt install g++) and run {library.BUILD}.",
        )
    target = library.path(compiler)
    if target.exists():
        return target
    with explained_write_errors("the cache directory", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Others may compile at the same time, and a library under its name is complete.
        unfinished = target.with_name(f".{target.stem}-{os.getpid()}.so")
        try:
            _run(f"{library.COMPILER} to compile {library.SOURCE}", _command(unfinished))
            # A process of its own: what is broken may end it.
            load = f"import tensorflow as tf; tf.load_op_library({str(unfinished)!r})"
            _run("TensorFlow to load what was compiled", [sys.executable, "-c", load])
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


def _command(target: pathlib.Path) -> list[str]:
    """The command line of the compiler."""
    from models.keras import tf

    flags, libraries = tf.sysconfig.get_compile_flags(), tf.sysconfig.get_link_flags()
    options = (*flags, *library.options())
    return [library.COMPILER, *options, str(library.SOURCE), *libraries, "-o", str(target)]


def _run(expected: str, command: list[str]) -> None:
    """Runs a command; raises `UserError` with its first complaint if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or ["no message"]
        raise UserError(
            f"Expected {expected}, found status {done.returncode}: {lines[0].strip()}; {_PLAIN}.",
            f"see whether {library.COMPILER} and TensorFlow are whole, then {library.BUILD}.",
        )
