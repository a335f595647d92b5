"""What every model costs: the table of docs/choosing_a_model.md.

    python -m tests.bench.model_costs [--only=din,deminet] [--repeats=15]

Prints a row per model as Markdown: weights beside the embedding tables, time of a training step
(128 requests of two candidates) and of scoring one request of 200 candidates, histories of 50
events, embeddings 16 wide. Times are CPU time of the process on one thread, so that other load on
the machine counts less, and relative to DIN, which is timed in turns with each model; the best of
all repeats counts.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from absl import flags
from tqdm import tqdm

from models import registry
from models.keras import tf
from preprocessing import cli
from preprocessing.errors import UserError

from . import model_steps

BASELINE = "din"
_REQUESTS, _CANDIDATES = 128, 200
_WITH_SSL = [f"{BASELINE}+{ssl}" for ssl in ("miss", "rule", "irssl", "s3rec", "cl4srec")]
_WIDTH = "model.embedding_size=16"


class Costs(NamedTuple):
    """What a model takes, in training and to score a request.

    Attributes:
        weights: Numbers that training changes, without the embedding tables.
        step: CPU seconds of a training step.
        scoring: CPU seconds of scoring a request.
    """

    weights: int
    step: float
    scoring: float


class Subject:
    """A model that is ready to be timed.

    Args:
        name: Of a model, or of a model and a self-supervision as in `din+miss`.
        requests: In a training step.
        candidates: Of the request that is scored.
    """

    def __init__(self, name: str, requests: int = _REQUESTS, candidates: int = _CANDIDATES) -> None:
        model_name, _, ssl = name.partition("+")
        width = () if model_name == "lr" else (_WIDTH,)
        self.model = model_steps.model(model_name, ssl or registry.NO_SSL, settings=width)
        trained, scored = model_steps.batch(requests), model_steps.batch(1, candidates)
        step = model_steps.training_step(self.model, trained)
        score = model_steps.scoring(self.model, scored)
        self.calls: tuple[Callable[[], object], ...] = (
            lambda: step(trained),
            lambda: score(scored),
        )
        for call in self.calls:  # traces the graphs
            call()

    @property
    def weights(self) -> int:
        """See `Costs`."""
        tables = {id(one) for one in (*self.model.embedder.variables, *self.model.backbone.tables)}
        weights = (one for one in self.model.trainable_variables if id(one) not in tables)
        return sum(one.shape.num_elements() for one in weights)


def measure(subject: Subject, baseline: Subject, repeats: int) -> tuple[Costs, Costs]:
    """The costs of two models, which take turns so that other load meets both alike."""
    best = [[math.inf] * 2, [math.inf] * 2]
    for _ in range(repeats):
        for one, seconds in zip((subject, baseline), best, strict=True):
            for i, call in enumerate(one.calls):
                start = time.process_time()
                call()
                seconds[i] = min(seconds[i], time.process_time() - start)
    return Costs(subject.weights, *best[0]), Costs(baseline.weights, *best[1])


def row(name: str, found: Costs, baseline: Costs) -> str:
    """A line of the table."""
    return (
        f"| `{name.replace('+', '` + `')}` | {found.weights:,} "
        f"| {found.step / baseline.step:.2g} | {found.scoring / baseline.scoring:.2g} |"
    )


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_list("only", [], "Models to measure beside din (default: all).")
    flags.DEFINE_integer("repeats", 15, "How often each step is timed.", 1)


def main() -> None:
    """Prints the table."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    names = [*registry.MODELS, *_WITH_SSL]
    values = flags.FLAGS
    if unknown := set(values.only) - set(names):
        raise UserError(
            f"--only: expected names of {', '.join(names)}, found {', '.join(sorted(unknown))}."
        )
    baseline = Subject(BASELINE)
    alone, _ = measure(baseline, baseline, values.repeats)
    sys.stdout.write(
        f"1 = {alone.step * 1e3:.0f} ms for a step, {alone.scoring * 1e3:.1f} ms for scoring\n\n"
        "| model | weights | step | scoring |\n| --- | ---: | ---: | ---: |\n"
        f"{row(BASELINE, alone, alone)}\n"
    )
    for name in tqdm(values.only or names, leave=False, disable=None):
        if name != BASELINE:
            tqdm.write(row(name, *measure(Subject(name), baseline, values.repeats)), sys.stdout)
            sys.stdout.flush()


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
