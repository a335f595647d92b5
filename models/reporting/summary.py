"""The last lines of a training in the terminal: yardsticks and alarms of its report."""

from models.core import run_directory
from models.evaluation.metrics import shown
from models.evaluation.yardsticks import Yardstick
from models.reporting import findings
from models.reporting.evidence import gather


def summary(run: run_directory.Run) -> str:
    """What a run is to be measured by, and what is wrong with it; a line each.

    Args:
        run: Finished, or evaluated once at least.

    Raises:
        UserError: It has no metrics yet.
    """
    evidence = gather(run, with_intervals=False)
    lines = [_line(evidence.yardsticks, evidence.split)] if evidence.yardsticks else []
    lines += [f"alarm: {alarm}" for alarm in findings.alarms(evidence)]
    return "".join(f"{line}\n" for line in lines)


def _line(yardsticks: list[Yardstick], split: str) -> str:
    numbers = "  ".join(f"{each.name} {shown(each.auc)}" for each in yardsticks)
    return f"{split} AUC without a model: {numbers}"
