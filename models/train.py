"""Trains a model on a data set.

    python -m models.train --data=DATA --model=deminet --workdir=RUN
    python -m models.train --data=DATA --model=din --ssl=miss --set=ssl.alpha=0.5 --workdir=RUN
    python -m models.train --data=DATA --model=din --ssl=miss --pretrain_epochs=40 --workdir=RUN
    python -m models.train --workdir=RUN --resume
    TF_CONFIG=… python -m models.train --data=DATA --distribute=multi_worker --workdir=RUN
    python -m models.train --data=NEW_DATA --warm_start=RUN --workdir=NEW_RUN
    python -m models.train --data=NEW_DAY --continue=RUN --workdir=NEW_RUN

Leaves in RUN: config.json (every default spelled out), origins.json (where each value comes from),
schema.json, metrics.json, metrics.csv, pretraining.csv, sessions.json (code, machine, time and
memory of each process that worked on it), TensorBoard events, also in overview/ (to compare runs),
checkpoints/ (to resume) and best/ (weights of the best validation AUC, or log loss where AUC is
undefined); with --continue also days.csv (what the model scored on each day before it learned from
it); with --tracking also tracking.json (the run's id in MLflow). SIGTERM and Ctrl-C write a
checkpoint after the current step and end with status 0 and 130; a second Ctrl-C does not wait.
"""

import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from models.config import run_config as config_module
from models.config.run_config import RunConfig
from models.core import run_directory
from models.evaluation.metrics import shown
from models.training import data_checks, run_flags, tracking
from models.training.interruption import Interrupted, interrupted, on_stop_signals
from models.training.profiling import Profile
from preprocessing import cli
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.storage import files

if TYPE_CHECKING:
    from models.training.trainer import Trainer

_RESUMABLE_SETTINGS = (
    "epochs",
    "max_steps",
    "patience",
    "distribute",
    "sharding",
    "peer_timeout",
    "tables_on_cpu",
    "data_memory",
    "steps_per_execution",
    "checkpoint_minutes",
    "histograms",
    "native_ops",
)


def train(
    config: RunConfig,
    workdir: str | pathlib.Path,
    resume: bool = False,
    progress: bool = True,
    profile: Profile | None = None,
    origins: Mapping[str, str] | None = None,
    tracker: tracking.Tracker | None = None,
) -> dict[str, dict[str, float | None]]:
    """Trains a model; the library function behind this command.

    Args:
        config: Configuration of the run.
        workdir: Run directory, created if needed.
        resume: Whether to continue the run in `workdir`. If False, a directory with a run is an
            error.
        progress: Whether to print the findings of the data set and to show progress bars on
            standard error.
        profile: Steps to profile.
        origins: Origins of the values of the configuration, for origins.json.
        tracker: The run in MLflow, if it is tracked there.

    Returns:
        Metrics of the best weights by split; None where undefined.

    Raises:
        UserError: A run is already there, or it was started with other settings, or the data set
            cannot be used, or numbers are not finite, or the disk is full.
        Interrupted: The process got SIGTERM or Ctrl-C and has written a checkpoint.
    """
    with on_stop_signals() as stop:
        try:
            trainer = begin(
                config,
                workdir,
                resume,
                origins,
                progress=progress,
                stop=stop,
                profile=profile,
                tracker=tracker,
            )
            if trainer.shows_progress:
                sys.stdout.write("".join(f"finding: {line}\n" for line in trainer.data.findings))
            return trainer.run()
        except KeyboardInterrupt:
            if not (pathlib.Path(workdir) / run_directory.CONFIG).exists():
                raise
            raise interrupted(signal.SIGINT, pathlib.Path(workdir)) from None


def begin(
    config: RunConfig,
    workdir: str | pathlib.Path,
    resume: bool = False,
    origins: Mapping[str, str] | None = None,
    **options: Any,
) -> "Trainer":
    """Prepares a run directory, or restores the state of its run.

    Args:
        config: Configuration of the run.
        workdir: Run directory, created if needed.
        resume: Whether to continue the run in `workdir`, see `train`.
        origins: Origins of the values of the configuration, see `train`.
        **options: Further arguments of `Trainer`.

    Returns:
        A trainer at its last checkpoint, at the weights to warm-start from, or at the start.

    Raises:
        UserError: The conditions of `train`.
    """
    workdir = pathlib.Path(workdir)
    has_run = _has_run(workdir, resume)
    # They load TensorFlow, for which a wrong flag need not wait.
    from models.core import spread_tables
    from models.training import pretrained_tables, sharing
    from models.training.continuing import continue_run
    from models.training.trainer import Trainer
    from models.training.warm_start import warm_start

    if has_run:
        _check_resumable(run_directory.open_run(workdir).config, config)
    if config.train.deterministic:
        _make_deterministic(config.train.distribute)
    with _directory(workdir):
        trainer = Trainer(config, workdir, **options)
    if trainer.shows_progress:
        lines = [
            *data_checks.remarks(trainer.data),
            data_checks.schedule_remark(config, trainer.data),
            sharing.remark(trainer.data, config.train, trainer.part),
            trainer.operations,
        ]
        sys.stdout.write("".join(f"{line}\n" for line in lines if line))
        sys.stdout.flush()
    restored = has_run and trainer.restore()
    if config.pretrained and not restored:
        with trainer.distribution.strategy.scope():
            lines = pretrained_tables.fill(trainer.model, trainer.data, config)
        trainer.session.filled_with(lines)
        sys.stdout.write("".join(f"pretrained: {line}\n" for line in lines))
    earlier = config.warm_start or config.continues
    if earlier and not restored:
        title, take_over = (
            ("warm start", warm_start) if config.warm_start else ("continue", continue_run)
        )
        with trainer.distribution.strategy.scope():
            lines = take_over(trainer.model, trainer.data, config)
        trainer.session.began_with(lines)
        sys.stdout.write("".join(f"{title}: {line}\n" for line in lines))
    if (config.pretrained or earlier) and not restored:
        spread_tables.state_read(trainer.model, is_spread=False)  # They were filled by id.
    if trainer.distribution.is_chief:
        run_directory.begin(workdir, config, trainer.data, origins)
    if config.continues and not restored:
        trainer.measure_day()
    return trainer


def _has_run(workdir: str | pathlib.Path, resume: bool) -> bool:
    """Whether a run directory holds a run; raises `UserError` unless it is to be continued."""
    files.require_local(workdir, "--workdir")
    has_run = (pathlib.Path(workdir) / run_directory.CONFIG).exists()
    if has_run and not resume:
        raise UserError(
            f"Expected an empty --workdir, found a run in {workdir}.",
            "add --resume to continue it, or choose another directory.",
        )
    return has_run


@contextlib.contextmanager
def _directory(workdir: pathlib.Path) -> Iterator[None]:
    """Creates the run directory before the slow work; removes it again if that fails."""
    is_new = not workdir.exists()
    with explained_write_errors("--workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # The directory may hold files by now.
                workdir.rmdir()
        raise


def _make_deterministic(distribute: str) -> None:
    """Makes every step the same, bit for bit, in every run.

    Beside deterministic operations, those of one device run one after another: a sum of three or
    more gradients (AddN) begins with the first term that no other operation reads any more, so its
    last bit would depend on which operation ended first. Replicas wait for each other within
    operations, which therefore have to run at once.
    """
    from models.keras import tf

    tf.config.experimental.enable_op_determinism()
    if distribute not in ("auto", "one_device") or tf.config.list_physical_devices("GPU"):
        return
    if tf.config.threading.get_inter_op_parallelism_threads() == 1:
        return
    try:
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # A notebook, or a program that has used TensorFlow before.
        if os.environ.get("TF_NUM_INTEROP_THREADS") != "1":
            sys.stderr.write(
                "note: TensorFlow was in use before --deterministic was set, so that sums of "
                "gradients may differ in their last bits; set TF_NUM_INTEROP_THREADS=1 before it "
                "starts for results that repeat exactly.\n"
            )


def _check_resumable(stored: RunConfig, config: RunConfig) -> None:
    """Raises `UserError` for settings that the stored weights or data position do not fit."""
    before, after = (
        {
            key: value
            for key, value in config_module.flat(one.to_json()).items()
            if key.removeprefix("train.") not in _RESUMABLE_SETTINGS
        }
        for one in (stored, config)
    )
    if changed := config_module.differences(before, after):
        raise UserError(
            f"Expected the settings that the run was begun with; {'; '.join(changed)}.",
            f"leave them out; only train.{', train.'.join(_RESUMABLE_SETTINGS)} may change.",
        )


def define_flags() -> None:
    """Defines the flags of this command."""
    with cli.flag_group("The run"):
        flags.DEFINE_string("data", None, "Data set directory of ctr-build-examples.")
        flags.DEFINE_string("workdir", None, "Run directory.", required=True)
        flags.DEFINE_bool("resume", False, "Continue the run in --workdir.")
        flags.DEFINE_string(
            "continue",
            None,
            "Run directory to go on with on newer data: its settings, weights, optimisers, step.",
        )
    run_flags.define_config_flags()
    with cli.flag_group("The training"):
        run_flags.define_integer("seed", "Seed of weights, data order and draws (default 1).")
        tracking.define_flag()
        flags.DEFINE_string("profile", None, "Profile these steps, FIRST:LAST, for TensorBoard.")


def main() -> None:
    """Trains and prints the metrics of the best weights."""
    flag_values = flags.FLAGS
    workdir = pathlib.Path(flag_values.workdir)
    existing_run = workdir if _has_run(flag_values.workdir, flag_values.resume) else None
    if flag_values.resume and existing_run is None and not (flag_values.data or flag_values.config):
        raise UserError(
            f"Expected a run to continue in --workdir, found none in {workdir}.",
            "check the path, or give --data to begin a run there.",
        )
    profile = Profile.parse(flag_values.profile, workdir)
    continued = flag_values["continue"].value
    run_flags.check_paths(flag_values.data, continued)
    tracker = tracking.open_tracker(flag_values.tracking, workdir)
    config, origins = run_flags.resolve_flags(
        flag_values.data, flag_values.seed, existing_run, continued
    )
    # Loads TensorFlow, for which a wrong flag need not wait.
    from models.distributed.distribution import serve_if_asked

    if serve_if_asked(config.train):
        return
    sys.stdout.write(config_module.describe(config, origins))
    sys.stdout.write(f"all settings: {workdir / run_directory.CONFIG}\n")
    sys.stdout.flush()
    try:
        measured = train(
            config,
            workdir,
            flag_values.resume,
            profile=profile,
            origins=origins,
            tracker=tracker,
        )
    except Interrupted as interruption:
        sys.stdout.write(f"{interruption.message}\n")
        raise
    for split, metrics in measured.items():
        sys.stdout.write(
            f"{split}: AUC {shown(metrics['auc'])}  GAUC {shown(metrics['gauc'])}  "
            f"log loss {shown(metrics['log_loss'])}  "
            f"calibration error {shown(metrics['calibration_error'])}\n"
        )
    sys.stdout.write(f"run: {workdir}\n{_summary(workdir)}")


def _summary(workdir: pathlib.Path) -> str:
    # Reports import Matplotlib, which takes a second; the start of training need not wait for it.
    from models.reporting.summary import summary

    return summary(run_directory.open_run(workdir))


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, hint=run_flags.setting_hint)


if __name__ == "__main__":
    console_main()
