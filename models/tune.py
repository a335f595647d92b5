"""Searches for settings with the best validation AUC.

    python -m models.tune --data=DATA --model=din --space=space.json --trials=40 --workdir=SEARCH
    python -m models.train --config=SEARCH/best.json --workdir=RUN

SPACE is a JSON object with a range or choices for each setting to search, by its name in --set:

    {"train.learning_rate": {"low": 0.0001, "high": 0.01, "log": true},
     "model.embedding_size": {"low": 8, "high": 32, "step": 8},
     "model.units": {"choices": [[200, 80], [64, 32]]}}

A range of integers is searched in integers. Takes the other flags of models.train. A trial ends
early once its validation AUC (log loss, if validation has candidates of one class only) is worse
than the median of the trials before it. A trial that fails is recorded with its cause, and the
search goes on. The same command goes on where a search was stopped, in the middle of a trial if
need be; a higher --trials adds some. With --tracking every trial is a run in MLflow.

Leaves in SEARCH: study.db (Optuna's), trials/ (run directories without checkpoints), trials.csv and
best.json. Trials are compared on the validation split; the test split is never used.
"""

import json
import math
import pathlib
import shlex
import sys
from typing import Any

from absl import flags

from models.training import run_flags, tracking
from models.training.interruption import Interrupted
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.json_checks import check_keys, read_json


def load_space(path: str | pathlib.Path) -> dict[str, dict[str, Any]]:
    """Reads a search space.

    Raises:
        UserError: The file cannot be read or holds no search space.
    """
    space = read_json(pathlib.Path(path), "a search space", "check --space.")
    if not space:
        raise UserError(f"--space: expected settings to search in {path}, found none.")
    for name, domain in space.items():
        _check_domain(domain, f"{path}: {name}")
    return space


def _check_domain(domain: Any, where: str) -> None:
    """Raises `UserError` unless this is a range or a list of choices."""
    if isinstance(domain, dict) and "choices" in domain:
        check_keys(domain, ("choices",), ("choices",), where)
        if not isinstance(domain["choices"], list) or not domain["choices"]:
            raise UserError(f"{where}: expected a list of choices, found {domain['choices']!r}.")
        return
    check_keys(domain, ("low", "high", "log", "step"), ("low", "high"), where)
    low, high, step = domain["low"], domain["high"], domain.get("step")
    if not (_is_number(low) and _is_number(high)) or low > high:
        raise UserError(f"{where}: expected numbers low <= high, found {low!r} and {high!r}.")
    if not isinstance(domain.get("log", False), bool):
        raise UserError(f"{where}: expected log to be true or false, found {domain['log']!r}.")
    if domain.get("log") and ("step" in domain or low <= 0):
        raise UserError(f"{where}: expected a range above 0 without step where log is true.")
    integers = isinstance(low, int) and isinstance(high, int)
    if "step" in domain and (
        not _is_number(step) or step <= 0 or (integers and not isinstance(step, int))
    ):
        kind = "an integer" if integers else "a number"
        raise UserError(f"{where}: expected step to be {kind} above 0, found {step!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def define_flags() -> None:
    """Defines the flags of this command."""
    with cli.flag_group("The search"):
        flags.DEFINE_string("data", None, "Data set directory of ctr-build-examples.")
        flags.DEFINE_string("space", None, "JSON file of the settings to search.", required=True)
        flags.DEFINE_integer(
            "trials", 30, "Total number of trials, earlier ones included.", lower_bound=1
        )
        run_flags.define_integer("seed", "Seed of the trainings and of the search (default 1).")
        flags.DEFINE_string("workdir", None, "Directory of the search.", required=True)
    run_flags.define_config_flags()
    with cli.flag_group("The training"):
        tracking.define_flag()


def main() -> None:
    """Searches and prints the best settings."""
    flag_values = flags.FLAGS
    space = load_space(flag_values.space)
    run_flags.check_paths(flag_values.data)
    tracking.check(flag_values.tracking)
    base = run_flags.resolve_flags(flag_values.data, flag_values.seed).config.to_json()
    from models import search  # loads TensorFlow, pandas and Optuna

    try:
        best = search.search(
            base,
            space,
            flag_values.trials,
            flag_values.workdir,
            tracked_at=flag_values.tracking,
        )
    except Interrupted as interruption:
        where = interruption.message.partition(";")[0]
        sys.stdout.write(f"{where} of a trial; go on with the same command\n")
        raise
    values = best.to_json()
    for name in space:
        section, _, key = name.partition(".")
        sys.stdout.write(f"{name} = {json.dumps(values[section][key])}\n")
    recipe = shlex.quote(str(pathlib.Path(flag_values.workdir) / search.BEST))
    command = cli.as_started("python -m models.train")
    sys.stdout.write(f"train: {command} --config={recipe} --workdir=RUN\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, hint=run_flags.setting_hint)


if __name__ == "__main__":
    console_main()
