"""Progress of a run: what a checkpoint holds beside the weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.training.steps import Logs

Rows = list[dict[str, Any]]
"""Rows of a table, by column."""


@dataclasses.dataclass
class Progress:
    """How far a run has come; checkpoints store it as JSON.

    Attributes:
        step: Number of steps of the main loss.
        ssl_step: Number of steps of the self-supervised loss alone.
        replayed_step: Number of steps of the main loss on requests of the days before.
        parts: Number of processes that shared the last pass, each reading shards of its own; 1 if
            every process read all of them.
        pretrained: Whether pre-training is over.
        pretraining: Rows of pretraining.csv.
        evaluated_step: Step of the last evaluation.
        best_score: Score of the best evaluation, see `selection.score`; None before the first.
        best_step: Step of the best evaluation.
        best_updates: Number of updates at the best evaluation, which names its checkpoint.
        evaluations_without_gain: Number of evaluations since the best one.
        seconds: Duration of the training, over all processes that worked on the run.
        history: Rows of metrics.csv.
        logs: Losses of the last step of the main loss.
        ssl_logs: Losses of the last step of the self-supervised loss alone.
    """

    step: int = 0
    ssl_step: int = 0
    replayed_step: int = 0
    parts: int = 1
    pretrained: bool = False
    pretraining: Rows = dataclasses.field(default_factory=list)
    evaluated_step: int = 0
    best_score: float | None = None
    best_step: int = 0
    best_updates: int = 0
    evaluations_without_gain: int = 0
    seconds: float = 0.0
    history: Rows = dataclasses.field(default_factory=list)
    logs: Logs = dataclasses.field(default_factory=dict)
    ssl_logs: Logs = dataclasses.field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Number of updates of the weights, by steps of either kind."""
        return self.step + self.ssl_step + self.replayed_step

    @property
    def losses(self) -> Logs:
        """Losses and norms of the last steps.

        Values of `ssl_step` get the prefix `ssl_` if `main_step` has values of the same names; the
        other terms of self-supervision keep their names.
        """
        ssl_losses = {
            f"ssl_{name}" if name in self.logs else name: value
            for name, value in self.ssl_logs.items()
        }
        return ssl_losses | dict(self.logs)

    def to_json(self) -> dict[str, Any]:
        """The content that a checkpoint stores; waits for the last steps."""
        logs = {"logs": _read(self.logs), "ssl_logs": _read(self.ssl_logs)}
        content = vars(self) | logs
        if self.parts == 1:  # As in all checkpoints before there were parts.
            del content["parts"]
        return content

    def restore(self, content: Mapping[str, Any]) -> None:
        """Takes over the content of a checkpoint; what it lacks stays as it is."""
        for field in dataclasses.fields(self):
            if field.name in content:
                setattr(self, field.name, content[field.name])

    def evaluated(self, score: float) -> bool:
        """Counts an evaluation after the last step.

        Returns:
            Whether the evaluation is the best so far.
        """
        self.evaluated_step = self.step
        is_best = self.best_score is None or score > self.best_score
        if is_best:
            self.best_score, self.best_step = score, self.step
            self.best_updates = self.updates
            self.evaluations_without_gain = 0
        else:
            self.evaluations_without_gain += 1
        return is_best


def _read(logs: Logs) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
