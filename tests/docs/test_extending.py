"""The examples of docs/extending.md do what the page says, as they stand there."""

import importlib
import sys

import markdown_blocks
import numpy as np
import pandas as pd
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from pipeline import datasets
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.data_dir import DataDir
from tests.helpers.inline_runner import inline

PAGE = markdown_blocks.ROOT / "docs" / "extending.md"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with the page's files, on the path of modules."""
    path = tmp_path_factory.mktemp("home")
    for name, text in markdown_blocks.files(PAGE).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))


@pytest.fixture(scope="module")
def data(home):
    """A data set by the page's schema."""
    rng = np.random.default_rng(1)
    items = rng.integers(0, 20, 300)
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, 20, 300),
            "item_id": items,
            "category_id": items % 4,
            "price": items / 2,
            "device": np.where(rng.random(300) < 0.5, "phone", None),
            "timestamp": np.arange(300),
        }
    )
    log.to_csv(home / "log.csv", index=False)
    with inline():
        return build_examples(
            BuildArguments(
                input=str(home / "log.csv"),
                schema=str(home / "schema.json"),
                output=str(home / "data"),
                num_shards=1,
            )
        )


def test_features_model_and_self_supervision_of_the_page_train(data, home):
    """All three in one run."""
    content = {
        "data": str(data.path),
        "model": {"name": "my_models.average"},
        "ssl": {"name": "my_models.halves"},
        "train": {"max_steps": 2, "batch_size": 16},
    }
    settings = ("model.units=[32]", "ssl.alpha=0.5")
    train.train(run_config.resolve(content, settings), home / "run", progress=False)

    built = run_directory.load_model(home / "run")
    tables = built.embedder.tables
    assert {"price", "device"} <= set(tables)
    assert tables["device"].shape[0] == data.encoders["device"].cardinality
    assert [type(built.backbone).__name__, built.backbone.dnn.stack[0].units] == ["Average", 32]
    assert 0 <= run_directory.read_metrics(home / "run")["test"]["auc"] <= 1
    losses = pd.read_csv(home / "run" / "metrics.csv").filter(regex="halves$")
    assert losses.shape[1] >= 1
    assert (losses > 0).to_numpy().any()


def test_log_format_of_the_page_becomes_a_data_set(home, monkeypatch):
    path = home / "pipeline" / "datasets" / "games.py"
    specification = importlib.util.spec_from_file_location("games", path)
    games = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(games)
    monkeypatch.setitem(datasets.ADAPTERS, "games", games.Games)
    sessions = [
        f"p{player},g{(player + hour) % 9},,play,2024-05-17T20:{hour:02d}:00"
        for player in range(6)
        for hour in range(5)
    ]
    sessions += ["p1,g1,,uninstall,2024-05-17T21:00:00", "p1,g1,,play,yesterday"]
    log = home / "sessions.csv"
    log.write_text("\n".join(["player,game,genre,what,at", *sessions]) + "\n")
    with inline():
        built = build_examples(
            BuildArguments(
                dataset="games",
                input=str(log),
                output=str(home / "games"),
                num_shards=1,
                max_bad_fraction=0.1,
            )
        )
    account = DataDir.open(built.path).manifest["conservation"]
    assert account["read"] == 32
    assert account["filtered"]["behaviours"] == 1
    assert account["rejected"] == {"column 'at': not a time such as 2024-05-17T20:15:00": 1}
