"""Training DIN: samples per second against DeepCTR and FuxiCTR, input pipeline included.

A sample is a candidate. Peers read a row per candidate, each with the history of its request, from
memory; we read requests from shards on disk. All take steps of 256 samples: those of ours are 26
requests of 10 candidates, as impression logs and nine negatives give them. That is what the target
is about, because a history that serves several candidates is what a request is for. Two further
cases show what is due to it: 128 requests of 2 candidates, and the batch of 256 requests, whose
steps are ten times as large. Everything runs on all cores, one process at a time.
"""

import contextlib
import pathlib
import sys
import tempfile
from typing import NamedTuple

from . import training_data
from .figures import Comparison, Figure, Spread, take_turns
from .processes import PEERS, TrainingProcess, peer_python

_PEERS = {"deepctr": "DeepCTR's DIN", "fuxictr": "FuxiCTR's DIN"}
_SAMPLES_PER_STEP = 256
_REQUESTS = 1 << 14
_STEPS = 40


class _Case(NamedTuple):
    """Our batches: so many requests of so many candidates."""

    requests: int
    candidates: int

    @property
    def samples(self) -> int:
        return self.requests * self.candidates

    def __str__(self) -> str:
        return f"{self.requests} x {self.candidates} candidates"


_JUDGED = _Case(26, 10)
_CASES = {"": _JUDGED, "_pairs": _Case(128, 2), "_large": _Case(256, 10)}


class _Table(NamedTuple):
    """Items, what is promised for so many, and peers' steps of a turn, which get slower."""

    name: str
    items: int
    at_least: float
    peer_steps: int


_TABLES = (
    _Table("100k", 100_000, 3, 40),
    _Table("1m", 1_000_000, 12, 10),
    _Table("4m", 4_000_000, 40, 4),
)


def measure(quick: bool) -> list[Figure]:
    """One unit of work is a sample; a peer that cannot be installed is left out."""
    pythons = {name: python for name in _PEERS if (python := peer_python(name)) is not None}
    steps = 2 if quick else _STEPS
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        root = pathlib.Path(directory)
        first: TrainingProcess | None = None
        for table in _TABLES:
            if quick:
                table = table._replace(items=table.items // 100, peer_steps=1)
            ours = {
                suffix: stack.enter_context(_ours(root, table, case, steps))
                for suffix, case in _CASES.items()
            }
            peers = {
                name: stack.enter_context(_peer(root, name, python, table))
                for name, python in pythons.items()
            }
            first = first or ours[""]
            calls = [*ours.values(), *peers.values(), first]
            samples = [
                *(steps * case.samples for case in _CASES.values()),
                *(table.peer_steps * _SAMPLES_PER_STEP for _ in peers),
                steps * _JUDGED.samples,
            ]
            seconds = take_turns(calls, 1 if quick else 5)
            spreads = [Spread.of(*pair) for pair in zip(seconds, samples, strict=True)]
            of_cases = dict(zip(_CASES, spreads[: len(ours)], strict=True))
            of_peers = dict(zip(peers, spreads[len(ours) : -1], strict=True))
            figures += _figures(table, of_cases, of_peers)
        cost = Comparison(of_cases[""], spreads[-1]).cost(
            "training_items",
            f"the step on {_TABLES[0].items:,} instead of {_TABLES[-1].items:,} items, {_JUDGED}",
            at_most=1.1,
        )
    return [*figures, cost]


def _figures(table: _Table, ours: dict[str, Spread], peers: dict[str, Spread]) -> list[Figure]:
    """The judged case against every peer, the others against the faster one."""
    size = f"{table.items:,} items"
    figures = [
        Comparison(ours[""], spread).speedup(
            f"training_{table.name}_{name}",
            f"{_PEERS[name]} per sample, {size}; ours {_JUDGED}",
            table.at_least,
        )
        for name, spread in peers.items()
    ]
    if peers:
        fastest = min(peers, key=lambda name: peers[name].median)
        figures += [
            Comparison(ours[suffix], peers[fastest]).speedup(
                f"training_{table.name}{suffix}",
                f"{_PEERS[fastest]} per sample, {size}; ours {case}",
                at_least=None,
            )
            for suffix, case in _CASES.items()
            if suffix
        ]
    return figures


def _ours(root: pathlib.Path, table: _Table, case: _Case, steps: int) -> TrainingProcess:
    data = root / f"{table.name}-{case.candidates}"
    if not data.exists():
        drawn = training_data.draw(_REQUESTS, case.candidates, table.items)
        training_data.write_data_set(data, drawn, table.items)
    flags = [f"--data={data}", f"--batch_size={case.requests}", f"--steps={steps}"]
    return TrainingProcess([sys.executable, "-m", "tests.bench.training_worker", *flags])


def _peer(root: pathlib.Path, name: str, python: pathlib.Path, table: _Table) -> TrainingProcess:
    samples = root / f"{table.name}.npz"
    if not samples.exists():
        # So many whole requests that the last step is as large as the others.
        drawn = training_data.draw(table.peer_steps * _SAMPLES_PER_STEP // 8, 8, table.items)
        training_data.write_samples(samples, drawn)
    sizes = (training_data.USERS, table.items, training_data.CATEGORIES)
    return TrainingProcess([python, PEERS / f"{name}_din.py", samples, *map(str, sizes)])
