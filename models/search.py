"""The search behind `models.tune`: trials of settings, which Optuna chooses and a directory keeps.

SEARCH/  study.db  trials/  trials.csv  best.json
"""

import contextlib
import json
import logging
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
import pandas as pd
import sqlalchemy.exc
from tqdm import tqdm

from models import train as training
from models.config import run_config as config_module
from models.config.run_config import RunConfig
from models.core import run_directory
from models.core.checkpoints import last_update
from models.keras import keras
from models.training import data_checks, selection, tracking
from models.training.interruption import on_stop_signals
from models.training.progress import Progress
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError, explained_write_errors, one_line
from preprocessing.storage import files

BEST, TRIALS, TABLE, STUDY = "best.json", "trials", "trials.csv", "study.db"
_METRIC = "metric"
_FINISHED = (
    optuna.trial.TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED,
    optuna.trial.TrialState.FAIL,
)

_ERROR, _STARTS = "error", "starts"
_DEATHS = 2
"""Number of process deaths without a checkpoint in between after which a trial fails."""

Space = Mapping[str, Mapping[str, Any]]


def search(
    base: Mapping[str, Any],
    space: Space,
    trials: int,
    workdir: str | pathlib.Path,
    progress: bool = True,
    tracked_at: str | None = None,
) -> RunConfig:
    """Runs trials up to a total number.

    Args:
        base: Configuration that every trial starts from, as `run_config.resolve` takes it.
        space: Range or choices by setting.
        trials: Total number of trials, those of earlier calls included.
        workdir: Directory of the search, created if needed.
        progress: Whether to show progress on standard error.
        tracked_at: Value of --tracking; every trial is a run there.

    Returns:
        The best configuration, which best.json also holds.

    Raises:
        UserError: The workdir holds a search of another space or with other settings, a setting
            does not exist, there is no data set, no trial could be trained to its end, or study.db
            cannot be used.
        Interrupted: The process got SIGTERM or Ctrl-C; the current trial has a checkpoint.
    """
    files.require_local(workdir, "--workdir")
    workdir = pathlib.Path(workdir).resolve()
    first = config_module.resolve(base, _overrides(space, _first_values(space)))
    # Errors that every trial would have are reported before the first trial.
    data = DataDir.open(first.data, verify=False)
    if progress:
        sys.stdout.write("".join(f"{line}\n" for line in data_checks.remarks(data)))
    with _explained_storage_errors(workdir):
        study = _open_study(workdir, base, space, first.train.seed)
        finished = _run_trials(study, base, space, trials, workdir, progress, tracked_at)
    complete = [t for t in finished if t.state is optuna.trial.TrialState.COMPLETE]
    if not complete:
        causes = [t.user_attrs[_ERROR] for t in finished if _ERROR in t.user_attrs]
        last = f"; the last one failed with: {causes[-1]}" if causes else ""
        raise UserError(
            f"Expected a trial that can be trained to an end, found none among "
            f"{len(finished)}{last}",
            f"see the others in {workdir / TABLE}, mend the cause or narrow the space, and search "
            "in another --workdir or with a higher --trials.",
        )
    best = config_module.resolve(base, _overrides(space, study.best_trial.params))
    best.save(workdir / BEST)
    return best


def _run_trials(
    study: optuna.Study,
    base: Mapping[str, Any],
    space: Space,
    trials: int,
    workdir: pathlib.Path,
    progress: bool,
    tracked_at: str | None,
) -> list[optuna.trial.FrozenTrial]:
    """Runs trials up to a total number; returns the finished ones."""
    bar = tqdm(total=trials, desc="trials", disable=None if progress else True)
    with bar, on_stop_signals() as stop:
        while True:
            finished = study.get_trials(deepcopy=False, states=_FINISHED)
            bar.update(len(finished) - bar.n)
            if len(finished) >= trials:
                return finished
            running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
            # An interrupted trial resumes: its settings are in the study, its weights on disk.
            trial = optuna.Trial(study, running[0]._trial_id) if running else study.ask()
            _run_trial(study, trial, base, space, workdir, stop, tracked_at)
            _write_table(study, workdir)
            if progress and bar.disable:  # There is no terminal to show a bar on.
                sys.stderr.write(f"trial {trial.number} of {trials} is over, see {TABLE}\n")


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    base: Mapping[str, Any],
    space: Space,
    workdir: pathlib.Path,
    stop: Any,
    tracked_at: str | None,
) -> None:
    """Trains with the settings of a trial and reports the result to the study.

    Errors of a trial are its result; otherwise the study would repeat the same trial for ever.
    """
    path = workdir / TRIALS / f"{trial.number:04d}"

    def report(metrics: Mapping[str, float | None]) -> None:
        trial.set_user_attr(_METRIC, selection.metric(metrics))
        score = selection.score(metrics)
        if not math.isfinite(score):
            raise UserError(f"Expected a validation metric that is finite, found {score}.")
        # Steps are not comparable between batch sizes, so trials are compared by evaluation.
        trial.report(score, len(trainer.progress.history))
        if trial.should_prune():
            raise optuna.TrialPruned

    has_run = (path / run_directory.CONFIG).exists()
    tracker = tracking.open_tracker(tracked_at, path, required=False)
    try:
        _count_start(trial, path)
        values = {name: _suggest(trial, name, domain) for name, domain in space.items()}
        config = config_module.resolve(base, _overrides(space, values))
        trainer = training.begin(
            config,
            path,
            has_run,
            progress=False,
            stop=stop,
            on_evaluation=report,
            tracker=tracker,
        )
        with trainer.journal:
            trainer.fit()
            if tracker:
                trainer.journal.record_result({"validation": _best(trainer.progress)})
    except optuna.TrialPruned:
        if tracker:
            tracker.end("KILLED")  # which is no failure
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError):
        raise
    except Exception as error:
        cause = str(error) if isinstance(error, UserError) else one_line(error)
        logging.debug("trial %d failed", trial.number, exc_info=True)
        tqdm.write(f"trial {trial.number} failed: {cause}", file=sys.stderr)
        trial.set_user_attr(_ERROR, cause)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    except BaseException:  # The process was asked to stop, which does not count as a death.
        trial.set_user_attr(_STARTS, trial.user_attrs[_STARTS][:-1])
        raise
    else:
        study.tell(trial, trainer.progress.best_score)
    keras.backend.clear_session()
    shutil.rmtree(path / run_directory.CHECKPOINTS, ignore_errors=True)


def _best(progress: Progress) -> dict[str, float | None]:
    """Metrics of the best weights on the validation split."""
    row = next(row for row in progress.history if row["step"] == progress.best_step)
    prefix = "validation/"
    return {name[len(prefix) :]: row[name] for name in row if name.startswith(prefix)}


def _count_start(trial: optuna.Trial, path: pathlib.Path) -> None:
    """Records the update at which a trial starts.

    Raises:
        UserError: The trial started at this update before, and the process died each time.
    """
    starts = trial.user_attrs.get(_STARTS, [])
    update = last_update(path / run_directory.CHECKPOINTS)
    if starts.count(update) >= _DEATHS:
        raise UserError(
            f"Expected a trial that does not end its process, found {_DEATHS} processes that died "
            f"after update {update} without a word, as for want of memory."
        )
    trial.set_user_attr(_STARTS, [*starts, update])


def _open_study(
    workdir: pathlib.Path, base: Mapping[str, Any], space: Space, seed: int
) -> optuna.Study:
    """Opens or creates the study of a directory; raises `UserError` for another search's study."""
    with explained_write_errors("--workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{workdir / STUDY}",
        study_name="search",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    # The seed depends on the number of trials: a resumed search must not repeat its draws.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    claim = json.loads(json.dumps({"base": base, "space": space}))
    stored_claim = study.user_attrs.get("claim", claim)
    if stored_claim != claim:
        before, after = (
            config_module.flat({**one["base"], "space": one["space"]})
            for one in (stored_claim, claim)
        )
        raise UserError(
            f"Expected the search that {workdir} was begun with; "
            f"{'; '.join(config_module.differences(before, after))}.",
            "give the flags and the space of before, or another --workdir.",
        )
    study.set_user_attr("claim", claim)
    return study


@contextlib.contextmanager
def _explained_storage_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns errors of Optuna about its file into a `UserError`."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"Expected to read and write {workdir / STUDY}, found {one_line(cause)}",
            "free space or rights there, restore the file from a copy, or search in another "
            "--workdir.",
        ) from error


def _write_table(study: optuna.Study, workdir: pathlib.Path) -> None:
    """Writes trials.csv: number, state, best validation, settings and error of each trial."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            **_best_validation(trial),
            **trial.params,
            "error": trial.user_attrs.get(_ERROR, ""),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    files.write_bytes(workdir / TABLE, pd.DataFrame(rows).to_csv(index=False).encode())


def _best_validation(trial: optuna.trial.FrozenTrial) -> dict[str, float | None]:
    """The best evaluation of a trial, by the name of its selecting metric."""
    name = trial.user_attrs.get(_METRIC, "auc")
    score = max(trial.intermediate_values.values(), default=None)
    return {f"validation/{name}": None if score is None else score * selection.sign(name)}


def _suggest(trial: optuna.Trial, name: str, domain: Mapping[str, Any]) -> Any:
    """The value of a setting in a trial, as `trial.params` holds it."""
    if "choices" in domain:
        return trial.suggest_categorical(name, [json.dumps(choice) for choice in domain["choices"]])
    low, high, log = domain["low"], domain["high"], domain.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, step=domain.get("step", 1), log=log)
    return trial.suggest_float(name, low, high, step=domain.get("step"), log=log)


def _first_values(space: Space) -> dict[str, Any]:
    """A value for each setting, to check that the settings exist."""
    return {
        name: json.dumps(domain["choices"][0]) if "choices" in domain else domain["low"]
        for name, domain in space.items()
    }


def _overrides(space: Space, values: Mapping[str, Any]) -> list[str]:
    """The values of a trial as `--set` takes them; values of choices are JSON already."""
    return [
        f"{name}={value if 'choices' in space[name] else json.dumps(value)}"
        for name, value in values.items()
    ]
