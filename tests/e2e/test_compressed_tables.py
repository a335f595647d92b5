"""A model with compressed tables is exported and scores as it does offline."""

import pytest

from models.core import run_directory
from serving import export as exporting
from serving.parity import parity
from tests.helpers import toy_runs


@pytest.mark.slow
def test_compressed_tables_are_exported_exactly(tmp_path):
    data = toy_runs.write_data(tmp_path / "data")
    settings = 'model.compressed_features=["item_id", "user_id"]', "model.compression=4"
    run = toy_runs.write_run(tmp_path / "run", data, "din", "none", *settings)
    assert set(run_directory.load_model(run).embedder.quotients) == {"item_id", "user_id"}
    result = parity(run, exporting.export(run, tmp_path / "model").path)
    assert result["ok"]
    assert max(result["max_difference"].values()) < 2e-7  # the last bit
