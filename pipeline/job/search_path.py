"""Where Python processes that this one starts look for modules: where this one does.

`python -m` looks in the current directory first, which may hold other packages of our names.
"""

import contextlib
import os
import sys
from collections.abc import Iterator


def variables() -> dict[str, str]:
    """Variables of the environment with which `python -m` looks where this process does.

    Python 3.10 does not know the first one, and goes on to look in the current directory as well.
    """
    entries = [entry or os.getcwd() for entry in sys.path]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(entries)}


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Processes that are started in this context look where this process does."""
    before = {name: os.environ.get(name) for name in variables()}
    os.environ.update(variables())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
