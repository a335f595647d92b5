"""docs/notebook.ipynb is a notebook, runs from top to bottom, and shows what it says."""

import json
import tempfile

import numpy as np
import pytest

from tests.helpers import notebooks


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the notebook leaves in its namespace."""
    home = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(tempfile, "tempdir", str(home))
        return notebooks.run(notebooks.WALK, notebooks.cells(notebooks.WALK))


def test_it_is_a_notebook_without_outputs():
    content = json.loads(notebooks.WALK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in content["cells"]:
        keys = {"id", "cell_type", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        assert cell.keys() == keys
        assert cell["metadata"] == {}


def test_the_draft_is_certain(names):
    assert names["draft"].is_certain
    schema = names["data"].schema
    assert [feature.name for feature in schema.user_features] == ["memberId", "age", "gender"]
    assert [feature.name for feature in schema.item_features] == ["movieId", "genres", "price_EUR"]
    assert names["data"].findings == []
    assert names["data"].manifest["conservation"]["rejected"] == {}


def test_keras_learns(names):
    assert max(names["history"].history["val_auc"]) > 0.7
    assert names["measured"]["auc"] > 0.7
    assert names["of_run"]["test"]["auc"] == pytest.approx(names["measured"]["auc"], abs=0.01)


def test_served_scores_are_those_of_the_run_calibrated(names):
    served, calibrated = np.array(names["served"]), names["calibrated"]
    assert len(served) == 50
    np.testing.assert_allclose(served, calibrated, rtol=0, atol=1e-6)
    assert np.abs(served - names["offline"]).max() > 1e-3
    fitted_to = names["record"]["splits"]["validation"]
    assert fitted_to["after"]["bias_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert fitted_to["before"]["bias_ratio"] != pytest.approx(1.0, abs=1e-3)


def test_the_ranking_tells_films_apart(names):
    assert len(names["ranking"]) == len(names["films"]) == 120
    assert np.ptp(names["ranking"]) > 0.2
