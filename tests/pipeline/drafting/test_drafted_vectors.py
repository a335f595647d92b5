"""Drafts of logs with vectors: the same for every format, and built from as they are."""

import json

import pytest

from pipeline.drafting import draft, sample, vectors
from pipeline.log import readers
from pipeline.log.input_files import list_inputs
from preprocessing.features.encoder_specs import Vector
from preprocessing.features.feature import DType, Role
from tests.helpers import vector_logs
from tests.helpers.foreign_logs import column
from tests.helpers.vector_logs import PROFILE, SEARCH, TEXT


def _draft(source):
    return draft.draft(sample.read(readers.columns_of_files(list_inputs(str(source)))).columns)


def _rows():
    return vector_logs.rows(users=60, items=25, longest=12)


@pytest.mark.parametrize(
    ("name", "form"), [("log.parquet", "lists"), ("log.parquet", "fixed"), ("log.jsonl", "lists")]
)
def test_lists_of_numbers_are_vectors(tmp_path, name, form):
    rows = [row for row in _rows() if row[PROFILE] or form != "fixed"]
    found = _draft(vector_logs.write(tmp_path / name, rows, form))
    features = {feature.name: feature for feature in found.schema.features}
    assert {f.name: f.shape for f in features.values() if f.is_vector} == {
        PROFILE: (3,), SEARCH: (2,), TEXT: (5,)
    }  # fmt: skip
    roles = [features[name].role for name in (PROFILE, SEARCH, TEXT)]
    assert roles == [Role.USER, Role.CONTEXT, Role.ITEM]
    assert all(features[name].encoder == Vector() for name in (PROFILE, SEARCH, TEXT))
    assert features[TEXT].dtype is DType.FLOAT32
    missing = 0 if form == "lists" else None
    assert (features[PROFILE].default, features[TEXT].default) == (missing, None)
    assert found.schema.history.features == ("item_id",)
    assert "vectors of 5 numbers, which a pretrained table holds once" in features[TEXT].description


@pytest.mark.parametrize("form", ["lists", " ", ", ", ";"])
def test_texts_of_three_numbers_and_more_are_vectors(tmp_path, form):
    found = _draft(vector_logs.write(tmp_path / "log.csv", _rows(), form))
    shapes = {feature.name: feature.shape for feature in found.schema.features}
    assert (shapes[PROFILE], shapes[TEXT]) == ((3,), (5,))
    (tmp_path / "b").mkdir()
    content = json.loads(json.dumps(found.schema.to_json()))
    built = vector_logs.write_data(tmp_path / "b", content=content, input=str(tmp_path / "log.csv"))
    assert built.num_requests("train") > 0


def test_what_is_no_vector():
    assert vectors.recognised(column("a", ["0.1, 2, 3", "0.2"])).size == 0
    assert vectors.recognised(column("a", ["1, 2, 3", "2, 3, 4"])).size == 0
    assert vectors.recognised(column("a", ["0.1, x, 3"])).size == 0
    assert vectors.recognised(column("a", ["[0.1, 2, 3]", "0.2 1 4"])).size == 3
