"""The data contract: schema, encoders, sequences, splits, negatives, example codec, reader."""

import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

# Level 3 hides the "unable to register factory" lines that TensorFlow 2.17 prints on every start.
# It has an effect only before the first import of TensorFlow, so the lowest package sets it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_NAMES = {
    "DataDir": "preprocessing.data_dir",
    "Schema": "preprocessing.schema",
    "batches": "preprocessing.dataset:read",
}


def lazy_name(package: str, places: Mapping[str, str], name: str) -> Any:
    """What a package offers under a name, loaded when it is asked for.

    Args:
        package: Name of the package, for the error.
        places: Module of each name, with `:other` where it has another name there.
        name: Name that is asked for.

    Raises:
        AttributeError: The package has no such name.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, other = places[name].partition(":")
    return getattr(importlib.import_module(module), other or name)


def require_neighbours(*packages: str) -> None:
    """Ends `python -m` with one line where the current directory has packages of our names.

    Args:
        packages: Names of our packages, none of which is imported here.

    Raises:
        SystemExit: A package is another one, and the process was started by `python -m`.
        ImportError: The same, for programs that import us.
    """
    home = pathlib.Path(__file__).resolve().parents[1]
    for name in packages:
        spec = importlib.util.find_spec(name)
        places = (spec and spec.submodule_search_locations) or ()
        directories = [pathlib.Path(place).resolve() for place in places]
        if not directories or home / name in directories:
            continue
        message = (
            f"Expected the package {name!r} in {home}, found another one in {directories[0]}, "
            "which `python -m` finds first. Fix: start the program instead (ctr-run for python -m "
            "pipeline.run), or work in another directory."
        )
        if sys.argv[:1] == ["-m"]:
            raise SystemExit(f"error: {message}")
        raise ImportError(message)


def __getattr__(name: str) -> Any:
    return lazy_name(__name__, _NAMES, name)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
