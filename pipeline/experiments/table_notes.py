"""Notes under a table on how its rows were trained, from the configurations of its runs."""

from collections.abc import Sequence

from models.training.selection import TITLES as SELECTED_BY
from pipeline.experiments.planned_runs import PlannedRun
from pipeline.experiments.recipe import Table

_HEAD = {
    "batch_norm": "Batch normalisation in front of the network that scores",
    "history_sum": "Sum of the history and its product with the candidate, read by that network",
}
"""Settings that may favour the rows that have them."""


def notes(table: Table, planned: Sequence[PlannedRun]) -> list[str]:
    """Sentences under a table.

    Args:
        table: Recipe of the table.
        planned: Runs of the table on one data set.
    """
    weights = f"Weights: those of a run's best validation {SELECTED_BY['auc']}"
    sentences = [
        f"{weights}, or {SELECTED_BY['log_loss']} where that is undefined; the test split has no "
        "part in it. AUC, known items: of the candidates whose item is in the training vocabulary.",
        _learning_rates(table, planned),
        _batches(planned),
    ]
    return sentences + [
        f"{description}: {_rows_with(setting, planned)}." for setting, description in _HEAD.items()
    ]


def _learning_rates(table: Table, planned: Sequence[PlannedRun]) -> str:
    if len(table.learning_rates) < 2:
        return "Learning rate: the same for all rows."
    rates = ", ".join(f"{rate:g}" for rate in sorted(table.learning_rates, reverse=True))
    seed = min(run.seed for run in planned)
    return (
        f"Learning rate: for each row the one of {rates} with the best validation AUC with seed "
        f"{seed}. It is that of all weights, but of the tables only where the schedule of "
        "self-supervision gives them none of their own."
    )


def _batches(planned: Sequence[PlannedRun]) -> str:
    """The size of a batch in requests and in samples."""
    train = planned[0].data.data.manifest["splits"]["train"]
    requests = sorted({run.config.train.batch_size for run in planned})
    samples = [round(count * train["candidates"] / max(1, train["requests"])) for count in requests]
    batch_sizes = [", ".join(map(str, counts)) for counts in (samples, requests)]
    return f"Batches: {batch_sizes[0]} samples ({batch_sizes[1]} requests)."


def _rows_with(setting: str, planned: Sequence[PlannedRun]) -> str:
    """Labels of the rows whose model has a setting switched on, as text."""
    labels = dict.fromkeys(run.row.label for run in planned)
    having = [
        label
        for label in labels
        if any(
            getattr(run.config.model, setting, False) for run in planned if run.row.label == label
        )
    ]
    if len(having) in (0, len(labels)):
        return "all rows" if having else "no row"
    return ", ".join(having)
