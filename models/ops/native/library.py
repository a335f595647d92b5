"""Which compiled library fits this machine, and where it lies.

A library is never used unless its name has the digest of all that it was made from and for: source,
compiler, options, TensorFlow, features of the processor.
"""

import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

SOURCE = pathlib.Path(__file__).with_name("local_activation.cc")
COMPILER = "g++"
BUILD = "ctr-doctor --build_native"
"""The command that compiles."""

_OPTIONS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-w"),
)
_WIDE = "-mprefer-vector-width=512"
"""GCC prefers half of the width otherwise."""


def processor() -> str:
    """The features of the processor as Linux names them; code for others may end the process."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return " ".join([platform.machine(), *sorted(value.split())])
    return platform.machine()


def options() -> tuple[str, ...]:
    """The compiler's options for this processor, without those that TensorFlow asks for."""
    return (*_OPTIONS, _WIDE) if "avx512f" in processor().split() else _OPTIONS


def directory() -> pathlib.Path:
    """Where compiled libraries lie, which need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "sequence-ctr", "native")


def compiler() -> str:
    """The compiler's version; "" if there is none."""
    if shutil.which(COMPILER) is None:
        return ""
    answer = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0]


def path(compiler_version: str) -> pathlib.Path:
    """The library of this source and machine, by a version of the compiler, or "*" for any."""
    from models.keras import tf  # The doctor's --help need not wait for it.

    sources = sorted([SOURCE, *SOURCE.parent.glob("*.h")])
    made_from = {
        "source": {source.name: _digest(source.read_bytes()) for source in sources},
        "options": options(),
        "tensorflow": [tf.version.VERSION, tf.version.GIT_VERSION],
        "processor": processor(),
    }
    machine = _digest(json.dumps(made_from, sort_keys=True).encode())
    by = "*" if compiler_version == "*" else _digest(compiler_version.encode())
    return directory() / f"{SOURCE.stem}-{machine}-{by}.so"


def find() -> pathlib.Path | None:
    """The library of this machine, None if it is not compiled.

    A machine without a compiler, such as a small image, takes that of any compiler.
    """
    wanted = path(compiler() or "*")
    return max(wanted.parent.glob(wanted.name), default=None)


def load(library: pathlib.Path) -> Any:
    """The operations of a library that `find` returned."""
    # An operation can be registered once in a process, and equal names are equal libraries.
    if library.name not in _loaded:
        from models.keras import tf

        _loaded[library.name] = tf.load_op_library(str(library))
    return _loaded[library.name]


_loaded: dict[str, Any] = {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
