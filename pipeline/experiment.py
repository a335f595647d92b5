"""Makes a table or figure of the papers, or beyond: trains its models, compares them, writes pages.

    python -m pipeline.experiment --table=deminet/2 --data=DATA --seeds=5 --workdir=WORK
    python -m pipeline.experiment --table=miss/9 --data=CDS --data=BOOKS --workdir=WORK --jobs=8
    python -m pipeline.experiment --table=miss/3 --quick --workdir=WORK

The tables: deminet/1 deminet/2 deminet/3 deminet/fig3a deminet/fig3b deminet/fig4 deminet/fig5,
miss/2 ... miss/10, miss/fig5 miss/fig6 miss/fig7; beyond/miss beyond/rivals
beyond/schedules beyond/data beyond/width beyond/history beyond/simulation beyond/features
beyond/events beyond/best. DATA are data sets of pipeline.build_examples with the protocol of the
paper: time_split for DemiNet, leave_last_out for MISS and beyond.

Every model is trained once per data set and seed, in WORK/runs, at the learning rate that is best
on the validation split for the first seed (`--learning_rate` names others to choose from). A
finished run is never repeated, neither by the same command nor by another table that needs it; run
the command again to continue after an interruption. Leaves in WORK, for deminet/2: deminet-2.html,
deminet-2.md, deminet-2.csv (the table) and deminet-2-runs.csv (each run).
"""

import dataclasses
import functools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

from absl import flags

from models.training.interruption import Interrupted
from pipeline.experiments import TABLES, planned_runs, scheduler
from pipeline.experiments.planned_runs import PlannedRun
from pipeline.experiments.recipe import Table
from pipeline.experiments.scheduler import Failure
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean
from preprocessing.storage.files import require_local

_SEEDS = 5
_QUICK_SEEDS = 1
"""More show nothing else that runs, and each costs as much again."""


def experiment(
    table_id: str,
    data: Sequence[str],
    workdir: str | pathlib.Path,
    seeds: int = _SEEDS,
    jobs: int | None = None,
    command: str = "",
    learning_rates: Sequence[float] = (),
) -> pathlib.Path:
    """Makes a table of the papers.

    Args:
        table_id: A key of `pipeline.experiments.TABLES`.
        data: Data directories.
        workdir: Directory for runs and pages; created if needed.
        seeds: Number of seeds, which are 1, 2, ...
        jobs: Number of runs at a time; None for as many as there are cores.
        command: Command that was called, for the page.
        learning_rates: Learning rates to choose from, instead of those of the table.

    Returns:
        The path of the HTML page, written from the runs that are finished.

    Raises:
        UserError: No such table; data that does not fit; runs that failed (the page is written).
    """
    table = _table(table_id, learning_rates)
    workdir = _local(workdir)
    named = planned_runs.open_data(data, table)
    planned, failures = _train(
        functools.partial(planned_runs.plan_runs, table, named, _seeds(table, seeds), workdir),
        functools.partial(scheduler.run_all, jobs=jobs or len(os.sched_getaffinity(0))),
    )
    from pipeline.experiments import rendering  # loads pandas, SciPy and scikit-learn

    page = rendering.write(table, named, planned, workdir, command)
    if failures:
        raise UserError(
            f"Expected every run to finish, found {len(failures)} that failed; the first, "
            f"{failures[0].name}, ended with: {failures[0].last_line} (see {failures[0].log}).",
            f"run the command again to try them again; {page} shows the others.",
        )
    return page


def quick_experiment(
    table_id: str,
    data: Sequence[str],
    workdir: str | pathlib.Path,
    seeds: int = _QUICK_SEEDS,
    command: str = "",
    learning_rates: Sequence[float] = (),
) -> pathlib.Path:
    """Makes a table in seconds: a few steps per run, on generated data if none is given.

    Args:
        table_id: A key of `pipeline.experiments.TABLES`.
        data: Data directories, perhaps none.
        workdir: Directory for runs and pages; created if needed.
        seeds: Number of seeds.
        command: Command that was called, for the page.
        learning_rates: Learning rates to choose from, instead of the first one of the table.

    Returns:
        The path of the HTML page.

    Raises:
        UserError: No such table; data that does not fit.
    """
    from pipeline.experiments import quick, rendering  # They load TensorFlow and Beam.

    table = quick.shortened(_table(table_id), learning_rates)
    workdir = _local(workdir)
    named = planned_runs.open_data(data or [str(quick.build_data(table.protocol, workdir))], table)
    with quick.uncompiled():
        planned, _ = _train(
            functools.partial(planned_runs.plan_runs, table, named, _seeds(table, seeds), workdir),
            scheduler.run_here,
        )
        return rendering.write(table, named, planned, workdir, command, quick=True)


def _train(
    make_plan: Callable[[], list[PlannedRun]],
    run: Callable[[Sequence[PlannedRun]], list[Failure]],
) -> tuple[list[PlannedRun], list[Failure]]:
    """Runs the trainings of a table: trials of learning rates first, then the others."""
    failures = run(make_plan())
    failed = {failure.name for failure in failures}
    planned = make_plan()
    return planned, failures + run(
        [training for training in planned if training.name not in failed]
    )


def _table(table_id: str, learning_rates: Sequence[float] = ()) -> Table:
    if table_id not in TABLES:
        raise UserError(
            f"Expected --table to be one of {', '.join(TABLES)}, found {table_id!r}.",
            did_you_mean(table_id, TABLES),
        )
    table = TABLES[table_id]
    return dataclasses.replace(table, learning_rates=learning_rates or table.learning_rates)


def _seeds(table: Table, seeds: int) -> range:
    """Seeds of the trainings; a figure of the inside of a model needs one model."""
    return range(1, 2 if table.inside else seeds + 1)


def _local(workdir: str | pathlib.Path) -> pathlib.Path:
    require_local(workdir, "--workdir")
    return pathlib.Path(workdir).resolve()


def define_flags() -> None:
    """Flags of this command."""
    flags.DEFINE_string("table", None, f"One of {', '.join(TABLES)}.", required=True)
    flags.DEFINE_multi_string("data", [], "Data set directory; repeatable.")
    flags.DEFINE_string("workdir", None, "Directory for runs and pages.", required=True)
    flags.DEFINE_integer("seeds", _SEEDS, "Runs per model and data set.", lower_bound=1)
    flags.DEFINE_multi_float(
        "learning_rate",
        [],
        "Learning rate to choose from, instead of those of the table; repeatable.",
    )
    flags.DEFINE_integer("jobs", None, "Runs at a time (default: cores).", lower_bound=1)
    flags.DEFINE_bool("quick", False, "Train a few steps per run, to see that everything works.")


def main() -> int | None:
    """Makes the table and prints where it is."""
    flag_values = flags.FLAGS
    command = f"{cli.as_started('python -m pipeline.experiment')} {shlex.join(sys.argv[1:])}"
    try:
        if flag_values.quick:
            seeds = min(flag_values.seeds, _QUICK_SEEDS)
            page = quick_experiment(
                flag_values.table,
                flag_values.data,
                flag_values.workdir,
                seeds,
                command,
                flag_values.learning_rate,
            )
        elif flag_values.data:
            page = experiment(
                flag_values.table,
                flag_values.data,
                flag_values.workdir,
                flag_values.seeds,
                flag_values.jobs,
                command,
                flag_values.learning_rate,
            )
        else:
            raise UserError("Expected --data or --quick, found neither.")
    except (KeyboardInterrupt, Interrupted):
        sys.stderr.write("interrupted; run the same command to continue\n")
        return cli.STOPPED
    sys.stdout.write(f"{page.with_suffix('.md').read_text(encoding='utf-8')}\nreport: {page}\n")
    return None


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
