"""Peak memory of training DIN, in a process of its own.

    python -m tests.bench.training_memory --data=DATA --batch_size=256

Prints bytes: how far the resident set grew in building and training above what it was before; what
tables, their optimiser's slots and the other weights take; what a step adds to that.
"""

import itertools
import sys

from absl import app, flags

from models.core.factory import build_model, compile_model
from preprocessing import dataset
from preprocessing.data_dir import DataDir

from .model_steps import training_step
from .step_memory import reset_peak, status_bytes
from .training_worker import din_config

_STEPS = 20


def training_memory(path: str, batch_size: int) -> tuple[int, int, int]:
    """Bytes of the whole, of the weights with their slots, and of a step.

    Args:
        path: Data set directory.
        batch_size: Requests of a step.
    """
    config = din_config(path, batch_size)
    data = DataDir.open(path)
    before = status_bytes("VmRSS")
    model = build_model(config, data)
    compile_model(model, config)
    model.build_optimizers()
    batches = dataset.read(data, "train", batch_size=batch_size, shuffle_seed=1, epochs=_STEPS)
    first = next(iter(batches))
    step = training_step(model, first)
    step({name: value[:2] for name, value in first.items()})  # traced; memory is not yet taken
    peak, held = status_bytes("VmHWM"), status_bytes("VmRSS")
    reset_peak()
    step(first)
    activations = status_bytes("VmHWM") - held
    for batch in itertools.islice(batches, _STEPS):
        step(batch)
    peak = max(peak, status_bytes("VmHWM")) - before
    optimizers = (model.optimizer, model.embedding_optimizer)
    weights = [*model.variables, *(slot for each in optimizers for slot in each.variables)]
    return peak, sum(weight.shape.num_elements() * 4 for weight in weights), activations


def main(argv: list[str]) -> None:
    """Measures the data set that the flags name."""
    del argv
    given = flags.FLAGS
    sizes = training_memory(given.data, given.batch_size)
    sys.stdout.write(" ".join(map(str, sizes)) + "\n")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "Data set directory.", required=True)
    flags.DEFINE_integer("batch_size", 256, "Requests of a step.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
