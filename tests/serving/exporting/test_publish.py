"""What is published, what is refused, what is kept and how to go back."""

import pathlib
import shutil
import threading
import time
import types

import pytest

from models.core import run_directory
from models.keras import tf
from preprocessing.errors import UserError
from serving import export as exporting
from serving import rollback
from serving.export import ExportOptions
from serving.exporting import gates, publishing, signatures
from serving.exporting.publishing import Publication
from serving.exporting.signatures import ServingModule
from serving.tfserving.models import model_config
from serving.tfserving.models.servable import Servable
from serving.tfserving.models.store import ModelStore


def versions(output: pathlib.Path, *numbers: int) -> pathlib.Path:
    """A directory with versions that hold next to nothing."""
    for number in numbers:
        (output / str(number)).mkdir(parents=True)
        (output / str(number) / "saved_model.pb").touch()
    return output


def names(output: pathlib.Path) -> set[str]:
    return {path.name for path in output.iterdir()}


def publish(output: pathlib.Path, stable, previous=None, canary=None) -> Publication:
    publication = Publication("ctr", str(output), stable, previous, canary)
    publishing.write(output, publication)
    return publication


def perfect_model(path: pathlib.Path, like: Servable, schema: pathlib.Path) -> pathlib.Path:
    """A version that scores the toy data perfectly: the first candidate is the one clicked."""
    names = like.input_types("serving_default")
    signature = like.signature_defs.signature_def["serving_default"].inputs

    def serving_default(**raw):
        places_BN = tf.ones_like(raw["candidate_price"])
        return {"scores": 1.0 / tf.cumsum(places_BN, axis=1)}

    specs = {
        name: tf.TensorSpec(
            [None] * len(signature[name].tensor_shape.dim), tf.as_dtype(signature[name].dtype)
        )
        for name in names
    }
    module = tf.Module()
    module.function = tf.function(serving_default).get_concrete_function(**specs)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.function})
    (path / "assets").mkdir(exist_ok=True)
    shutil.copy(schema, path / "assets" / "schema.json")
    return path


@pytest.fixture(scope="module")
def rival(tmp_path_factory, toy_version, toy_servable):
    """OUTPUT whose live version 4 ranks perfectly."""
    output = tmp_path_factory.mktemp("rival")
    perfect_model(output / "4", toy_servable, toy_version / "assets" / "schema.json")
    return output


def test_worse_model_is_refused_and_nothing_is_left(rival, toy_run):
    with pytest.raises(UserError, match=r"Expected an AUC on.*1\.0000.*Nothing was published"):
        exporting.export(toy_run, rival)
    assert names(rival) == {"4"}


def test_model_within_the_margin_is_published_as_canary(rival, toy_run, tmp_path):
    output = shutil.copytree(rival, tmp_path / "model")
    options = ExportOptions(max_auc_drop=1.0, canary=True, model_name="m", served_path="/models/m")
    found = exporting.export(toy_run, output, options)
    assert found.path == output / "5"
    assert "live version 1.0000" in found.checks[-1]
    card = (found.path / "assets" / "model_card.md").read_text()
    for check in found.checks:
        assert f"* {check}" in card
    assert publishing.read(output) == Publication("m", "/models/m", 4, None, 5)


def test_changed_schema_is_refused_with_the_difference(rival, toy_run, tmp_path):
    output = shutil.copytree(rival, tmp_path / "model")
    schema = output / "4" / "assets" / "schema.json"
    schema.write_text(schema.read_text().replace('"buckets": 5', '"buckets": 6'))
    difference = r"features\[hour\].encoder.buckets: 5 here, 6 there"
    with pytest.raises(UserError, match=f"{difference}.*--allow_schema_change"):
        exporting.export(toy_run, output)
    run_schema = run_directory.open_run(toy_run).data.schema
    (line,) = gates.check_schema(run_schema, output / "4", allow_change=True)
    assert "encoder.buckets: 5 here, 6 there" in line
    schema.unlink()
    with pytest.raises(UserError, match="schema.json to compare with"):
        exporting.export(toy_run, output)


def test_scores_that_are_not_the_offline_ones_are_refused(toy_run, tmp_path, monkeypatch):
    def other_weights(model, data, calibration):
        table = model.embedder.tables["item_id"]
        table.assign_add(tf.ones_like(table))  # of the model that scores offline
        return ServingModule(run_directory.load_model(toy_run), data, calibration)

    monkeypatch.setattr(signatures, "ServingModule", other_weights)
    with pytest.raises(UserError, match="Expected scores within 1e-06 of the offline ones"):
        exporting.export(toy_run, tmp_path / "model")
    assert names(tmp_path) == set()


def test_auc_without_a_rival_or_a_measure(toy_run, toy_servable, monkeypatch):
    data = run_directory.open_run(toy_run).data
    assert gates.check_auc(data, toy_servable, None, 0.0).startswith(
        "AUC on the first 11 requests of test: 0."
    )
    monkeypatch.setattr(type(data), "num_requests", lambda self, split: int(split == "train"))
    assert "no held-out requests" in gates.check_auc(data, toy_servable, None, 0.0)


def test_auc_is_that_of_the_first_split_with_both_labels(toy_run, toy_servable, monkeypatch):
    data = run_directory.open_run(toy_run).data
    auc = gates._auc
    monkeypatch.setattr(
        gates,
        "_auc",
        lambda data, split, model: None if split == "test" else auc(data, split, model),
    )
    line = gates.check_auc(data, toy_servable, None, 0.0)
    assert line.startswith("AUC on the first 3 requests of validation: 0.")
    monkeypatch.setattr(gates, "_auc", lambda *args: None)
    line = gates.check_auc(data, toy_servable, None, 0.0)
    assert line == "AUC not compared: all candidates of test and of validation have one label"


def test_live_version_that_cannot_be_asked_is_not_compared(toy_run, toy_servable, tmp_path):
    module = tf.Module()
    module.function = tf.function(lambda x: {"scores": x}).get_concrete_function(
        x=tf.TensorSpec([None, None], tf.float32)
    )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.function)
    data = run_directory.open_run(toy_run).data
    line = gates.check_auc(data, toy_servable, tmp_path / "1", 0.0)
    assert line.endswith(f"not compared, {tmp_path / '1'} takes other inputs")
    line = gates.check_auc(data, toy_servable, tmp_path / "2", 0.0)
    assert f"not compared, {tmp_path / '2'} does not answer: Could not find SavedModel" in line


def test_served_path_is_absolute(tmp_path):
    with pytest.raises(UserError, match="--served_path: expected an absolute path or a URI"):
        exporting.export(tmp_path, tmp_path, ExportOptions(served_path="models/ctr"))


def test_models_config_is_what_servers_take(tmp_path):
    output = versions(tmp_path / "model", 2, 3, 5)
    publication = publish(output, stable=3, previous=2, canary=5)
    assert publishing.read(output) == publication
    assert names(output) == {"2", "3", "5", publishing.CONFIG}
    store = ModelStore(lambda path: path.name)
    store.start(model_config.read(output / publishing.CONFIG), 0.01)
    assert [store.get("ctr", label=label)[0] for label in ("stable", "canary")] == [3, 5]
    assert {version for version, *_ in store.statuses("ctr")} == {2, 3, 5}


def test_models_config_of_several_models_is_not_ours(tmp_path):
    entry = "config { name: 'a' base_path: '/a' model_platform: 'tensorflow' }"
    (tmp_path / publishing.CONFIG).write_text(f"model_config_list {{ {entry} {entry} }}")
    with pytest.raises(UserError, match="Expected one model in .*, found 2"):
        publishing.read(tmp_path)


def test_new_version_becomes_stable_with_the_one_before_at_hand():
    publication = Publication("ctr", "/m", stable=4, previous=3, canary=5)
    assert publication.with_version(6, canary=False) == Publication("ctr", "/m", 6, 4, None)
    assert publication.with_version(6, canary=True) == Publication("ctr", "/m", 4, 3, 6)


def test_live_version_is_the_stable_one(tmp_path):
    assert publishing.live_version(tmp_path / "none") is None
    output = versions(tmp_path, 1, 2, 3)
    (output / "9").mkdir()  # not complete
    assert publishing.live_version(output) == output / "3"
    publish(output, stable=2)
    assert publishing.live_version(output) == output / "2"


def test_keep_removes_the_oldest_that_are_not_served(tmp_path):
    output = versions(tmp_path, 1, 2, 3, 4, 5, 6)
    publish(output, stable=3, previous=1, canary=6)
    assert publishing.prune(output, keep=2) == [2, 4]
    assert names(output) == {"1", "3", "5", "6", publishing.CONFIG}
    assert publishing.prune(output, keep=9) == []


def test_rollback_is_followed_without_a_load(tmp_path):
    """Label and unnumbered requests go back within one look at the file; nothing fails."""
    output = versions(tmp_path, 1, 2, 3)
    publish(output, stable=3, previous=2)
    loads = []
    store = ModelStore(lambda path: loads.append(path.name) or path.name)
    store.start(model_config.read(output / publishing.CONFIG), 0.01)
    assert sorted(loads) == ["2", "3"]
    assert publishing.rollback(output) == Publication("ctr", str(output), 2, 1, None)
    store.reload(model_config.read(output / publishing.CONFIG))
    assert store.get("ctr", label="stable")[0] == 2
    store.poll()
    assert store.get("ctr")[0] == 2
    assert sorted(loads) == ["1", "2", "3"]


def test_rollback_to_a_version_by_number(tmp_path):
    output = versions(tmp_path, 1, 2, 3, 4)
    publish(output, stable=4, previous=3)
    assert publishing.rollback(output, 1) == Publication("ctr", str(output), 1, None, None)
    assert publishing.rollback(output, 4) == Publication("ctr", str(output), 4, 3, None)
    with pytest.raises(UserError, match="found no version 7. Fix: name one.*1, 2, 3, 4"):
        publishing.rollback(output, 7)


def test_rollback_without_anything_to_go_back_to(tmp_path):
    with pytest.raises(UserError, match="Expected models.config in"):
        publishing.rollback(tmp_path)
    publish(versions(tmp_path, 1), stable=1)
    with pytest.raises(UserError, match="found none before the stable one"):
        publishing.rollback(tmp_path)


def test_rollback_command(tmp_path, capsys, monkeypatch):
    publish(versions(tmp_path, 1, 2), stable=2, previous=1)
    values = types.SimpleNamespace(output=str(tmp_path), version=None, withdraw=True)
    monkeypatch.setattr(rollback.flags, "FLAGS", values)
    rollback.main()
    assert capsys.readouterr().out == "Version 1 of ctr is stable\n"
    assert names(tmp_path) == {"1", ".withdrawn-2", publishing.CONFIG}


def test_rollback_takes_one_poll_interval(tmp_path, monkeypatch):
    """Counted in looks at models.config: the first after the command serves the old version."""
    publish(versions(tmp_path, 1, 2), stable=2, previous=1)
    file = tmp_path / publishing.CONFIG
    looks, permits = [], threading.Semaphore(1)
    read = model_config.read

    def permitted(path):
        if threading.current_thread().name != "config-poller":
            return read(path)
        permits.acquire()
        config = read(path)
        looks.append(config)
        return config

    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.002)

    monkeypatch.setattr(model_config, "read", permitted)
    values = types.SimpleNamespace(output=str(tmp_path), version=None, withdraw=False)
    monkeypatch.setattr(rollback.flags, "FLAGS", values)
    store = ModelStore(lambda path: path.name)
    store.start(model_config.read(file), 0.01)
    store.start_polling(3600)
    store.follow_config_file(file, 0.01)
    try:
        wait_for(lambda: looks)
        rollback.main()
        assert store.get("ctr")[0] == 2
        permits.release()
        wait_for(lambda: store.get("ctr")[0] == 1 == store.get("ctr", label="stable")[0])
        assert len(looks) == 2
    finally:
        permits.release(1000)
        store.stop()


def test_withdrawn_versions_are_out_of_sight_and_their_numbers_are_not_used_again(tmp_path):
    output = versions(tmp_path, 1, 2, 3)
    publish(output, stable=3, previous=2)
    publishing.rollback(output, withdraw=True)
    assert names(output) == {"1", "2", ".withdrawn-3", publishing.CONFIG}
    store = ModelStore(lambda path: path.name)
    store.start(model_config.single("ctr", output), 0.01)
    assert store.get("ctr")[0] == 2
    assert publishing.next_version(output) == 4
