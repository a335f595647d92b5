"""Plans the runs of a table, and their directories: WORKDIR/runs/<model>-<ssl>-<seed>-<hash8>/.

Only the run directories tell which runs are done: a plan can be made anew from them at any time.
Where rows choose their learning rates, a plan begins with the trials, each rate with the first
seed, and goes on with the other seeds of a row once its trials are done.
"""

import functools
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models import registry
from models.config import run_config as config_module
from models.config.run_config import RunConfig
from models.core import run_directory
from models.training import selection
from pipeline.experiments.recipe import TITLES, Content, Row, Table, merged
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.storage import files

RUNS = "runs"

_PAPER_NAMES = {
    "taobao": "Taobao",
    "retailrocket": "RetailRocket",
    "alipay": "Alipay",
    "book": "Amazon(Book)",
    "books": "Amazon-Books",
    "cds": "Amazon-Cds",
}
"""Names in the papers of logs whose name holds one of these words; the first match wins."""


class NamedData(NamedTuple):
    """A data set of an experiment.

    Attributes:
        name: Name of the directory.
        data: The data set in it.
        published: Name of the same log in the paper, or None.
    """

    name: str
    data: DataDir
    published: str | None


class PlannedRun(NamedTuple):
    """A run that a table needs.

    Attributes:
        row: Row of the table.
        data: Data set of the run.
        seed: Seed of the training.
        config: Resolved configuration.
        path: Run directory, which may not exist yet.
        is_trial: Whether the run only serves to choose a learning rate and is no part of its row.
    """

    row: Row
    data: NamedData
    seed: int
    config: RunConfig
    path: pathlib.Path
    is_trial: bool = False

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    @property
    def is_finished(self) -> bool:
        """Whether all metrics of the tables were measured, which is the last step of training."""
        splits = run_directory.read_metrics(self.path).values()
        is_measured = run_directory.is_measured(self.path, self.data.data)
        return is_measured and all(TITLES.keys() <= metrics.keys() for metrics in splits)

    @property
    def is_settled(self) -> bool:
        """Whether the run has ended. A trial may end in numbers that are not finite."""
        return self.is_finished or (self.is_trial and (self.path / run_directory.DIVERGED).exists())


def open_data(paths: Sequence[str], table: Table) -> list[NamedData]:
    """Opens the data sets of an experiment.

    Args:
        paths: Data directories.
        table: Table that they are for.

    Raises:
        UserError: Two directories have the same name; a protocol is not the table's; a data set is
            not complete.
    """
    named_data = []
    for path in paths:
        data = DataDir.open(path)
        protocol = data.manifest["arguments"]["protocol"]
        if protocol != table.protocol:
            raise UserError(
                f"Expected data of --protocol={table.protocol} for --table={table.id}, found "
                f"{protocol} in {data.path}.",
                f"run python -m pipeline.build_examples --protocol={table.protocol} on its log.",
            )
        name = pathlib.Path(str(data.path)).resolve().name
        words = f"{name} {data.manifest['arguments'].get('dataset') or ''}".lower()
        published = [
            paper
            for word in re.findall("[a-z]+", words)
            for key, paper in _PAPER_NAMES.items()
            if word.rstrip("s") == key.rstrip("s") and paper in table.data_sets
        ]
        named_data.append(NamedData(name, data, published[0] if published else None))
    names = [named.name for named in named_data]
    if len(set(names)) < len(names):
        raise UserError(
            f"Expected --data directories of different names, found {', '.join(names)}.",
            "rename one: the name stands in the table.",
        )
    return named_data


def plan_runs(
    table: Table,
    data: Sequence[NamedData],
    seeds: Sequence[int],
    workdir: pathlib.Path,
) -> list[PlannedRun]:
    """The runs of a table as far as they are known now, those of a row next to each other.

    Runs that rows share occur once per row, with the same directory.

    Settings and the build of the data identify a run, not its name: a run that was started by hand
    counts too if its directory is in WORKDIR/runs.

    Args:
        table: Recipe of the table.
        data: Data sets of the experiment.
        seeds: Seeds of the trainings.
        workdir: Directory of the experiment.

    Raises:
        UserError: The models do not have one of the settings.
    """
    path_by_identity, cwd = _present(workdir), pathlib.Path()
    planned = []
    for named in data:
        for row in table.rows:
            paper_settings = row.by_data.get(named.published or "", {})
            data_settings = {
                "data": files.absolute(str(named.data.path), cwd),
                "train": _batch(table, named),
            }
            content = merged(table.settings, row.settings, paper_settings, data_settings)

            run = functools.partial(_run, row, named, content, path_by_identity, workdir)
            rates = [{"learning_rate": rate} for rate in table.learning_rates] or [{}]
            trials = [run(seeds[0], rate)._replace(is_trial=True) for rate in rates]
            best_trial = _chosen(trials)
            planned += [trial for i, trial in enumerate(trials) if i != best_trial]
            if best_trial is not None:
                planned += [run(seed, rates[best_trial]) for seed in seeds]
    return planned


def _run(
    row: Row,
    data: NamedData,
    content: Content,
    path_by_identity: Mapping[str, pathlib.Path],
    workdir: pathlib.Path,
    seed: int,
    rate: Content,
) -> PlannedRun:
    """The run of a row with a seed and a learning rate."""
    config = config_module.resolve(merged(content, {"train": {"seed": seed, **rate}}))
    key = identity(config, data.data.fingerprint)
    path = path_by_identity.get(key) or workdir / RUNS / _name(config, key)
    return PlannedRun(row, data, seed, config, path)


def _batch(table: Table, data: NamedData) -> dict[str, int]:
    """The batch size in requests that holds the table's number of samples on average."""
    if not table.batch_samples:
        return {}
    train = data.data.manifest["splits"]["train"]
    per_request = train["candidates"] / max(1, train["requests"])
    return {"batch_size": max(1, round(table.batch_samples / max(1.0, per_request)))}


def _chosen(trials: Sequence[PlannedRun]) -> int | None:
    """Index of the trial that is best on the validation split; None until all have ended.

    If none has finished it is the first one, which then fails as a run of the row.
    """
    if len(trials) == 1:
        return 0
    if not all(trial.is_settled for trial in trials):
        return None
    return max(range(len(trials)), key=lambda i: _score(trials[i]))


def _score(trial: PlannedRun) -> float:
    """Score of a trial on the validation split; minus infinity without metrics."""
    metrics = (
        run_directory.read_metrics(trial.path).get("validation") if trial.is_finished else None
    )
    return selection.score(metrics) if metrics else -math.inf


def identity(config: RunConfig, fingerprint: str) -> str:
    """Hash of all settings of a run and of its data set, wherever that is stored.

    Args:
        config: Configuration of the run.
        fingerprint: Fingerprint of the data set.
    """
    content = config.to_json() | {"data": fingerprint}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _present(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Directories of runs that were started, by identity."""
    path_by_identity = {}
    for file in sorted((workdir / RUNS).glob(f"*/{run_directory.CONFIG}")):
        fingerprint = file.parent / run_directory.FINGERPRINT
        try:
            config = config_module.resolve(config_module.load(file))
        except UserError:  # A version with other settings wrote it.
            continue
        if fingerprint.exists():
            key = identity(config, fingerprint.read_text(encoding="utf-8"))
            path_by_identity[key] = file.parent
    return path_by_identity


def _name(config: RunConfig, key: str) -> str:
    parts = [config.model_name]
    if config.ssl_name != registry.NO_SSL:
        parts.append(config.ssl_name)
    name = "-".join([*parts, str(config.train.seed), key[:8]])
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
