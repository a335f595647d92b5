"""How a training process takes its turn: a line in, some training, a line out.

Nothing but the standard library: peers import this in environments of their own.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

READY, DONE = "training process: ready", "training process: done"


def serve(train: Callable[[], Any]) -> None:
    """Trains once for every line on standard input, until there is no more.

    Args:
        train: Trains on the same number of samples at every call; what it returns is passed on.
    """
    _say(READY)
    for _ in sys.stdin:
        _say(DONE + json.dumps(train()))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
