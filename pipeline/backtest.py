"""Lives through past days again: what would each way to train every day have given, at what cost?

    python -m pipeline.backtest --input='logs/*.csv' --workdir=WORK --model=din
        [--seeds=3] [flags of pipeline.build_examples and models.train]

There is a file of the log per day, in the order of their names; the first one may hold all that was
before. After each day a model is trained in several ways, and each scores all requests of the next
day, which none of them has seen:

    continued       on the new day, from the run of the day before (as pipeline.daily does)
    with replay     the same, with steps on requests of earlier days between them
    warm start      on everything so far, from the weights of the day before
    from scratch    on everything so far
    latest days     on the last --window days, from scratch, with complete histories

Leaves in WORK: sets/ and runs/, backtest.csv (a row per way, day and seed), and the page
backtest.html and .md with metrics and costs. A finished run is never repeated: give the command
again to continue after an interruption.
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from models.config import run_config
from models.core import run_directory
from models.evaluation.metrics import shown
from models.training import run_flags
from pipeline import build_examples as building
from pipeline.arguments import BuildArguments
from pipeline.log.input_files import list_inputs
from preprocessing import cli
from preprocessing.data_dir import COMPLETED, DataDir, write_json
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.storage import files

CSV, COSTS = "backtest.csv", "build_seconds.json"
CONTINUED, REPLAYED, WARM, SCRATCH, LATEST = (
    "continued",
    "with replay",
    "warm start",
    "from scratch",
    "latest days",
)
WAYS = (CONTINUED, REPLAYED, WARM, SCRATCH, LATEST)
_METRICS = ("auc", "gauc", "log_loss")


class Trained(NamedTuple):
    """A model that was trained in one way, at the end of one day.

    Attributes:
        run: Run directory.
        data: Its data set.
        build_seconds: Seconds that the data set took.
    """

    run: pathlib.Path
    data: pathlib.Path
    build_seconds: float


@dataclasses.dataclass(frozen=True)
class Backtest:
    """The days of a log, and how to build and train on them.

    Attributes:
        workdir: Directory to fill.
        logs: Path of the log of each day.
        build: Arguments of the data sets, but for log, output and base.
        resolve: Function from a data set and a seed to the configuration of a training from
            scratch.
        window: Number of days of `LATEST`.
        replay: Steps on earlier days per step on the new one of `REPLAYED`.
    """

    workdir: pathlib.Path
    logs: Sequence[str]
    build: BuildArguments
    resolve: Callable[[str, int], run_config.RunConfig]
    window: int = 7
    replay: float = 0.25

    def live_through(self, seeds: int) -> list[dict[str, Any]]:
        """Trains and measures every way on every day, as far as that is not done.

        Args:
            seeds: Number of runs per way and day.

        Returns:
            The rows of backtest.csv.

        Raises:
            UserError: A data set or a training is refused.
        """
        rows = self._read()
        done = {(row["way"], row["day"], row["seed"]) for row in rows}
        for number in range(len(self.logs)):
            self._day(number)
        for number in range(1, len(self.logs) - 1):
            for seed in range(1, seeds + 1):
                for way in WAYS:
                    if (way, number, seed) in done:
                        continue
                    trained = self._trained(way, number, seed)
                    rows.append(
                        {"way": way, "day": number, "seed": seed}
                        | measure(trained, self._day(number + 1)[0])
                    )
                    self._write(rows)
                    sys.stdout.write(f"{_line(rows[-1])}\n")
                    sys.stdout.flush()
        return rows

    def _trained(self, way: str, number: int, seed: int) -> Trained:
        """The model of a way after a day; trains it, and those that it stands on, if needed."""
        if number == 0:
            path, seconds = self._day(0)
            return self._train(f"first-{seed}", path, seconds, self._scratch(path, seed))
        name = f"{way.replace(' ', '-')}-{number}-{seed}"
        if way in (CONTINUED, REPLAYED):
            path, seconds = self._day(number)
            before = self._trained(way, number - 1, seed)
            content = run_config.load_to_continue(before.run / run_directory.CONFIG)
            content |= {"data": str(path), "continues": str(before.run)}
            content["train"]["replay"] = self.replay if way == REPLAYED else 0.0
            return self._train(name, path, seconds, run_config.resolve(content))
        first = 0 if way != LATEST else max(0, number + 1 - self.window)
        path, seconds = self._set(first, number)
        config = self._scratch(path, seed)
        if way == WARM:
            before = self._trained(way, number - 1, seed)
            config = dataclasses.replace(config, warm_start=str(before.run))
        return self._train(name, path, seconds, config)

    def _scratch(self, path: pathlib.Path, seed: int) -> run_config.RunConfig:
        return self.resolve(str(path), seed)

    def _train(
        self, name: str, data: pathlib.Path, seconds: float, config: run_config.RunConfig
    ) -> Trained:
        from models import train as training

        run = self.workdir / "runs" / name
        if not run_directory.is_measured(run, DataDir.open(data, verify=False)):
            run.parent.mkdir(parents=True, exist_ok=True)
            resume = (run / run_directory.CONFIG).exists()
            training.train(config, run, resume=resume, progress=False)
        return Trained(run, data, seconds)

    def _day(self, number: int) -> tuple[pathlib.Path, float]:
        """The data set of a day, on top of the day before, and the seconds that it took."""
        base = None if number == 0 else self._path(f"day-{number - 1}")
        return self._built(f"day-{number}", self.logs[number : number + 1], base, 1.0)

    def _set(self, first: int, last: int) -> tuple[pathlib.Path, float]:
        """The data set of several days; validated with the requests that the last day's set is."""
        base = None if first == 0 else self._path(f"day-{first - 1}")
        rows = [self._rows(number) for number in range(first, last + 1)]
        share = rows[-1] / sum(rows)
        return self._built(f"days-{first}-{last}", self.logs[first : last + 1], base, share)

    def _built(
        self, name: str, logs: Sequence[str], base: pathlib.Path | None, share: float
    ) -> tuple[pathlib.Path, float]:
        path, costs = self._path(name), self.workdir / COSTS
        seconds = read_json(costs, "seconds of builds", "remove it.") if costs.exists() else {}
        if not (path / COMPLETED).exists():
            started = time.monotonic()
            building.build_or_resume(
                dataclasses.replace(
                    self.build,
                    input=",".join(logs),
                    output=str(path),
                    base=None if base is None else str(base),
                    validation_fraction=self.build.validation_fraction * share,
                )
            )
            seconds[name] = round(time.monotonic() - started, 3)
            write_json(costs, seconds)
        return path, seconds.get(name, float("nan"))

    def _path(self, name: str) -> pathlib.Path:
        return self.workdir / "sets" / name

    def _rows(self, number: int) -> int:
        """Number of rows in the log of a day."""
        return DataDir.open(self._day(number)[0], verify=False).manifest["conservation"]["read"]

    def _read(self) -> list[dict[str, Any]]:
        import pandas as pd

        file = self.workdir / CSV
        if not file.exists():
            return []
        return [
            {str(name): value for name, value in row.items()}
            for row in pd.read_csv(file).to_dict("records")
        ]

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        import pandas as pd

        files.write_bytes(self.workdir / CSV, pd.DataFrame(rows).to_csv(index=False).encode())


def measure(trained: Trained, following: pathlib.Path) -> dict[str, Any]:
    """Metrics of a model on all requests of the next day, and what it cost.

    Args:
        trained: The model.
        following: Data set of the next day, whose ids may differ from those of the model.

    Returns:
        A row of backtest.csv, but for its keys.
    """
    from models.evaluation.scoring import Scorer
    from models.training import days
    from models.training.row_growth import translation

    run, day = run_directory.open_run(trained.run), DataDir.open(following, verify=False)
    scorer = Scorer(run_directory.load_model(run.path), day)
    translate = translation(day.encoders, run.data.encoders)
    metrics = days.measure(scorer, day, translate=translate)
    sessions = run_directory.read_sessions(run.path)
    seconds = sum(sum(entry["seconds"].values()) for entry in sessions)
    return {
        "requests": int(metrics["requests"]),
        **{name: metrics[name] for name in _METRICS},
        "build_seconds": trained.build_seconds,
        "train_seconds": round(seconds, 3),
        "training_requests": run.data.num_requests("train"),
        "steps": sessions[-1]["last_step"],
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"day {row['day']}, {row['way']}, seed {row['seed']}: next day AUC {shown(row['auc'])}  "
        f"log loss {shown(row['log_loss'])}  ({row['build_seconds'] + row['train_seconds']:.0f} s)"
    )


def define_flags() -> None:
    """Defines the flags of this command."""
    with cli.flag_group("The backtest"):
        flags.DEFINE_string("workdir", None, "Directory to fill.", required=True)
        flags.DEFINE_integer("seeds", 1, "Runs per way and day.", 1)
        flags.DEFINE_integer("window", 7, "Days of the way 'latest days'.", 1)
        flags.DEFINE_float("replay", 0.25, "Replayed steps per step of the way 'with replay'.", 0)
    building.define_log_flags()
    run_flags.define_config_flags()


def main() -> None:
    """Runs what is not done and writes the page."""
    flag_values = flags.FLAGS
    files.require_local(flag_values.workdir, "--workdir")
    build = building.arguments_from_flags(output="", hint=run_flags.setting_hint)
    if flag_values["protocol"].using_default_value:
        build = dataclasses.replace(build, protocol="day")
    if build.reads_topic:
        raise UserError(
            f"--input: expected a file per day, found the topic {build.input}.",
            "write the messages of each day to a file of JSON lines.",
        )
    logs = [file.path for file in list_inputs(build.input)]
    if len(logs) < 3:
        raise UserError(
            f"--input: expected a file per day, three at least, found {len(logs)}.",
            "name them so that their order is that of the days.",
        )
    workdir = pathlib.Path(flag_values.workdir)

    def resolve(data: str, seed: int) -> run_config.RunConfig:
        return run_flags.resolve_flags(data, seed).config

    backtest = Backtest(workdir, logs, build, resolve, flag_values.window, flag_values.replay)
    workdir.mkdir(parents=True, exist_ok=True)
    rows = backtest.live_through(flag_values.seeds)
    # They load TensorFlow and Matplotlib.
    from models.core import provenance
    from pipeline.experiments.backtest_page import write_page

    notes = (
        f"with replay: {backtest.replay:g} steps on earlier days per step on the new one; latest "
        f"days: {backtest.window}"
    )
    page = write_page(workdir, rows, WAYS, notes, provenance.command())
    sys.stdout.write(f"page: {page}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, rest="beam_options")


if __name__ == "__main__":
    console_main()
