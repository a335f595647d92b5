"""Raw logs to a served model in one command.

    python -m pipeline.run --input=log.csv --workdir=WORK --model=din --ssl=miss
    python -m pipeline.run --input='logs/*.parquet' --schema=schema.json --workdir=WORK
        --protocol=time_split --model=deminet --set=train.learning_rate=0.0005

Fills WORK with data/ (the data set), run/ (the training run), model/<version>/ (the SavedModel),
requests.jsonl (a few requests for the client) and report.html. Takes the flags of
pipeline.build_examples and models.train; --seed seeds both. A stage that is complete is not done
again: run the same command to continue after an interruption.
"""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from absl import flags

from models import train as training
from models.config.run_config import RunConfig, differences, flat
from models.core import run_directory
from models.evaluation.metrics import shown
from models.training import run_flags, tracking
from models.training.interruption import Interrupted
from pipeline import build_examples as building
from pipeline.arguments import BuildArguments
from pipeline.job import log_schema
from pipeline.job.log_schema import CheckedLog
from pipeline.log.input_files import list_inputs
from preprocessing import cli
from preprocessing.data_dir import COMPLETED, DataDir
from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath, require_local
from serving import export as exporting
from serving import parity as checking
from serving import score as scoring

MODEL_NAME = "ctr"
_PARITY_REQUESTS = 2000
_SMOKE_REQUESTS = 3


def run(
    arguments: BuildArguments,
    config: RunConfig,
    workdir: str | pathlib.Path,
    origins: Mapping[str, str] | None = None,
    log: CheckedLog | None = None,
    tracker: tracking.Tracker | None = None,
) -> dict[str, dict[str, float | None]]:
    """Runs all stages that are not yet complete.

    Args:
        arguments: Arguments of the data set, whose output is WORKDIR/data.
        config: Configuration of the training run, whose data is WORKDIR/data.
        workdir: Directory to fill; created if needed.
        origins: Origins of the values of the configuration, by setting.
        log: The log as `log_schema.check` found it with these arguments, if that was done already.
        tracker: The training run in MLflow, if it is tracked there.

    Returns:
        Metrics of the model by split; None where undefined.

    Raises:
        UserError: A stage fails by a mistake of the user, or the workdir was begun with other
            arguments.
    """
    require_local(workdir, "--workdir")
    workdir = pathlib.Path(workdir)
    _claim(workdir, arguments, config)
    run_dir, model_dir = workdir / "run", workdir / "model"

    _stage(1, "data", (workdir / "data" / COMPLETED).exists, lambda: _build(arguments, log))
    _stage(
        2,
        "train",
        lambda: run_directory.is_measured(run_dir, DataDir.open(arguments.output, verify=False)),
        lambda: _train(config, run_dir, origins, tracker),
    )
    is_exported = any(model_dir.glob("[0-9]*/saved_model.pb"))
    _stage(3, "export", lambda: is_exported, lambda: exporting.export(run_dir, model_dir))
    serving_facts: dict[str, Any] = {"model": model_dir.resolve()}
    _stage(
        4, "serve", lambda: False, lambda: serving_facts.update(_serve(workdir, run_dir, model_dir))
    )
    # They load Matplotlib and scikit-learn, for which a wrong flag need not wait.
    from models.reporting.run_report import write_report
    from models.reporting.summary import summary

    report = workdir / "report.html"
    _stage(5, "report", lambda: False, lambda: write_report(run_dir, report, serving_facts))
    if tracker:
        tracker.attach(report)

    metrics = run_directory.read_metrics(run_dir)
    _say(f"scores over REST, candidates from best to worst:\n{serving_facts['scores']}")
    for split, values in metrics.items():
        _say(f"{split}: AUC {shown(values['auc'])}  log loss {shown(values['log_loss'])}")
    served = shlex.quote(str(serving_facts["model"]))
    server = cli.as_started("python -m serving.server")
    _say(
        f"serve: {server} --model_name={MODEL_NAME} --model_base_path={served} --rest_api_port=8501"
    )
    _say(f"report: {report.resolve()}")
    _say(summary(run_directory.open_run(run_dir)).rstrip())
    return metrics


def _claim(workdir: pathlib.Path, arguments: BuildArguments, config: RunConfig) -> None:
    """Stores the arguments of each stage; raises `UserError` if a begun stage had other ones."""
    # A topic has no size: what was read of it stands in the manifest of the data set.
    log = None if arguments.reads_topic else arguments.input
    inputs = filter(None, (log, arguments.metadata))
    sizes = {file.path: file.size for paths in inputs for file in list_inputs(paths)}
    claim = {
        "data": {**arguments.to_json(), "sizes": sizes},
        "run": config.to_json() | {"data": ""},
    }
    claim = json.loads(json.dumps(claim))  # Turns tuples into lists, as reading does.
    is_begun = {
        "data": (workdir / "data" / COMPLETED).exists(),
        "run": (workdir / "run" / run_directory.CONFIG).exists(),
    }
    file = workdir / "arguments.json"
    fix = "restore the file, or choose another --workdir."
    stored = read_json(file, "the arguments of a run", fix) if file.exists() else claim
    before, after = (
        flat({section: one.get(section, {}) for section in claim if is_begun[section]})
        for one in (stored, claim)
    )
    if changed := differences(before, after):
        raise UserError(
            f"Expected the arguments and files that {workdir} was begun with; "
            f"{'; '.join(changed)}.",
            "choose another --workdir, or remove this one.",
        )
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_bytes(file, f"{json.dumps(claim, indent=2)}\n".encode())


def _stage(
    number: int, name: str, is_complete: Callable[[], bool], work: Callable[[], Any]
) -> None:
    """Runs a stage unless it is complete, and prints a line before and after."""
    if is_complete():
        _say(f"[{number}/5] {name}: complete")
        return
    _say(f"[{number}/5] {name}")
    started = time.monotonic()
    work()
    _say(f"[{number}/5] {name}: {time.monotonic() - started:.0f} s")


def _build(arguments: BuildArguments, log: CheckedLog | None) -> AnyPath:
    """Builds the data set; goes on with what an interruption has left of it."""
    from pipeline import data_card  # loads Matplotlib

    data = building.build_or_resume(arguments, log)
    for line in building.hints(data):
        _say(f"hint: {line}")
    return data_card.write_card(data.path)


def _train(
    config: RunConfig,
    run_dir: pathlib.Path,
    origins: Mapping[str, str] | None,
    tracker: tracking.Tracker | None,
) -> dict[str, dict[str, float | None]]:
    is_begun = (run_dir / run_directory.CONFIG).exists()
    try:
        return training.train(config, run_dir, resume=is_begun, origins=origins, tracker=tracker)
    except Interrupted as interruption:
        _say(f"{interruption.message}, or go on with the same command as before")
        raise


def _serve(workdir: pathlib.Path, run_dir: pathlib.Path, model_dir: pathlib.Path) -> dict[str, Any]:
    """Serves the model, checks that served scores equal offline ones, scores a few requests."""
    from serving import embedded_server
    from serving.exporting.sample_requests import known_requests

    requests_file = workdir / "requests.jsonl"
    data = run_directory.open_run(run_dir).data
    split = "test" if data.num_requests("test") else "validation"
    requests = known_requests(data, split, _SMOKE_REQUESTS)
    requests_file.write_text("".join(f"{json.dumps(r)}\n" for r in requests), encoding="utf-8")
    version = exporting.latest_version(model_dir)
    with embedded_server.running(model_dir, MODEL_NAME) as running:
        parity_report = checking.parity(
            run_dir, version, url=running.url, split=split, limit=_PARITY_REQUESTS
        )
        scored_lines = list(scoring.score(running.url, requests_file))
    sys.stdout.write(checking.describe(parity_report))
    if not parity_report["ok"]:
        raise UserError(
            f"Expected served scores to be the offline ones within {parity_report['tolerance']:g}, "
            f"found {parity_report['max_difference']}.",
            "report this as a bug, with the model.",
        )
    return {
        "parity": parity_report["max_difference"],
        "requests": requests_file.resolve(),
        "scores": "\n".join(orjson.dumps(line).decode() for line in scored_lines),
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def define_flags() -> None:
    """Flags of this command."""
    with cli.flag_group("The run"):
        flags.DEFINE_string("workdir", None, "Directory to fill.", required=True)
    building.define_log_flags()
    run_flags.define_config_flags()
    with cli.flag_group("The training"):
        tracking.define_flag()


def main() -> int | None:
    """Runs all stages."""
    workdir = flags.FLAGS.workdir
    require_local(workdir, "--workdir")
    arguments = building.arguments_from_flags(
        output=str(pathlib.Path(workdir) / "data"), hint=run_flags.setting_hint
    )
    # Beam and TensorFlow are loaded later, for which a wrong path or column need not wait.
    run_flags.check_paths(None)
    is_built = (pathlib.Path(arguments.output) / COMPLETED).exists()
    log = None if is_built else log_schema.check(arguments)
    tracker = tracking.open_tracker(flags.FLAGS.tracking, pathlib.Path(workdir) / "run")
    resolved = run_flags.resolve_flags(data=arguments.output, seed=arguments.seed)
    try:
        run(arguments, resolved.config, workdir, resolved.origins, log, tracker)
    except KeyboardInterrupt:
        _say("stopped by Ctrl-C; go on with the same command as before")
        return cli.STOPPED
    return None


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__, rest="beam_options")


if __name__ == "__main__":
    console_main()
