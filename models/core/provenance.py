"""Provenance of a result besides its configuration: command, code, packages, machine."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import numpy as np

from models.keras import keras, tf, tfrs

_PROJECT = "sequence-ctr"
_ROOT = pathlib.Path(__file__).parents[2]
_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
"""Environment variables that change speed or the order of additions."""


def command() -> str:
    """The command line of this process, as typed in a shell."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        program = ["python", "-m", spec.name.removesuffix(".__main__")]
    elif sys.argv[0].endswith(".py"):
        program = ["python", sys.argv[0]]
    else:
        program = [pathlib.Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])


def code() -> dict[str, Any]:
    """Version of the project; in a git checkout also `commit` and whether files were `modified`."""
    info: dict[str, Any] = {"version": project_version()}
    if (_ROOT / ".git").exists() and (commit := _git("rev-parse", "HEAD")):
        changed = _git("status", "--porcelain", "--untracked-files=no")
        info |= {"commit": commit, "modified": bool(changed)}
    return info


def versions() -> dict[str, str]:
    """Python and the packages that results depend on.

    The versions come from the modules, not the distributions: TensorFlow's distribution has several
    names.
    """
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tf-keras": keras.__version__,
        "tensorflow-recommenders": tfrs.__version__.removeprefix("v"),
        "numpy": np.__version__,
    }


def machine() -> dict[str, Any]:
    """The machine of this process: `system`, `processor`, usable `cores`, bytes of `memory`.

    It also has `gpus`, their names, and `environment`, the variables that are set.
    """
    details = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "system": platform.platform(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": int(_field("/proc/meminfo", "MemTotal").split()[0]) << 10,
        "gpus": [gpu.get("device_name", "GPU") for gpu in details],
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def project_version() -> str:
    """The version of the project as it is installed."""
    try:
        return importlib.metadata.version(_PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Output of a git command in the checkout; "" without git."""
    try:
        result = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return result.stdout.strip()


def _field(file: str, name: str) -> str:
    """The first value of a name in a file of /proc; "0" if the name is missing."""
    for line in pathlib.Path(file).read_text(encoding="utf-8").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return "0"
