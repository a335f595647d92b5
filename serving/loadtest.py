"""Measures how fast a model server answers under load.

    python -m serving.loadtest --url=http://127.0.0.1:8501/v1/models/ctr
    python -m serving.loadtest --url=... --concurrency=1,4 --rate=50,100
        --candidates=1,50,200 --history=10,50 --requests=WORKDIR/requests.jsonl --output=load

Every load meets every number of candidates and every length of history. --concurrency are closed
loops (callers who ask again once they are answered), --rate open ones (requests per second that
come at random times and are timed from when they were due). Prints a table; --output gets
loadtest.json and loadtest.svg.

Users, events and candidates are drawn from --requests; without it they are made up, and all values
are unknown to the model. The generator runs on one core: on the machine of the server it takes time
from it. Servers elsewhere are refused without --allow_remote.
"""

import ipaddress
import json
import math
import os
import pathlib
import platform
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from preprocessing import cli
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.features.feature import DType
from serving.client import Client
from serving.client.core import predict_body
from serving.client.request_format import CANDIDATES, HISTORY, Field, RequestFormat
from serving.client.request_lines import read_requests
from serving.load.generator import PERCENTILES, Bounds, Level, measure

_BODIES = 16  # distinct requests per cell, so that no cache sees the same one all the time
_MADE_UP_SET = 4  # values of the largest list
_MADE_UP_VALUES = 1000
_LARGEST = 100_000
_HEADER = ("load", "candidates", "history", "requests", "failed", "per second", "bytes sent")


def loadtest(
    url: str,
    levels: Sequence[Level],
    candidates: Sequence[int],
    history: Sequence[int],
    bounds: Bounds,
    *,
    requests: str | pathlib.Path = "",
    allow_remote: bool = False,
    seed: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures every load with every size of request.

    Args:
        url: Address of the served model.
        levels: Loads to measure.
        candidates: Numbers of candidates in a request.
        history: Lengths of the history.
        bounds: Longest time and largest number of requests of each measurement.
        requests: File of requests to draw users, events and candidates from; "" makes them up.
        allow_remote: Whether the server may be on another machine.
        seed: Seed of the drawn requests and of the arrival times of open loops.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The content of loadtest.json: the machine, and a record per measurement.

    Raises:
        UserError: No server answers, the server is on another machine, or the requests do not fit
            the model.
    """
    if not (allow_remote or is_loopback(url)):
        raise UserError(
            f"Expected a server on this machine, found {url}: load on someone else's server is an "
            "attack.",
            "add --allow_remote if it is yours.",
        )
    with Client(url) as client:
        request_format = client.request_format()
        target = f"{client.url}:predict"
    pool = _pool(request_format, requests)
    grid = [(level, n, length) for length in history for n in candidates for level in levels]
    cells = []
    for level, n, length in tqdm(grid, desc="loadtest", disable=None if progress else True):
        rng = np.random.default_rng([seed, n, length])
        sampled = [_draw(request_format, pool, n, length, rng) for _ in range(_BODIES)]
        bodies = [predict_body(request_format.inputs(request, "request")) for request in sampled]
        samples = measure(target, bodies, level, bounds, seed)
        cells.append(
            {
                "loop": level.loop,
                "load": level.load,
                "candidates": n,
                "history": length,
                "request_bytes": round(sum(map(len, bodies)) / len(bodies)),
                **samples.summary(),
            }
        )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return {"url": url, "generator": machine, "cells": cells}


def is_loopback(url: str) -> bool:
    """Whether a URL's host is a loopback address."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def table(result: Mapping[str, Any]) -> str:
    """Formats the measurements as a table."""
    header = [*_HEADER, *(f"p{q:g} ms" for q in PERCENTILES)]
    rows = [header]
    for cell in result["cells"]:
        latencies = cell["latency_ms"].values()
        rows.append(
            [
                str(Level(cell["loop"], cell["load"])),
                str(cell["candidates"]),
                str(cell["history"]),
                str(cell["requests"]),
                str(sum(cell["failures"].values())),
                f"{cell['per_second']:.1f}",
                str(cell["request_bytes"]),
                *("-" if value is None else f"{value:.1f}" for value in latencies),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(lines) + "\n"


def plot(result: Mapping[str, Any]) -> str:
    """Plots median and p99 latency by number of candidates as SVG, a panel per history length."""
    cells = result["cells"]
    lengths = sorted({cell["history"] for cell in cells})
    levels = list(dict.fromkeys(Level(cell["loop"], cell["load"]) for cell in cells))
    # Matplotlib, for which a wrong flag need not wait.
    from matplotlib import pyplot as plt

    from models.reporting import html_report

    colours = (html_report.BLUE, html_report.ORANGE, html_report.GREEN, html_report.INK)
    with plt.rc_context(html_report.STYLE):
        figure, panels = plt.subplots(
            1, len(lengths), sharey=True, squeeze=False, figsize=(1.5 + 3.7 * len(lengths), 3.4)
        )
        for axes, length in zip(panels[0], lengths, strict=True):
            for i, level in enumerate(levels):
                measured = [
                    cell
                    for cell in cells
                    if cell["history"] == length
                    and Level(cell["loop"], cell["load"]) == level
                    and cell["requests"]
                ]
                for name, line in (("p50", "-"), ("p99", "--")):
                    axes.plot(
                        [cell["candidates"] for cell in measured],
                        [cell["latency_ms"][name] for cell in measured],
                        line,
                        marker="o",
                        markersize=3,
                        color=colours[i % len(colours)],
                        label=f"{level}, {name}",
                    )
            axes.set(title=f"history {length}", xlabel="candidates", ylim=(0, None))
        panels[0, 0].set_ylabel("latency, ms")
        handles = panels[0, 0].get_lines()
        figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8)
        return html_report.svg(figure)


def _pool(
    request_format: RequestFormat, requests: str | pathlib.Path
) -> dict[str, list[dict[str, Any]]]:
    """Users, events and candidates to draw from."""
    if not requests:
        return {
            "user": _made_up(request_format.user),
            HISTORY: _made_up(request_format.history),
            CANDIDATES: _made_up(request_format.candidate),
        }
    pool: dict[str, list[dict[str, Any]]] = {"user": [], HISTORY: [], CANDIDATES: []}
    for _, where, request in read_requests(requests):
        request_format.inputs(request, where)  # raises an error if the request is wrong
        pool["user"].append({name: request[name] for name in request_format.user})
        pool[CANDIDATES] += request[CANDIDATES]
        pool[HISTORY] += request[HISTORY]
    # A candidate has all fields of an event, but for those of what happened at the event.
    is_event = request_format.history.keys() <= request_format.candidate.keys()
    pool[HISTORY] = pool[HISTORY] or (
        pool[CANDIDATES] if is_event else _made_up(request_format.history)
    )
    if not pool["user"]:
        raise UserError(f"Expected requests in {requests}, found none.", "check --requests.")
    return pool


def _made_up(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    makers: dict[DType, Callable[[str, int], Any]] = {
        DType.STRING: "{} {}".format,
        DType.INT64: lambda _, i: i,
        DType.FLOAT32: _fraction,
        DType.DATETIME: lambda _, i: i,
    }

    def value(name: str, field: Field, i: int) -> Any:
        make = makers[field.dtype]
        if field.is_many:
            return [make(name, i + more) for more in range(1 + i % _MADE_UP_SET)]
        if field.size:
            return [make(name, (i + more) % _MADE_UP_VALUES) for more in range(field.size)]
        return make(name, i)

    return [
        {name: value(name, field, i) for name, field in fields.items()}
        for i in range(_MADE_UP_VALUES)
    ]


def _fraction(_: str, i: int) -> float:
    return i / _MADE_UP_VALUES


def _draw(
    request_format: RequestFormat,
    pool: Mapping[str, Sequence[dict[str, Any]]],
    candidates: int,
    length: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    def some(part: str, count: int) -> list[dict[str, Any]]:
        records = pool[part]
        return [records[i] for i in rng.integers(0, len(records), count)]

    return {
        **some("user", 1)[0],
        HISTORY: some(HISTORY, length),
        CANDIDATES: some(CANDIDATES, candidates),
    }


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("url", None, "Address of the served model.", required=True)
    flags.DEFINE_list("concurrency", "", "Callers of closed loops (default: 1,4 without --rate).")
    flags.DEFINE_list("rate", "", "Requests per second of open loops.")
    flags.DEFINE_list("candidates", "50", "Numbers of candidates in a request.")
    flags.DEFINE_list("history", "50", "Lengths of the history.")
    flags.DEFINE_float("seconds", 5.0, "Largest number of seconds of a measurement.", 0.1, 600)
    flags.DEFINE_integer(
        "max_requests", 10_000, "Largest number of requests of a measurement.", 1, 1_000_000
    )
    flags.DEFINE_string("requests", "", "File with one JSON request per line to draw from.")
    flags.DEFINE_string("output", "", "Directory that gets loadtest.json and loadtest.svg.")
    flags.DEFINE_bool("allow_remote", False, "Allow a server on another machine.")
    flags.DEFINE_integer("seed", 1, "Seed of what is drawn.")


def _numbers(flag: str, texts: Sequence[str], lowest: float, whole: bool = True) -> list[float]:
    """The numbers in a list flag."""
    numbers = []
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not lowest <= number <= _LARGEST or (whole and not number.is_integer()):
            raise UserError(
                f"--{flag}: expected {'integers' if whole else 'numbers'} between {lowest:g} and "
                f"{_LARGEST}, found {text!r}.",
                f"write them as --{flag}=10,50.",
            )
        numbers.append(number)
    return numbers


def main() -> int:
    """Measures, prints and writes; fails if a measurement had no successful request."""
    values = flags.FLAGS
    rates = _numbers("rate", values.rate, 0.01, whole=False)
    callers = _numbers("concurrency", values.concurrency, 1) or ([] if rates else [1.0, 4.0])
    result = loadtest(
        values.url,
        [Level("closed", load) for load in callers] + [Level("open", load) for load in rates],
        [int(n) for n in _numbers("candidates", values.candidates, 1)],
        [int(length) for length in _numbers("history", values.history, 0)],
        Bounds(values.seconds, values.max_requests),
        requests=values.requests,
        allow_remote=values.allow_remote,
        seed=values.seed,
        progress=True,
    )
    sys.stdout.write(table(result))
    if values.output:
        output = pathlib.Path(values.output)
        with explained_write_errors("--output", output):
            output.mkdir(parents=True, exist_ok=True)
            text = json.dumps(result, indent=2) + "\n"
            (output / "loadtest.json").write_text(text, encoding="utf-8")
            (output / "loadtest.svg").write_text(plot(result), encoding="utf-8")
        sys.stdout.write(f"Wrote {output / 'loadtest.json'} and {output / 'loadtest.svg'}\n")
    return 0 if all(cell["requests"] for cell in result["cells"]) else 1


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
