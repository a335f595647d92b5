"""Twenty steps of every model, and of DIN with MISS, to compare versions of anything.

python -m tests.helpers.golden_runs      # writes tests/golden/NAME.json anew, for all names
python -m tests.helpers.golden_runs din  # for some

Values are equal within `TOLERANCES` on both version lanes. A change of an equation, an initial
value or the order of random draws shows here; write the files anew if it is meant.
"""

import json
import pathlib
import sys

import numpy as np

from models import registry
from tests.helpers import small_models

FILES = pathlib.Path(__file__).parents[1] / "golden"
STEPS = 20
TOLERANCES = {"loss": 1e-4, "gradient_norm": 1e-3}
"""Relative. Sums in another order, as on another processor, differ by about 1e-7 in the first step.

Twenty steps of IPNN on two processors differ by 2e-7 in the loss and, in one step, by 3e-4 in the
norm of the gradient.
"""

NAMES = (*registry.MODELS, "din_miss")


def losses(name: str) -> dict[str, list[float]]:
    """The total loss and the norm of the gradient at each step of a model on generated batches.

    With self-supervision, those of its own steps stand beside them, one ahead of each main step.

    Args:
        name: One of `NAMES`.
    """
    model, ssl = (name, "none") if name in registry.MODELS else ("din", name[len("din_") :])
    run = small_models.config(model, ssl, "train.learning_rate=0.003", "train.l2=0.0001")
    built = small_models.model(run)
    logs = []
    for step in range(STEPS):
        batch = small_models.batch(seed=step)
        of_ssl = built.ssl_step(batch) if run.train.has_ssl_steps else {}
        logs.append({**{f"ssl_{key}": of_ssl[key] for key in of_ssl}, **built.main_step(batch)})
    keys = [key for key in logs[0] if key.removeprefix("ssl_") in ("loss", "gradient_norm")]
    return {key: [float(np.float32(each[key])) for each in logs] for key in keys}


def read(name: str) -> dict[str, list[float]]:
    """What `losses` gave when the files were written."""
    return json.loads((FILES / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    """Writes the files of the names on the command line, or of all."""
    for name in sys.argv[1:] or NAMES:
        rounded = {key: [float(f"{x:.7g}") for x in row] for key, row in losses(name).items()}
        (FILES / f"{name}.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {rounded['loss'][0]} -> {rounded['loss'][-1]}\n")


if __name__ == "__main__":
    main()
