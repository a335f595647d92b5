"""Peak memory of a training step of DemiNet, in a process of its own.

    python -m tests.bench.step_memory --model=deminet --batch_size=256

Prints bytes: how far the resident set grows above what it is before the first batch of this size.
The step has been traced and run on a batch of two by then, so that neither tracing nor weights
count.
"""

import pathlib
import sys

from absl import app, flags

from . import model_steps

_STATUS, _REFERENCES = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def step_memory(name: str, batch_size: int) -> int:
    """Bytes that a step needs beside weights and compiled function.

    Args:
        name: Of the model.
        batch_size: Requests.
    """
    model, batch = model_steps.model(name), model_steps.batch(batch_size)
    step = model_steps.training_step(model, batch)
    step({name: value[:2] for name, value in batch.items()})
    before = status_bytes("VmRSS")
    reset_peak()
    step(batch)
    return status_bytes("VmHWM") - before


def reset_peak() -> None:
    """Lets VmHWM, the peak of the resident set, start anew from where that is now."""
    _REFERENCES.write_text("5", encoding="ascii")


def status_bytes(field: str) -> int:
    """A field of the kernel's account of this process, such as VmRSS."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return 1024 * int(value.split()[0])
    raise KeyError(field)


def main(argv: list[str]) -> None:
    """Measures the model that the flags name."""
    del argv
    given = flags.FLAGS
    sys.stdout.write(f"{step_memory(given.model, given.batch_size)}\n")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model", "deminet", "Name of the model.")
    flags.DEFINE_integer("batch_size", 256, "Requests.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
