"""Checks that the packages fit together, and says what to do where they do not.

python -m models.doctor
"""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from preprocessing import cli

_REINSTALL = "install from requirements.lock (make install)"
_PACKAGES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-recommenders",
    "tensorflow-io",
    "apache-beam",
    "numpy",
    "pandas",
    "pyarrow",
    "protobuf",
)


def _version(package: str) -> str:
    """The installed version; 0 if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "0 (not installed)"


class Finding(NamedTuple):
    """What a check found: whether it is well, and in words; how to fix it if not."""

    well: bool
    found: str
    fix: str = ""


def check_python() -> Finding:
    """Python is of a version that the locks know."""
    version = sys.version_info[:2]
    found = f"Python {version[0]}.{version[1]}"
    return Finding((3, 10) <= version <= (3, 13), found, "use Python 3.10 to 3.12")


def check_keras() -> Finding:
    """tensorflow-recommenders and the project use the same Keras 2."""
    try:
        from models.keras import keras, tfrs
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)
    parent = tfrs.Model.__mro__[1].__module__.split(".")[0]
    return Finding(parent == "tf_keras", f"tfrs.Model derives from {parent} {keras.__version__}")


def check_tensorflow_io() -> Finding:
    """The C++ operations of tensorflow-io load; only remote file systems need them."""
    # In a process of its own, because a failed load can take the process with it.
    probe = "import tensorflow_io as io; io.experimental.serialization; from tensorflow_io.python.ops import core_ops; core_ops.io_parquet_readable_info"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    if done.returncode == 0:
        return Finding(True, "C++ operations load")
    reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
    # On the modern lane that is known, and nothing but remote file systems misses them.
    newest = tuple(map(int, _version("tensorflow").split(".")[:2])) > (2, 17)
    return Finding(
        newest,
        f"C++ operations do not load ({reason[:120]}); s3://, az:// and hdfs:// need the default "
        "lane (requirements.lock)",
        _REINSTALL,
    )


def check_crc() -> Finding:
    """TFRecords get their checksums from a C library."""
    try:
        import google_crc32c
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)
    kind = google_crc32c.implementation
    return Finding(kind == "c", f"google-crc32c, {kind} implementation", _REINSTALL)


def check_devices() -> Finding:
    """Lists the devices; no kind of them is an error."""
    try:
        from models.keras import tf
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)

    gpus = len(tf.config.list_physical_devices("GPU"))
    return Finding(True, f"{os.cpu_count()} CPUs, {gpus} GPUs")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "keras": check_keras,
    "tensorflow-io": check_tensorflow_io,
    "checksums": check_crc,
    "devices": check_devices,
}


def main() -> int:
    """Prints versions and findings; exit status 1 if anything is amiss."""
    for package in _PACKAGES:
        sys.stdout.write(f"{package:24s} {_version(package)}\n")
    amiss = 0
    for name, check in CHECKS.items():
        finding = check()
        amiss += not finding.well
        fix = "" if finding.well or not finding.fix else f" Fix: {finding.fix}."
        sys.stdout.write(
            f"{'ok' if finding.well else 'NOT OK':7s}{name:17s} {finding.found}{fix}\n"
        )
    return 1 if amiss else 0


def console_main() -> None:
    """Entry point."""
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
