"""Fields of many values in whole models: what may not change a score, and equal training."""

import numpy as np
import pytest

from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.many import COMBINERS
from tests.helpers import many_models, small_models

_KEYS = ["city", candidate_key("category_id"), candidate_key("brand"), history_key("category_id")]


@pytest.fixture(scope="module", params=COMBINERS)
def model(request):
    built = many_models.model(many_models.config("din"), request.param)
    small_models.randomise(built)
    return built


def test_fields_have_one_vector_whatever_their_values(model):
    features = many_models.batch()
    user, candidates = model.embedder.user_side(features), model.embedder.candidates(features)
    assert user.fields_BFd.shape == (6, 3, 8)
    assert user.history_BLJd.shape == (6, 9, 2, 8)
    assert candidates.target_BNJd.shape == (6, 3, 2, 8)
    assert candidates.extra_BNEd.shape == (6, 3, 1, 8)
    assert [ids.shape for ids in user.history_ids] == [(6, 9), (6, 9)]


def test_one_value_gives_the_scores_of_a_plain_feature_bit_for_bit(model):
    plain = many_models.model(many_models.config("din"), is_many=False)
    small_models.randomise(plain)
    features = many_models.batch("plain")
    is_real = features[candidate_key("item_id")].numpy() > 0
    np.testing.assert_array_equal(
        model(many_models.batch("one")).numpy()[is_real], plain(features).numpy()[is_real]
    )


def test_more_padding_changes_no_bit(model):
    features = many_models.batch()
    wider = dict(features)
    for key in _KEYS:
        none_before = [[0, 0]] * (features[key].shape.rank - 1)
        wider[key] = tf.pad(features[key], [*none_before, [2, 3]])
    np.testing.assert_array_equal(model(wider).numpy(), model(features).numpy())


def test_fields_of_a_part_of_a_batch_are_those_of_the_whole(model):
    features = many_models.batch()
    whole = model.embedder.candidates(features).extra_BNEd.numpy()
    part = model.embedder.candidates({key: value[2:5] for key, value in features.items()})
    np.testing.assert_array_equal(part.extra_BNEd.numpy(), whole[2:5])


def test_events_and_requests_without_values_have_finite_scores(model):
    features = many_models.batch()
    for key in _KEYS:
        features[key] = tf.zeros_like(features[key])
    assert np.isfinite(model(features).numpy()).all()
    user = model.embedder.user_side(features)
    assert not user.history_BLJd.numpy()[:, :, 1].any()


@pytest.mark.parametrize(
    ("name", "ssl", "overrides"),
    [
        ("din", "miss", ("train.joint=true",)),
        ("deepfm", "none", ()),
        ("dcn", "none", ('model.compressed_features=["category_id"]',)),
        ("deminet", "none", ()),
    ],
)
@pytest.mark.parametrize("oov_rate", [0.0, 0.3])
def test_one_value_trains_like_a_plain_feature_bit_for_bit(name, ssl, overrides, oov_rate):
    run = many_models.config(name, ssl, *overrides, oov_rate=oov_rate)
    many, plain = many_models.model(run), many_models.model(run, is_many=False)
    for _ in range(3):
        logs = (
            many.main_step(many_models.batch("one")),
            plain.main_step(many_models.batch("plain")),
        )
        for key in logs[1]:
            np.testing.assert_array_equal(logs[0][key].numpy(), logs[1][key].numpy(), err_msg=key)
    for ours, theirs in zip(many.trainable_variables, plain.trainable_variables, strict=True):
        # Only the row of padding may differ: plain features look it up, sets never do.
        is_table = ours.name.startswith(("embedder/", "category_id_", "brand_", "city_"))
        first = int(is_table)
        np.testing.assert_array_equal(
            ours.numpy()[first:], theirs.numpy()[first:], err_msg=ours.name
        )


def test_only_rows_of_the_batch_change():
    built = many_models.model(many_models.config("din"))
    before = built.embedder.tables["category_id"].numpy()
    features = many_models.batch()
    built.main_step(features)
    after = built.embedder.tables["category_id"].numpy()
    touched = np.unique(
        np.concatenate([features[key].numpy().ravel() for key in _KEYS if "category" in key])
    )
    changed = np.flatnonzero((before != after).any(axis=1))
    assert set(changed) <= set(touched[touched > 0])
    assert len(changed) > 2


def test_hidden_values_are_those_of_sets_too():
    built = many_models.model(many_models.config("din", oov_rate=0.5))
    feature = built.schema["category_id"]
    ids = tf.constant(np.full([50, 4], 5))
    hidden = built.embedder._hide(feature, ids, 1, tf.constant([1, 2])).numpy()
    assert set(np.unique(hidden)) == {1, 5}
    assert (np.abs((hidden == 1).mean(axis=0) - 0.5) < 0.25).all()
    padding = built.embedder._hide(feature, tf.zeros_like(ids), 1, tf.constant([1, 2])).numpy()
    assert not padding.any()
