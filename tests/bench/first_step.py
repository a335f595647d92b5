"""Starts a training run as `models.train` does and stops after its first step.

    python -m tests.bench.first_step --data=DATA --workdir=RUN

Prints the seconds that imports took.
"""

import pathlib
import sys
import time

_STARTED = time.monotonic()

from absl import app, flags  # noqa: E402

from models.training.interruption import StopRequest  # noqa: E402
from models.training.profiling import Profile  # noqa: E402
from models.training.trainer import Trainer  # noqa: E402

from .training_worker import din_config  # noqa: E402

_IMPORTED = time.monotonic()


class _FirstStep(Profile):
    """Ends the process when the first step is done."""

    def at(self, step: int) -> None:
        """Called with the number of steps done."""
        if step:
            sys.stdout.write(f"{_IMPORTED - _STARTED}\n")
            sys.exit()

    def steps_ahead(self, step: int) -> int:
        """Steps until `at` has to be called."""
        return 1


def main(argv: list[str]) -> None:
    """Trains for one step."""
    del argv
    given = flags.FLAGS
    config = din_config(given.data, given.batch_size)
    workdir = pathlib.Path(given.workdir)
    Trainer(config, workdir, False, stop=StopRequest(), profile=_FirstStep()).run()


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "Data set directory.", required=True)
    flags.DEFINE_string("workdir", None, "Run directory.", required=True)
    flags.DEFINE_integer("batch_size", 256, "Requests of a step.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
