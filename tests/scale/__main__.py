"""Computes what builds of up to 100 billion events cost, and checks that on builds that it runs.

    python -m tests.scale --workdir=/tmp/scale --checks=5000000,20000000

Constants are measured first: five builds of generated logs of --events events and of a tenth of
them. Then come the builds of --checks, each beside its prediction, which knows none of them, and
the table of docs/scale.md. All results are kept in --workdir: a second call builds only what is
missing, and goes on with what was cut off. Logs stay there too; data sets are removed.
"""

import pathlib
import sys
from collections.abc import Iterable, Sequence

from absl import flags

from preprocessing import cli

from . import model, runs

_FORESEEN = [10**exponent for exponent in range(6, 12)]
_LAST, _EVERY = "leave_last_out", "time_split"
_FEW_PARTITIONS, _MANY_PARTITIONS = 2, 32
_FILE_BYTES = 256 << 20  # of the logs that are not run


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Directory of logs and results.", required=True)
    flags.DEFINE_integer("events", 2_000_000, "Events of the builds that are measured first.")
    flags.DEFINE_list("checks", [], "Events of builds that are predicted and then run.")
    flags.DEFINE_enum("protocol", _LAST, [_LAST, _EVERY], "How --checks split events.")


def main() -> None:
    """Measures, checks and computes."""
    values = flags.FLAGS
    workdir = pathlib.Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    every = runs.run(workdir, values.events, _EVERY)
    value_seconds, value_bytes = model.measure_loading()
    calibration = model.Calibration(
        small=runs.run(workdir, values.events // 10, _LAST),
        large=runs.run(workdir, values.events, _LAST),
        few=runs.run(workdir, values.events, _LAST, _FEW_PARTITIONS),
        buckets=runs.run(workdir, values.events, _LAST, _MANY_PARTITIONS),
        every=every,
        value_seconds=value_seconds,
        value_bytes=value_bytes,
    )
    foresee = model.Model(calibration)
    _say(f"A worker loads a value in {1e6 * value_seconds:.2f} us, into {value_bytes:.0f} bytes.\n")
    for events in map(int, values.checks):
        found = runs.run(workdir, events, values.protocol)
        predicted = foresee.predict(events, found.requests)
        _table(f"{events:,} events, {values.protocol}", _compared(predicted, found))
    event_bytes, requests = every.log_bytes / every.events, every.requests / every.events
    predictions = [
        foresee.predict(n, round(n * requests), num_files=1 + int(n * event_bytes / _FILE_BYTES))
        for n in _FORESEEN
    ]
    _table("events", _foreseen(predictions), [_short(n) for n in _FORESEEN])


def _compared(predicted: model.Prediction, found: runs.Run) -> Iterable[tuple[str, list[str]]]:
    driver = found.stages["Driver"]
    for name, ours, theirs in (
        ("partitions", predicted.partitions, found.num_partitions),
        ("processor time of workers, s", predicted.cpu_seconds,
         found.cpu_seconds - driver["cpu_seconds"]),
        ("processor time of the driver, s", predicted.driver_seconds, driver["cpu_seconds"]),
        ("highest memory, MB", predicted.process_bytes / 1e6, found.peak_bytes / 1e6),
        ("references", predicted.references, found.total("references")),
        ("tables of counts, MB", predicted.table_bytes / 1e6, found.total("table_bytes") / 1e6),
        ("written by the driver, MB", predicted.driver_bytes / 1e6, driver["written_bytes"] / 1e6),
        ("files opened or written", predicted.store_requests,
         found.total("files_opened") + found.total("files_written")),
    ):  # fmt: skip
        yield name, [f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"]


def _foreseen(predictions: Sequence[model.Prediction]) -> Iterable[tuple[str, list[str]]]:
    def row(name: str, numbers: Iterable[float]) -> tuple[str, list[str]]:
        return name, [_short(number) for number in numbers]

    yield row("partitions", (one.partitions for one in predictions))
    yield row("buckets", (one.buckets for one in predictions))
    yield row("files of train", (one.shards for one in predictions))
    yield row("references to parts of files", (one.references for one in predictions))
    yield row("bytes of counts in shuffles", (one.table_bytes for one in predictions))
    yield row("bytes written by the driver", (one.driver_bytes for one in predictions))
    yield row("requests to the store", (one.store_requests for one in predictions))
    yield row("memory of a worker, bytes", (one.worker_bytes for one in predictions))
    yield row("... for users and items", (one.value_bytes for one in predictions))
    yield row("core hours", (one.cpu_seconds / 3600 for one in predictions))
    loading = (one.loading_seconds / 3600 for one in predictions)
    yield row("... that every worker spends again", loading)
    yield row("hours of the driver alone", (one.driver_seconds / 3600 for one in predictions))
    for workers in (1, 16, 256, 4096):
        yield row(f"hours on {workers:,} cores", (one.hours(workers) for one in predictions))


def _table(
    title: str,
    rows: Iterable[tuple[str, list[str]]],
    names: Sequence[str] = ("computed", "run", "ratio"),
) -> None:
    """Prints a table in Markdown."""
    _say(f"| {title} | {' | '.join(names)} |")
    _say(f"| --- |{' ---: |' * len(names)}")
    for name, numbers in rows:
        _say(f"| {name} | {' | '.join(numbers)} |")
    _say("")


def _short(number: float) -> str:
    """A number with two digits: 1.2 k, 34 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.2g}" if number < 100 else f"{number:.0f}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
