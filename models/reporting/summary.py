"""The final lines of training in the terminal: yardsticks and alarms of the report."""

from models.core import run_directory
from models.evaluation.metrics import shown
from models.evaluation.yardsticks import Yardstick
from models.reporting import findings
from models.reporting.evidence import gather


def summary(run: run_directory.Run) -> str:
    """The yardsticks and the alarms of a run, one line each.

    Args:
        run: A run that is finished or was evaluated at least once.

    Raises:
        UserError: The run has no metrics yet.
    """
    evidence = gather(run, with_intervals=False)
    lines = [_line(evidence.yardsticks, evidence.split)] if evidence.yardsticks else []
    lines += [f"alarm: {alarm}" for alarm in findings.alarms(evidence)]
    return "".join(f"{line}\n" for line in lines)


def _line(yardsticks: list[Yardstick], split: str) -> str:
    numbers = "  ".join(f"{yardstick.name} {shown(yardstick.auc)}" for yardstick in yardsticks)
    return f"{split} AUC without a model: {numbers}"
