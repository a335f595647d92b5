"""The job of a day: its log becomes a data set, a trained model, and the served version.

    python -m pipeline.daily --day=2026-11-01 --input=logs/2026-11-01.csv --workdir=WORK
        --schema=schema.json --model=din --ssl=miss
    python -m pipeline.daily --day=2026-11-02 --input=logs/2026-11-02.csv --workdir=WORK

The first day is built and trained from scratch. Each one after it is built on top of the data set
before (--base), goes on with the published run before (--continue), and takes its settings from
there. Stages: build, audit, drift (against the day before), train, report, export with its gates.
A stage that refuses ends the day with one line of reason; the live version stays. The same command
goes on at that stage, or says that the day is done.

Fills WORK with sets/DAY, runs/DAY (with report.html, and days.csv: the model's metrics on each day
before it learned from it), model/<version> and daily.json, the state of the days. Takes the flags
of pipeline.build_examples, models.train and serving.export that can differ from day to day.
"""

import contextlib
import dataclasses
import fcntl
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from models.core import run_directory
from models.ops.choices import CALIBRATIONS
from models.training import run_flags, tracking
from pipeline import build_examples as building
from pipeline.arguments import BuildArguments
from pipeline.job import log_schema
from pipeline.job.day_states import STAGES, Day, Days
from preprocessing import cli
from preprocessing.data_dir import COMPLETED
from preprocessing.errors import UserError
from preprocessing.storage import files
from serving import export as exporting
from serving.exporting import publishing

LOCK = ".daily.lock"


@dataclasses.dataclass(frozen=True)
class DayArguments:
    """What may differ from day to day beside the log.

    Attributes:
        build: Arguments of the data set, whose base and output the job sets.
        resolve: Function from the data set and the run to go on with, if there is one, to the
            configuration of the training.
        max_drift: Limits of drift, see `pipeline.validate`; None for none.
        export: Options of the export, whose version the job sets.
    """

    build: BuildArguments
    resolve: Callable[[str, str | None], run_flags.Resolved]
    max_drift: str | None
    export: exporting.ExportOptions


def run_day(
    days: Days,
    day: Day,
    arguments: DayArguments,
    log: log_schema.CheckedLog | None = None,
    tracker: tracking.Tracker | None = None,
) -> None:
    """Runs the stages of a day that are not yet complete.

    Args:
        days: The days so far.
        day: One of them.
        arguments: Arguments of the day.
        log: The log as `log_schema.check` found it with the arguments of `build_arguments`, if that
            was done already.
        tracker: The run of the day in MLflow, if it is tracked there.

    Raises:
        UserError: A stage refuses. Its reason is in the state; the live version is as it was.
    """
    work: dict[str, Callable[[], str]] = {
        "build": lambda: _build(days, day, arguments.build, log),
        "audit": lambda: _audit(days.set_of(day)),
        "drift": lambda: _drift(days, day, arguments.max_drift),
        "train": lambda: _train(days, day, arguments.resolve, tracker),
        "report": lambda: _report(days.run_of(day), tracker),
        "export": lambda: _export(days, day, arguments.export),
    }
    for number, stage in enumerate(STAGES, 1):
        title = f"[{number}/{len(STAGES)}] {stage}"
        if stage in day.done:
            _say(f"{title}: complete")
            continue
        _say(title)
        started = time.monotonic()
        day.refused = ""
        try:
            result = work[stage]()
        except UserError as error:
            day.refused = str(error)
            days.save()
            raise UserError(
                f"{day.name} ends at {stage}, {_live(days)}, and the same command goes on there: "
                f"{error}"
            ) from error
        day.done.append(stage)
        days.save()
        _say(f"{title}: {time.monotonic() - started:.0f} s{result and f'  {result}'}")


def build_arguments(days: Days, day: Day, build: BuildArguments) -> BuildArguments:
    """The arguments of a day's data set, on top of that of the last day that has one."""
    before = days.last("build", day)
    base = None if before is None else str(days.set_of(before))
    return dataclasses.replace(build, base=base, output=str(days.set_of(day)))


def _build(days: Days, day: Day, build: BuildArguments, log: log_schema.CheckedLog | None) -> str:
    """Builds the data set."""
    arguments, before = build_arguments(days, day, build), days.last("build", day)
    if not (days.set_of(day) / COMPLETED).exists():
        building.build_or_resume(arguments, log)
    return "" if before is None else f"on top of {before.name}"


def _audit(data: pathlib.Path) -> str:
    from pipeline.audit import audit

    findings = audit(data)
    if findings:
        name, finding = next(iter(findings.items()))
        raise UserError(
            f"Expected a data set that keeps its promises in {data}, found {len(findings)} that it "
            f"breaks, the first {finding.count} times: {name}.",
            f"python -m pipeline.audit {shlex.quote(str(data))} shows requests; report it.",
        )
    return ""


def _drift(days: Days, day: Day, max_drift: str | None) -> str:
    """Compares the data set with that of the day before, if there is one."""
    before = days.last("build", day)
    if before is None:
        return "no day before"
    from pipeline import validate

    text, is_alike = validate.report(days.set_of(day), days.set_of(before), max_drift)
    sys.stdout.write(text)
    if not is_alike:
        raise UserError(
            f"Expected drift from {before.name} within --max_drift={max_drift}, found more (see "
            "EXCEEDED above).",
            "find the cause in the log first; raise --max_drift if it may be so.",
        )
    return f"against {before.name}"


def _train(
    days: Days,
    day: Day,
    resolve: Callable[[str, str | None], run_flags.Resolved],
    tracker: tracking.Tracker | None,
) -> str:
    """Trains from scratch, or goes on with the run of the last day that was published."""
    from models import train as training

    run_dir, before = days.run_of(day), days.last("export", day)
    is_begun = (run_dir / run_directory.CONFIG).exists()
    continued = None if before is None else str(days.run_of(before))
    resolved = resolve(str(days.set_of(day)), continued)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    training.train(
        resolved.config, run_dir, resume=is_begun, origins=resolved.origins, tracker=tracker
    )
    return "from scratch" if before is None else f"going on with {before.name}"


def _report(run_dir: pathlib.Path, tracker: tracking.Tracker | None) -> str:
    from models.reporting.run_report import write_report

    report = run_dir / "report.html"
    write_report(run_dir, report)
    if tracker:
        tracker.attach(report)
    return str(report)


def _export(days: Days, day: Day, options: exporting.ExportOptions) -> str:
    """Publishes the run; a version that an interrupted attempt has published is not repeated."""
    if day.version is None:
        day.version = publishing.next_version(days.model)
        days.save()
    if day.version not in publishing.versions(days.model):
        options = dataclasses.replace(options, version=day.version)
        exported = exporting.export(days.run_of(day), days.model, options)
        _say("\n".join([*exported.checks, *exported.calibration]))
    return f"version {day.version}"


def _live(days: Days) -> str:
    """What is served now, as part of a sentence."""
    live = publishing.live_version(days.model) if days.model.exists() else None
    return "no version is live yet" if live is None else f"version {live.name} stays live"


def _summary(days: Days, day: Day) -> Sequence[str]:
    """The last lines of a finished day."""
    import pandas as pd

    from models.training.days import line

    run_dir = days.run_of(day)
    lines = []
    if (run_dir / run_directory.DAYS).exists():
        rows = pd.read_csv(run_dir / run_directory.DAYS).to_dict("records")
        lines.append(line({str(name): value for name, value in rows[-1].items()}))
    publication = publishing.read(days.model)
    stable = None if publication is None else publication.stable
    previous = None if publication is None else publication.previous
    lines.append(f"{day.name} is done: version {day.version} is published, version {stable} live")
    if previous is not None:
        command = cli.as_started("python -m serving.rollback")
        output = shlex.quote(str(days.model))
        lines.append(f"back to version {previous}: {command} --output={output}")
    lines.append(f"report: {(run_dir / 'report.html').resolve()}")
    return lines


@contextlib.contextmanager
def _alone(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a directory, so that only one daily job works in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Expected one daily job at a time in {workdir}, found another one at work.",
                "wait for it, or stop it.",
            ) from None
        yield


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def define_flags() -> None:
    """Defines the flags of this command."""
    with cli.flag_group("The day"):
        flags.DEFINE_string("workdir", None, "Directory of all days.", required=True)
        flags.DEFINE_string("day", None, "Name of the day, such as its date.", required=True)
        flags.DEFINE_string("max_drift", None, "Largest drift, as a number or by feature.")
    building.define_log_flags()
    run_flags.define_config_flags()
    with cli.flag_group("The training"):
        tracking.define_flag()
    with cli.flag_group("The export"):
        defaults: dict[str, Any] = {
            field.name: field.default for field in dataclasses.fields(exporting.ExportOptions)
        }
        flags.DEFINE_integer(
            "keep", defaults["keep"], "Newest versions to keep beside the served ones; 0: all.", 0
        )
        flags.DEFINE_float(
            "max_auc_drop",
            defaults["max_auc_drop"],
            "Refuse a model whose AUC on held-out requests is lower than the live version's by "
            "more.",
            0,
        )
        flags.DEFINE_enum("calibrate", None, CALIBRATIONS, "Make scores probabilities.")


def main() -> int | None:
    """Runs the day."""
    flag_values = flags.FLAGS
    files.require_local(flag_values.workdir, "--workdir")
    workdir = pathlib.Path(flag_values.workdir)
    for name in ("base", "warm_start", "config"):
        if flag_values[name].value is not None:
            raise UserError(
                f"--{name}: expected no such flag, found {flag_values[name].value!r}: the daily "
                "job continues the day before by itself.",
                "leave it out.",
            )
    build = building.arguments_from_flags(output="", hint=run_flags.setting_hint)
    if flag_values["protocol"].using_default_value:
        build = dataclasses.replace(build, protocol="day")
    arguments = DayArguments(
        build,
        lambda data, continued: run_flags.resolve_flags(data, build.seed, None, continued),
        flag_values.max_drift,
        exporting.ExportOptions(
            keep=flag_values.keep,
            max_auc_drop=flag_values.max_auc_drop,
            calibrate=flag_values.calibrate,
        ),
    )
    with _alone(workdir):
        days = Days.load(workdir)
        day = days.begin(flag_values.day)
        if not day.stage:
            _say("\n".join(_summary(days, day)))
            return None
        tracker = tracking.open_tracker(flag_values.tracking, days.run_of(day))
        log = None
        if "build" not in day.done:
            log = log_schema.check(build_arguments(days, day, build))
        days.save()
        run_day(days, day, arguments, log, tracker)
        _say("\n".join(_summary(days, day)))
    return None


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, rest="beam_options")


if __name__ == "__main__":
    console_main()
