"""Measures a trained model on a split, or compares two models on it.

    python -m models.evaluate --run=RUN --split=test
    python -m models.evaluate --compare RUN_A RUN_B

Scores every candidate with the best weights and dumps the scores to RUN/scores-SPLIT.parquet. Adds
the metrics to RUN/metrics.json, writes those of slices (history length, item popularity, category,
new users and items) to RUN/slices-SPLIT.csv, and prints both with 95 % intervals from 1,000 draws
of users. A comparison measures both runs on the same draws, so that differences are paired. Scores
that were dumped before are reused if the weights are the same. An undefined metric, such as the AUC
of a split without a positive, is n/a.
"""

import pathlib
import sys

from absl import flags

from models.evaluation.confidence_intervals import Difference
from models.evaluation.metrics import (
    UNDEFINED,
    relative_improvement,
    shown,
    shown_interval,
)
from models.evaluation.scoring import SPLITS, Analysis, analyse, compare, evaluate
from preprocessing import cli
from preprocessing.errors import UserError


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of models.train.")
    flags.DEFINE_string("compare", None, "Instead, a run to compare --against.")
    flags.DEFINE_string("against", None, "The other run; may be given without its name.")
    flags.DEFINE_enum("split", "test", SPLITS, "Split to measure.")


def main() -> None:
    """Prints the metrics of a split, or the differences of two runs."""
    flag_values = flags.FLAGS
    if flag_values.compare and flag_values.against and not flag_values.run:
        _print_differences(compare(flag_values.compare, flag_values.against, flag_values.split))
    elif flag_values.run and not flag_values.compare and not flag_values.against:
        metrics = evaluate(flag_values.run, flag_values.split)
        analysis = analyse(flag_values.run, flag_values.split)
        path = pathlib.Path(flag_values.run) / f"slices-{flag_values.split}.csv"
        analysis.slices.to_csv(path, index=False, na_rep=UNDEFINED)
        _print_metrics(metrics, analysis)
    else:
        raise UserError(
            "Expected --run, or --compare with two runs, found "
            f"--run={flag_values.run} --compare={flag_values.compare} "
            f"--against={flag_values.against}.",
            "as in models.evaluate --compare RUN_A RUN_B.",
        )


def _print_metrics(metrics: dict[str, float | None], analysis: Analysis) -> None:
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


def _print_differences(differences: dict[str, Difference]) -> None:
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


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, positional="against")


if __name__ == "__main__":
    console_main()
