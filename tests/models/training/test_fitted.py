"""A model that `fit` trained becomes a run: measured, reported on, exported like any other."""

import numpy as np
import pytest

from models.config.run_config import resolve
from models.core import run_directory
from models.core.factory import build_model
from models.keras import keras
from models.reporting import run_report
from models.training.fitted import save_run
from preprocessing import dataset
from preprocessing.errors import UserError
from serving import export
from tests.helpers import small_models
from tests.helpers.served_models import require_parity


@pytest.fixture(scope="module")
def model(data):
    content = {"data": str(data.path), "model": {"name": "deminet", "embedding_size": 4}}
    built = build_model(resolve(content), data)
    built.compile("adam")
    small_models.randomise(built)
    built.fit(dataset.read(data, "train", batch_size=64, shuffle_seed=1), verbose=0)
    return built


def test_it_scores_reports_and_serves_as_what_was_fitted(model, data, tmp_path):
    path = tmp_path / "run"
    metrics = save_run(model, data, path)
    assert metrics == run_directory.read_metrics(path)
    batch = next(iter(dataset.read(data, "test", batch_size=512, shuffle_seed=None)))
    np.testing.assert_array_equal(run_directory.load_model(path)(batch), model(batch))
    evaluated = model.evaluate(dataset.read(data, "test", batch_size=512, shuffle_seed=None),
                               return_dict=True, verbose=0)  # fmt: skip
    assert evaluated["log_loss"] == pytest.approx(metrics["test"]["log_loss"], abs=1e-6)
    assert "deminet" in run_report.write_report(path, tmp_path / "report.html").read_text()
    require_parity(path, export.export(path, tmp_path / "model").path)


def test_a_loaded_model_is_one_as_well(model, data, tmp_path):
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    save_run(loaded, data, tmp_path / "run")
    assert run_directory.open_run(tmp_path / "run").config.data == str(data.path)


def test_what_is_refused(model, data, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="Expected an empty directory"):
        save_run(model, data, tmp_path / "full")
    by_hand = small_models.model(small_models.config("din"))
    with pytest.raises(UserError, match="Expected one schema, found two"):
        save_run(by_hand, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
