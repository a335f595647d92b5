"""Fields of vectors in whole models: a NumPy twin, what may not change a score, training."""

import numpy as np
import pytest

from models.keras import tf
from models.training.model_checks import check_user_parts
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from tests.helpers import small_models, vector_models


@pytest.fixture(scope="module")
def model():
    built = vector_models.model(vector_models.config("din"))
    small_models.randomise(built)
    return built


def test_vectors_are_fields_like_any_other(model):
    features = vector_models.batch()
    user, candidates = model.embedder.user_side(features), model.embedder.candidates(features)
    assert user.fields_BFd.shape == (6, 3, 8)
    assert user.history_BLJd.shape == (6, 9, 3, 8)
    assert candidates.target_BNJd.shape == (6, 3, 3, 8)
    assert candidates.extra_BNEd.shape == (6, 3, 2, 8)
    assert [ids if ids is None else ids.shape for ids in user.history_ids] == [
        (6, 9), (6, 9), None
    ]  # fmt: skip
    projections = {name: value.numpy() for name, value in model.embedder.projections.items()}
    order = [feature.name for feature in model.schema.user_features]
    np.testing.assert_allclose(
        user.fields_BFd.numpy()[:, order.index("profile")],
        features["profile"].numpy() @ projections["profile"],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    history = features[history_key("text")].numpy() @ projections["text"]
    real = features[history_key("item_id")].numpy() > 0
    np.testing.assert_allclose(
        user.history_BLJd.numpy()[:, :, 2], history * real[..., None], rtol=1e-5, atol=1e-6
    )
    target = features[candidate_key("text")].numpy() @ projections["text"]
    np.testing.assert_allclose(
        candidates.target_BNJd.numpy()[:, :, 2], target, rtol=1e-5, atol=1e-6
    )
    rows = model.embedder.tables["item_id"].numpy()[features[candidate_key("item_id")].numpy()]
    np.testing.assert_allclose(
        candidates.target_BNJd.numpy()[:, :, 0], rows @ projections["item_id"], rtol=1e-5, atol=1e-5
    )


def test_numbers_at_padding_change_no_score(model):
    features = vector_models.batch()
    changed = dict(features)
    for key in (history_key("text"), candidate_key("text"), candidate_key("image")):
        side = key.split("/")[0]
        is_real = features[f"{side}/item_id"].numpy()[..., None] > 0
        changed[key] = tf.constant(np.where(is_real, features[key], 7.0), tf.float32)
    is_real = features["candidate/item_id"].numpy() > 0
    np.testing.assert_array_equal(model(changed).numpy()[is_real], model(features).numpy()[is_real])


def test_fixed_rows_get_no_gradient_and_no_slots():
    built = vector_models.model(vector_models.config("din", "miss", "train.joint=true"))
    built.build_optimizers()
    before = built.embedder.tables["item_id"].numpy()
    names = [variable.name for variable in built.embedding_optimizer.variables]
    assert not any("item_id" in name for name in names)
    for _ in range(3):
        built.main_step(vector_models.batch())
    np.testing.assert_array_equal(built.embedder.tables["item_id"], before)
    assert "embedding_gradient/ssl" in built.diagnostics(vector_models.batch())


def test_a_vector_is_no_category():
    with pytest.raises(UserError, match="ssl.feature to be a category .* feature 2, whose values"):
        vector_models.model(vector_models.config("din", "rule", "ssl.feature=2"))


def test_a_model_of_ones_own_is_tried_on_vectors():
    check_user_parts(vector_models.config("user_models:Good"), vector_models.schema())
