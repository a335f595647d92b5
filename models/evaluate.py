"""Measures a trained model on a split, or compares two models on it.

    python -m models.evaluate --run=RUN --split=test
    python -m models.evaluate --compare RUN_A RUN_B
    python -m models.evaluate --run=RUN --importance

Scores every candidate with the best weights and dumps the scores to RUN/scores-SPLIT.parquet. Adds
the metrics to RUN/metrics.json, writes those of slices (history length, item popularity, category,
new users and items) to RUN/slices-SPLIT.csv, and prints both with 95 % intervals from 1,000 draws
of users. A comparison measures both runs on the same draws, so that differences are paired. Scores
that were dumped before are reused if the weights are the same. An undefined metric, such as the AUC
of a split without a positive, is n/a.

With --importance, measures instead how far the AUC falls without each input of the model: its
values are permuted across all requests of the split (of at most 32,768, a seeded sample of a larger
one). Writes RUN/importance-SPLIT.csv and prints it, the largest drop first, with 95 % intervals.
"""

import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from models.core import run_directory
from models.evaluation.metrics import (
    UNDEFINED,
    relative_improvement,
    shown,
    shown_interval,
)
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from models.evaluation.confidence_intervals import Difference
    from models.evaluation.scoring import Analysis

_IMPORTANCE_SPLIT = "validation"
"""Default split: what is decided by importance, such as a feature to remove, is a choice like any
other, for which the test split must stay unseen."""


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of ctr-train.")
    flags.DEFINE_string(
        "compare", None, "Run to compare with the one of --against, instead of --run."
    )
    flags.DEFINE_string(
        "against", None, "Run to compare with; the name of the flag may be left out."
    )
    flags.DEFINE_enum(
        "split",
        None,
        SPLITS,
        f"Split to measure (default: test; with --importance: {_IMPORTANCE_SPLIT}).",
    )
    flags.DEFINE_bool("importance", False, "Measure what each input of the model contributes.")


def main() -> None:
    """Prints the metrics of a split, the differences of two runs, or the importance of inputs."""
    flag_values = flags.FLAGS
    split = flag_values.split or (_IMPORTANCE_SPLIT if flag_values.importance else "test")
    for path in filter(None, (flag_values.run, flag_values.compare, flag_values.against)):
        run_directory.require_run(path)
    # They load TensorFlow, for which a wrong path need not wait.
    from models.evaluation import importance
    from models.evaluation.scoring import analyse, compare, evaluate

    is_of_one_run = flag_values.run and not flag_values.compare and not flag_values.against
    is_of_two_runs = flag_values.compare and flag_values.against and not flag_values.run
    if is_of_two_runs and not flag_values.importance:
        _print_differences(compare(flag_values.compare, flag_values.against, split))
    elif is_of_one_run and flag_values.importance:
        _print_importance(importance.of_run(flag_values.run, split), split)
    elif is_of_one_run:
        metrics = evaluate(flag_values.run, split)
        analysis = analyse(flag_values.run, split)
        path = pathlib.Path(flag_values.run) / f"slices-{split}.csv"
        analysis.slices.to_csv(path, index=False, na_rep=UNDEFINED)
        _print_metrics(metrics, analysis)
    else:
        raise UserError(
            "Expected --run, perhaps with --importance, or --compare with two runs, found "
            f"--run={flag_values.run} --compare={flag_values.compare} "
            f"--against={flag_values.against} --importance={flag_values.importance}.",
            "as in python -m models.evaluate --compare RUN_A RUN_B.",
        )


def _print_metrics(metrics: dict[str, float | None], analysis: "Analysis") -> None:
    lines = []
    for name, value in metrics.items():
        interval_text = ""
        if value is not None and name in analysis.metrics:
            _, low, high = analysis.metrics[name]
            interval_text = f"  {shown_interval(low, high, '.5f')}"
        form = "d" if isinstance(value, int) else ".5f"
        lines.append(f"{name:20s} {shown(value, form)}{interval_text}")
    bounds = zip(analysis.slices["auc_low"], analysis.slices["auc_high"], strict=True)
    intervals = [shown_interval(low, high, ".3f") for low, high in bounds]
    table = analysis.slices.assign(**{"95 %": intervals})
    columns = ["slice", "candidates", "auc", "95 %", "log_loss", "calibration_error", "bias_ratio"]
    for dimension, part in table.groupby("dimension", sort=False):
        text = part[[*columns, "mrr"]].to_string(index=False, na_rep=UNDEFINED)
        lines += ["", f"by {dimension}", text]
    sys.stdout.write("\n".join(lines) + "\n")


def _print_differences(differences: "dict[str, Difference]") -> None:
    sys.stdout.write(f"{'':20s} {'first':>9s} {'second':>9s} {'difference':>11s}\n")
    for name, row in differences.items():
        value, low, high = row.difference
        sys.stdout.write(
            f"{name:20s} {shown(row.first, '.5f'):>9s} {shown(row.second, '.5f'):>9s} "
            f"{shown(value, '+.5f'):>11s}  {shown_interval(low, high, '+.5f')}  "
            f"p {shown(row.p_value, '.3f')}\n"
        )
    gain = relative_improvement(differences["auc"].second, differences["auc"].first)
    sys.stdout.write(f"relative improvement (RelaImpr): {shown(gain, '+.2%')}\n")


def _print_importance(table: "pd.DataFrame", split: str) -> None:
    from models.evaluation import importance

    width = max(len(name) for name in ("input", *table["feature"]))
    lines = [
        f"{'input':{width}s}  {'part':9s}  {'AUC drop':>8s}  {'95%':20s}  {'GAUC drop':>9s}  "
        "log loss rise"
    ]
    marks = importance.marks(table)
    for mark, (_, row) in zip(marks, table.iterrows(), strict=True):
        interval_text = shown_interval(row["low"], row["high"], "+.5f")
        lines.append(
            f"{row['feature']:{width}s}  {row['part']:9s}  {shown(row['auc_drop'], '+.5f'):>8s}  "
            f"{interval_text:20s}  {shown(row['gauc_drop'], '+.5f'):>9s}  "
            f"{shown(row['log_loss_rise'], '+.5f'):>13s}  {mark}".rstrip()
        )
    lines += ["", importance.how_measured(table, split)]
    sys.stdout.write("\n".join(lines) + "\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, positional="against")


if __name__ == "__main__":
    console_main()
