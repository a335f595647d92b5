"""A strictly increasing map from the logits of a model to logits that are true probabilities.

The map is piecewise linear: one line through a point (Platt, prior), or lines from knot to knot and
one slope beyond them (isotonic). NumPy applies it here, the exported graph in
`serving.exporting.calibrated_scores`; both compute in float64, of which the served score is rounded
to float32. Float32 all the way would turn the order of close logits around: TensorFlow's sigmoid is
not monotone in the last bit.

Shapes: K knots, S = K + 1 segments.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.metrics import sigmoid
from preprocessing.errors import UserError

LOWEST, HIGHEST = -80.0, 16.0
"""Bounds of a calibrated logit, so that its probability is neither 0 nor 1 in float32."""


class Segments(NamedTuple):
    """The lines of a calibration, from low to high logits.

    Attributes:
        logit_S: Logit of a point of each line.
        value_S: Value there.
        slope_S: Slope of each line.
        end_S: Value that the line must not exceed. Rounding could lift its end above the beginning
            of the next line, and so reverse an order.
    """

    logit_S: np.ndarray
    value_S: np.ndarray
    slope_S: np.ndarray
    end_S: np.ndarray


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A strictly increasing, piecewise linear map of logits.

    Attributes:
        logit_K: Logits of the knots, increasing.
        value_K: Calibrated logits of the knots, increasing.
        slope: Slope before the first and after the last knot, above 0.
    """

    logit_K: tuple[float, ...]
    value_K: tuple[float, ...]
    slope: float

    @property
    def segments(self) -> Segments:
        """The lines before the first knot, between knots and after the last one."""
        logit_K, value_K = np.array(self.logit_K), np.array(self.value_K)
        inner = np.diff(value_K) / np.diff(logit_K)
        return Segments(
            np.concatenate([logit_K[:1], logit_K]),
            np.concatenate([value_K[:1], value_K]),
            np.concatenate([[self.slope], inner, [self.slope]]),
            np.append(value_K, HIGHEST),
        )

    def logits(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated logits within `LOWEST` and `HIGHEST`, in float64.

        Args:
            logit: Logits of the model, of any shape and float type.
        """
        logit = np.asarray(logit, np.float64)
        logit_S, value_S, slope_S, end_S = self.segments
        segment = np.searchsorted(np.array(self.logit_K), logit, side="right")
        value = value_S[segment] + slope_S[segment] * (logit - logit_S[segment])
        return np.clip(np.minimum(value, end_S[segment]), LOWEST, HIGHEST)

    def probabilities(self, logit: np.ndarray) -> np.ndarray:
        """Calibrated probabilities in float64, above 0 and below 1.

        Args:
            logit: Logits of the model, of any shape and float type.
        """
        return sigmoid(self.logits(logit))

    def to_json(self) -> dict[str, Any]:
        """The map as JSON."""
        return {
            "logits": list(self.logit_K),
            "calibrated": list(self.value_K),
            "slope": self.slope,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "Calibration":
        """Reads what `to_json` returns.

        Args:
            content: Parsed JSON.
            where: Name of the content in error messages.

        Raises:
            UserError: The content is no strictly increasing map.
        """
        try:
            logit_K, value_K = (tuple(map(float, content[k])) for k in ("logits", "calibrated"))
            slope = float(content["slope"])
            rises = [*np.diff(logit_K), *np.diff(value_K), slope]
            is_map = len(logit_K) == len(value_K) > 0 and all(rise > 0 for rise in rises)
        except (KeyError, TypeError, ValueError):
            is_map = False
        if not is_map:
            raise UserError(
                f"Expected an increasing map of logits in {where}, found another content.",
                "export the run again.",
            )
        return cls(logit_K, value_K, slope)
