"""What a benchmark yields, and the one way in which times are compared."""

import dataclasses
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

ROUNDS = 5

_BOUNDS = {">=": operator.ge, "<=": operator.le}


class Target(NamedTuple):
    """What a figure should reach: at least (">=") or at most ("<=") a value."""

    bound: str
    value: float

    def reached_by(self, value: float) -> bool:
        """Whether a figure of this value is good enough."""
        return bool(_BOUNDS[self.bound](value, self.value))

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio of us to a baseline.

    Attributes:
        name: Its key in bench.json.
        value: The ratio of the best of all rounds, which other load on the machine disturbs least.
        median: The ratio of the medians; equal to `value` where nothing is timed.
        unit: What the ratio counts.
        target: What it should reach, if anything was promised.
        baseline: What we are compared with.
        detail: The two values behind the ratio, for people.
    """

    name: str
    value: float
    median: float
    unit: str
    target: Target | None
    baseline: str
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the target is reached; a figure without one cannot miss it."""
        return self.target is None or self.target.reached_by(self.value)

    def to_json(self, command: str) -> dict[str, Any]:
        """The record of bench.json.

        Args:
            command: What measures the figure again.
        """
        return {
            "value": float(f"{self.value:.4g}"),
            "unit": self.unit,
            "target": None if self.target is None else self.target.value,
            "ok": self.ok,
            "baseline": self.baseline,
            "command": command,
        }


class Spread(NamedTuple):
    """Best and median seconds per unit of work over the rounds."""

    best: float
    median: float

    @classmethod
    def of(cls, seconds: list[float], units: int) -> "Spread":
        """Condenses the seconds of each round, in which `units` of work were done."""
        return cls(min(seconds) / units, statistics.median(seconds) / units)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Seconds that we and the baseline take for the same unit of work."""

    ours: Spread
    baseline: Spread

    def speedup(self, name: str, baseline: str, at_least: float | None) -> Figure:
        """How many times faster than the baseline we are."""
        return Figure(
            name=name,
            value=self.baseline.best / self.ours.best,
            median=self.baseline.median / self.ours.median,
            unit="times faster than the baseline",
            target=None if at_least is None else Target(">=", at_least),
            baseline=baseline,
            detail=self._detail(),
        )

    def cost(self, name: str, baseline: str, at_most: float | None) -> Figure:
        """How many times the time of the baseline we take."""
        return Figure(
            name=name,
            value=self.ours.best / self.baseline.best,
            median=self.ours.median / self.baseline.median,
            unit="times the time of the baseline",
            target=None if at_most is None else Target("<=", at_most),
            baseline=baseline,
            detail=self._detail(),
        )

    def _detail(self) -> str:
        return f"{readable(self.ours.best)} : {readable(self.baseline.best)}"


def compare(
    ours: Callable[[], object],
    baseline: Callable[[], object],
    *,
    rounds: int = ROUNDS,
    ours_units: int = 1,
    baseline_units: int = 1,
) -> Comparison:
    """Times two calls in turns, so that load from elsewhere meets both alike.

    Each is called once beforehand, untimed, to trace graphs and to touch memory.

    Args:
        ours: What is measured.
        baseline: What it is compared with.
        rounds: How often each is timed.
        ours_units: Units of work, such as rows, in a call of `ours`.
        baseline_units: Likewise of `baseline`.
    """
    seconds = take_turns([ours, baseline], rounds)
    return Comparison(Spread.of(seconds[0], ours_units), Spread.of(seconds[1], baseline_units))


def take_turns(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds that each call takes in each round; see `compare`."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return seconds


def readable(seconds: float) -> str:
    """A duration with three digits and a unit that fits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
