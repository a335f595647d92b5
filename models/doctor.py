"""Checks packages and machine, and suggests a fix for each problem.

    python -m models.doctor
    python -m models.doctor --build_native

--build_native compiles DIN's attention unit for this machine instead, which needs g++ and half a
minute; training on a CPU then uses it.
"""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from absl import flags
from packaging.requirements import Requirement

from models.ops.native import library
from preprocessing import cli

_PROJECT = "sequence-ctr"
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
_LEAST_MEMORY = _LEAST_DISK = 2 << 30
"""Minimum free bytes: TensorFlow takes half a GiB, and a data set is sorted in memory."""
_NVIDIA_DRIVER = pathlib.Path("/proc/driver/nvidia/version")


def _version(package: str) -> str:
    """The installed version of a package; "0 (not installed)" if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "0 (not installed)"


class Finding(NamedTuple):
    """Result of a check: whether it passed, a description, and how to fix a failure."""

    well: bool
    found: str
    fix: str = ""


def check_python() -> Finding:
    """Checks that the lock files support the version of Python."""
    version = sys.version_info[:2]
    version_text = f"Python {version[0]}.{version[1]}"
    return Finding((3, 10) <= version <= (3, 13), version_text, "use Python 3.10 to 3.12")


def check_versions() -> Finding:
    """Checks that every required package is installed in a required version."""
    try:
        lines = importlib.metadata.requires(_PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, f"{_PROJECT} is not installed", "pip install -e . in its directory")
    wrong = []
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if not requirement.specifier.contains(version.split()[0], prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return Finding(not wrong, "; ".join(wrong) or f"{len(lines)} requirements", _REINSTALL)


def check_keras() -> Finding:
    """Checks that tensorflow-recommenders and the project use the same Keras 2."""
    flavour = os.environ.get("TF_USE_LEGACY_KERAS")
    if flavour not in (None, "1"):
        return Finding(
            False,
            f"TF_USE_LEGACY_KERAS={flavour} chooses Keras 3, which tensorflow-recommenders cannot "
            "use",
            "unset TF_USE_LEGACY_KERAS",
        )
    try:
        from models.keras import keras, tfrs
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)
    parent = tfrs.Model.__mro__[1].__module__.split(".")[0]
    return Finding(
        parent == "tf_keras",
        f"tfrs.Model derives from {parent} {keras.__version__}",
        "import models.keras before anything that uses tf.keras",
    )


def check_tensorflow_io() -> Finding:
    """Checks that the C++ operations of tensorflow-io load; remote file systems need them."""
    # In a separate process, because a failed load can crash the process.
    probe = "import tensorflow_io as io; io.experimental.serialization; from tensorflow_io.python.ops import core_ops; core_ops.io_parquet_readable_info"  # noqa: E501
    result = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    if result.returncode == 0:
        return Finding(True, "C++ operations load")
    reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
    # With newer TensorFlow this is known, and only remote file systems need the operations.
    newest = tuple(map(int, _version("tensorflow").split(".")[:2])) > (2, 17)
    return Finding(
        newest,
        f"C++ operations do not load ({reason[:120]}); s3://, az:// and hdfs:// need the default "
        "lane (requirements.lock)",
        _REINSTALL,
    )


def check_crc() -> Finding:
    """Checks that a C library computes the checksums of TFRecords."""
    try:
        import google_crc32c
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)
    kind = google_crc32c.implementation
    return Finding(kind == "c", f"google-crc32c, {kind} implementation", _REINSTALL)


def check_protobuf() -> Finding:
    """Checks that a C library parses messages; the one in Python is a hundred times slower."""
    from google.protobuf.internal import api_implementation

    kind = api_implementation.Type()
    fix = "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or " + _REINSTALL
    return Finding(kind != "python", f"{kind} implementation", fix)


def check_devices() -> Finding:
    """Checks that TensorFlow sees the GPUs of the machine, if it has any."""
    try:
        from models.keras import tf
    except ImportError as error:
        return Finding(False, str(error), _REINSTALL)

    gpus = len(tf.config.list_physical_devices("GPU"))
    unused = _NVIDIA_DRIVER.exists() and not gpus
    cpus = len(os.sched_getaffinity(0))
    return Finding(
        not unused,
        f"{cpus} CPUs, {gpus} GPUs" + (" although there is an NVIDIA driver" if unused else ""),
        f"pip install 'tensorflow[and-cuda]=={_version('tensorflow')}', and see that "
        "CUDA_VISIBLE_DEVICES is unset",
    )


def check_memory() -> Finding:
    """Checks the free main memory for training and preprocessing."""
    from models.training import memory

    free = memory.available()
    return Finding(
        free >= _LEAST_MEMORY,
        f"{free / 2**30:.1f} GiB available",
        f"free {_LEAST_MEMORY >> 30} GiB, or raise the limit of the container",
    )


def check_disk() -> Finding:
    """Checks the free disk space of the working directory."""
    free = shutil.disk_usage(".").free
    return Finding(
        free >= _LEAST_DISK,
        f"{free / 2**30:.1f} GiB free in {os.getcwd()}",
        f"free {_LEAST_DISK >> 30} GiB, or give outputs on another disk",
    )


def check_native() -> Finding:
    """Checks that the compiled operation loads, if there is one; training does without."""
    compiled = library.find()
    if compiled is None:
        needed = "" if library.compiler() else f"; it needs {library.COMPILER}, which is not there"
        return Finding(
            True, f"no compiled operation, so DIN trains slower; {library.BUILD} makes it{needed}"
        )
    try:
        library.load(compiled)
    except Exception as error:  # Whatever TensorFlow has against the file.
        return Finding(
            False, f"{compiled} does not load ({error})", f"rm {compiled}; {library.BUILD}"
        )
    return Finding(True, f"{compiled}")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "versions": check_versions,
    "keras": check_keras,
    "tensorflow-io": check_tensorflow_io,
    "checksums": check_crc,
    "protobuf": check_protobuf,
    "devices": check_devices,
    "native": check_native,
    "memory": check_memory,
    "disk": check_disk,
}


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_bool(
        "build_native", False, "Compile DIN's attention unit for this machine, and check nothing."
    )


def main() -> int:
    """Checks, or compiles; returns the exit status."""
    if not flags.FLAGS.build_native:
        return check_all()
    from models.ops.native.build import build

    sys.stdout.write(f"native operation: {build()}\n")
    return 0


def check_all() -> int:
    """Prints versions and findings; returns 1 if a check failed, else 0."""
    for package in _PACKAGES:
        sys.stdout.write(f"{package:24s} {_version(package)}\n")
    num_problems = 0
    for name, check in CHECKS.items():
        finding = check()
        num_problems += not finding.well
        fix = "" if finding.well or not finding.fix else f" Fix: {finding.fix}."
        sys.stdout.write(
            f"{'ok' if finding.well else 'NOT OK':7s}{name:17s} {finding.found}{fix}\n"
        )
    return 1 if num_problems else 0


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
