"""Which runs a table needs, and where they are: WORKDIR/runs/<model>-<ssl>-<seed>-<hash8>/."""

import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from models import config as config_module
from models import registry, runs
from models.config import RunConfig
from pipeline.experiments.recipe import Row, Table, merged
from preprocessing import files
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError

RUNS = "runs"

_PAPER_NAMES = {
    "taobao": "Taobao",
    "retailrocket": "RetailRocket",
    "alipay": "Alipay",
    "book": "Amazon(Book)",
    "books": "Amazon-Books",
    "cds": "Amazon-Cds",
}
"""How the papers call a log whose name holds one of these words; the first of their names wins."""


class NamedData(NamedTuple):
    """A data set of an experiment.

    Attributes:
        name: Of its directory.
        data: What is there.
        published: The name of the same log in the paper, or None.
    """

    name: str
    data: DataDir
    published: str | None


class Planned(NamedTuple):
    """A run that a table needs.

    Attributes:
        row: Of the table.
        data: On which data set.
        seed: Of the training.
        config: Resolved.
        path: Its directory, which may not exist yet.
    """

    row: Row
    data: NamedData
    seed: int
    config: RunConfig
    path: pathlib.Path

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.path.name

    @property
    def is_finished(self) -> bool:
        """Whether it was measured, which is the last thing that training does."""
        return runs.is_measured(self.path, self.data.data)


def open_data(paths: Sequence[str], table: Table) -> list[NamedData]:
    """Opens the data sets of an experiment.

    Args:
        paths: Data directories.
        table: What they are for.

    Raises:
        UserError: Two of the same name; not the table's protocol; no complete data set.
    """
    found = []
    for path in paths:
        data = DataDir.open(path)
        protocol = data.manifest["arguments"]["protocol"]
        if protocol != table.protocol:
            raise UserError(
                f"Expected data of --protocol={table.protocol} for --table={table.id}, found "
                f"{protocol} in {data.path}.",
                f"run pipeline.build_examples --protocol={table.protocol} on its log.",
            )
        name = pathlib.Path(str(data.path)).resolve().name
        words = f"{name} {data.manifest['arguments'].get('dataset') or ''}".lower()
        published = [
            paper
            for word in re.findall("[a-z]+", words)
            for key, paper in _PAPER_NAMES.items()
            if word.rstrip("s") == key.rstrip("s") and paper in table.data_sets
        ]
        found.append(NamedData(name, data, published[0] if published else None))
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise UserError(
            f"Expected --data directories of different names, found {', '.join(names)}.",
            "rename one: the name stands in the table.",
        )
    return found


def plan(
    table: Table,
    data: Sequence[NamedData],
    seeds: Sequence[int],
    workdir: pathlib.Path,
) -> list[Planned]:
    """The runs of a table; those that rows share occur once per row, with the same directory.

    A run is known by its settings and the build of its data, not by its name: one that was made by
    hand counts too if it lies in WORKDIR/runs.

    Args:
        table: The recipe.
        data: Its data sets.
        seeds: Of the trainings.
        workdir: Of the experiment.

    Raises:
        UserError: A setting that the models do not have.
    """
    present, cwd = _present(workdir), pathlib.Path()
    planned = []
    for each in data:
        for row in table.rows:
            of_data = row.by_data.get(each.published or "", {})
            content = merged(table.settings, row.settings, of_data)
            for seed in seeds:
                here = {"data": files.absolute(str(each.data.path), cwd), "train": {"seed": seed}}
                config = config_module.resolve(merged(content, here))
                key = identity(config, each.data.fingerprint)
                path = present.get(key) or workdir / RUNS / _name(config, key)
                planned.append(Planned(row, each, seed, config, path))
    return planned


def identity(config: RunConfig, fingerprint: str) -> str:
    """A hash of all settings of a run and of its data set, wherever that is.

    Args:
        config: Of the run.
        fingerprint: Of the data set.
    """
    content = config.to_json() | {"data": fingerprint}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _present(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
    """Directories of runs that were begun, by identity."""
    found = {}
    for file in sorted((workdir / RUNS).glob(f"*/{runs.CONFIG}")):
        fingerprint = file.parent / runs.FINGERPRINT
        try:
            config = config_module.resolve(config_module.load(file))
        except UserError:  # Of a version with other settings.
            continue
        if fingerprint.exists():
            key = identity(config, fingerprint.read_text(encoding="utf-8"))
            found[key] = file.parent
    return found


def _name(config: RunConfig, key: str) -> str:
    parts = [config.model_name]
    if config.ssl_name != registry.NO_SSL:
        parts.append(config.ssl_name)
    name = "-".join([*parts, str(config.train.seed), key[:8]])
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
