"""A model with a pretrained table: the vectors are in its export, and all ways in agree."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core import run_directory
from models.training.pretrained_tables import fill
from serving import export, parity
from tests.helpers import toy_runs


@pytest.mark.parametrize("trainable", [False, True])
def test_an_export_holds_the_vectors_and_needs_no_file(toy_data, tmp_path, trainable):
    file = tmp_path / "vectors.parquet"
    vectors = np.random.default_rng(0).normal(size=(len(toy_runs.ITEMS), 7)).astype(np.float32)
    pq.write_table(pa.table({"value": toy_runs.ITEMS, "vector": list(vectors)}), file)
    record = f'{{"file": "{file}", "trainable": {str(trainable).lower()}}}'
    setting = f"pretrained.item_id={record}"
    path = toy_runs.write_run(tmp_path / "run", toy_data, "din", "none", setting)
    run = run_directory.open_run(path)
    model = run_directory.load_model(path)
    fill(model, toy_data, run.config)
    run_directory.best_checkpoint(model, path).save()
    file.unlink()
    version = export.export(path, tmp_path / "model").path
    result = parity.parity(path, version)
    assert result["ok"], parity.describe(result)
    assert max(result["max_difference"].values()) <= 1e-6
    stored = run_directory.load_model(path).embedder.tables["item_id"].numpy()
    np.testing.assert_array_equal(np.sort(stored[3:], axis=0), np.sort(vectors, axis=0))
