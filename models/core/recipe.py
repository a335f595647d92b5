"""What a model was built from, in a form that Keras can save."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.config.run_config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The arguments of `factory.build_sized` beside the schema.

    Attributes:
        config: Configuration of the run.
        cardinalities: Number of rows of each categorical feature's table.
        precision: One of `choices.PRECISIONS`.
    """

    config: RunConfig
    cardinalities: Mapping[str, int]
    precision: str

    def to_json(self) -> dict[str, Any]:
        """The content, without paths of this machine that building does not read."""
        run = self.config.to_json() | {"data": "", "warm_start": "", "continues": ""}
        run["train"]["replay"] = 0.0  # Only with a run to continue.
        return {
            "run": run,
            "cardinalities": dict(self.cardinalities),
            "precision": self.precision,
        }
