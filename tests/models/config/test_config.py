"""Configurations: defaults, overrides, and errors that help."""

import dataclasses
import json
import re

import pytest

from models import registry
from models.backbones.deminet import DemiNetConfig
from models.config import run_config
from models.config.pretrained import Pretrained
from models.config.training import TrainConfig
from models.ssl.miss import MISS
from preprocessing.errors import UserError


def test_defaults_and_overrides():
    run = run_config.resolve(
        {"data": "d", "model": {"name": "deminet", "interests": 2}, "train": {"seed": 7}},
        ["model.threshold=0.8", "train.learning_rate=1"],
    )
    assert isinstance(run.model, DemiNetConfig)
    assert (run.model.interests, run.model.threshold) == (2, 0.8)
    assert run.train.learning_rate == 1.0
    assert isinstance(run.train.learning_rate, float)
    assert run.train.seed == 7
    assert run.ssl is None


def test_json_round_trip(tmp_path):
    run = run_config.resolve({"data": str(tmp_path / "d"), "model": {"name": "miss"}})
    assert (run.model_name, run.ssl_name) == ("din", "miss")
    run.save(tmp_path / "config.json")
    assert run_config.resolve(run_config.load(tmp_path / "config.json")) == run
    assert json.loads((tmp_path / "config.json").read_text())["train"]["batch_size"] == 128


def test_self_supervision_brings_its_schedule_which_yields_to_what_is_given():
    plain, trained = (
        run_config.resolve({"ssl": {"name": name}}).train for name in ("none", "miss")
    )
    assert plain == TrainConfig()
    assert trained == TrainConfig(**MISS.schedule) != plain
    own = run_config.resolve({"ssl": {"name": "miss"}, "train": {"ssl_steps": 0.5}}, ["train.l2=1"])
    assert own.train == dataclasses.replace(trained, ssl_steps=0.5, l2=1.0)
    assert run_config.resolve({"model": {"name": "miss"}}).train == trained
    origins = run_config.origins(own, [("file", {"train": {"ssl_steps": 0.5}})])
    assert origins["train.ssl_steps"] == "file"
    assert origins["train.ssl_learning_rate"] == "ssl miss"


def test_named_variant_sets_its_settings_and_yields_to_explicit_ones():
    assert run_config.resolve({"model": {"name": "deminet_wo_ssl"}}).model.ssl_weight == 0.0
    explicit = run_config.resolve({"model": {"name": "deminet_wo_ssl"}}, ["model.ssl_weight=0.5"])
    assert explicit.model.ssl_weight == 0.5


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ({"trian": {}}, [], "did you mean 'train'"),
        ({"train": 3}, [], "Expected an object as section 'train', found 3"),
        ({"model": {"name": 3}}, [], "Expected model.name of type str, found 3"),
        ({"data": ["d"]}, [], "Expected data of type str, found"),
        ({}, ["train.lr=1"], "Unknown key 'lr' .* did you mean 'learning_rate'"),
        ({}, ["train.learning_rate=NaN"], "train.learning_rate to be a finite number, found nan"),
        ({}, ["train.l2=Infinity"], "train.l2 to be a finite number, found inf"),
        ({}, ["train.l2=1e999"], "train.l2 to be a finite number, found inf"),
        ({}, [f"train.l2={10**400}"], "train.l2 to be smaller than 2^31 in size, found 1000"),
        ({}, ["train.seed=2147483648"], "train.seed to be smaller than 2^31 in size, found 2147"),
        ({}, ["train.batch_size=[1]"], "train.batch_size of type int, found [1]"),
        ({}, ["train.epochs=null"], "train.epochs of type int, found None"),
        ({}, ["train.epochs=true"], "train.epochs of type int, found True"),
        ({}, ["train.joint=1"], "train.joint of type bool, found 1"),
        ({}, ["model.units=200"], "model.units of type tuple[int, ...], found 200. Fix: write a"),
        ({}, ["model.units=[8,0]"], "Expected model.units each >= 1, found [8, 0]"),
        ({}, ["model.units=[NaN]"], "model.units to be a finite number, found nan"),
        ({"train": {"batchsize": 3}}, [], "did you mean 'batch_size'"),
        ({}, ["train.lerning_rate=1"], "did you mean 'learning_rate'"),
        ({}, ["learning_rate=1"], "section.key=value .* write --set=train.learning_rate=1."),
        ({}, ["lr=1"], "section.key=value .* write --set=train.learning_rate=1."),
        ({}, ["heads=1"], "section.key=value .* for example --set=train.learning_rate=0.01."),
        ({}, ["train.batch_size=big"], "train.batch_size of type int, found 'big'"),
        ({}, ["train.batch_size=1.5"], "train.batch_size of type int, found 1.5"),
        ({"model": {"name": "demnet"}}, [], "did you mean 'deminet'"),
        ({"ssl": {"name": "mis"}}, [], "did you mean 'miss'"),
        ({"ssl": {"alpha": 1.0}}, [], "without self-supervision"),
        ({}, ["model.embedding_size=0"], "model.embedding_size of at least 1 for model 'din'"),
        ({"model": {"name": "lr"}}, ["model.embedding_size=-1"], "at least 0 for model 'lr'"),
        ({"model": {"name": "lr"}, "ssl": {"name": "miss"}}, [], "at least 1 for model 'lr'"),
        ({"model": {"name": "no.such:Model"}}, [], "to name a module"),
        (
            {"model": {"name": "models.evaluation.metrics"}},
            [],
            "Expected one Backbone in models.evaluation.metrics",
        ),
    ],
)
def test_mistakes_are_explained(content, overrides, message):
    with pytest.raises(UserError, match=re.sub(r"([(\[^])", r"\\\1", message)):
        run_config.resolve(content, overrides)


def test_every_registered_name_loads():
    for name in registry.MODELS:
        registry.load_model_class(name)
    for name in registry.SSL:
        registry.load_ssl_class(name)


def test_dotted_path_outside_the_repository(tmp_path, monkeypatch):
    (tmp_path / "their_model.py").write_text(
        "from models.backbone_api import Backbone\nclass Theirs(Backbone):\n    pass\n"
    )
    package = tmp_path / "their_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "their_model.py").rename(package / "model.py")
    monkeypatch.syspath_prepend(tmp_path)
    found, settings = registry.load_model_class("their_pkg.model")
    assert found.__name__ == "Theirs"
    assert settings == {}
    assert registry.load_model_class("their_pkg.model:Theirs")[0] is found


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        run_config.load(tmp_path / "absent.json")
    for content, found in (("{", "a syntax error"), ("[]", "found list"), ("\xff", "a syntax err")):
        (tmp_path / "broken.json").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match=f"Expected a configuration in .*{found}"):
            run_config.load(tmp_path / "broken.json")
    with pytest.raises(UserError, match="found: Is a directory"):
        run_config.load(tmp_path)


def test_what_differs_from_defaults_is_listed_with_both_names():
    plain = run_config.changed(run_config.resolve({"model": {"name": "din"}}))
    assert plain == {"model.name": "din", "ssl.name": "none"}
    content = {
        "model": {"name": "deminet_moe", "embedding_size": 8},
        "ssl": {"name": "miss", "alpha": 0.5},
        "train": {"epochs": 20, "seed": 7},
    }
    vectors = Pretrained(file="/vectors.parquet", width=4, sha256="0")
    config = dataclasses.replace(run_config.resolve(content), pretrained={"item_id": vectors})
    found = run_config.changed(config)
    assert found["pretrained.item_id.file"] == "/vectors.parquet"
    assert (found["model.embedding_size"], found["ssl.alpha"], found["train.seed"]) == (8, 0.5, 7)
    assert "train.epochs" not in found  # as by default
    assert found["train.ssl_steps"] == 4  # by the schedule of the self-supervision
    _, of_variant = registry.load_model_class("deminet_moe")
    assert {f"model.{name}" for name in of_variant} <= set(found)
