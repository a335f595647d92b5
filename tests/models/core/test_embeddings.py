"""The embedder: what it looks up, linear weights among it, and which rows a step changes."""

import numpy as np
import pytest

from models.core.embeddings import FeatureEmbedder
from models.keras import keras, tf
from preprocessing.errors import UserError
from tests.helpers import small_models

HISTORY = ("item_id", "category_id")
ITEM = (*HISTORY, "brand")
SIZE = 5


def embedder(linear_weights):
    keras.utils.set_random_seed(1)
    return FeatureEmbedder(small_models.schema(), small_models.CARDINALITIES, SIZE, linear_weights)


@pytest.fixture(scope="module")
def linear():
    built = embedder(linear_weights=True)
    rng = np.random.default_rng(0)
    for weight in built.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    return built


@pytest.fixture(scope="module")
def features():
    return small_models.batch()


def test_vectors_are_rows_of_the_tables(linear, features):
    user, candidates = linear.user_side(features), linear.candidates(features)
    tables = {name: table.numpy()[:, :SIZE] for name, table in linear.tables.items()}
    age = features["age"].numpy()[:, None] * linear.vectors["age"].numpy()[0, :SIZE]
    expected = np.stack([tables["user_id"][features["user_id"]], age], 1)
    np.testing.assert_allclose(user.fields_BFd, expected, rtol=1e-6)
    for j, name in enumerate(HISTORY):
        rows = tables[name][features[f"history/{name}"]]
        rows[~user.mask_BL.numpy()] = 0.0
        np.testing.assert_array_equal(user.history_BLJd[:, :, j], rows)
        rows = tables[name][features[f"candidate/{name}"]]
        np.testing.assert_array_equal(candidates.target_BNJd[:, :, j], rows)
    rows = tables["brand"][features["candidate/brand"]]
    np.testing.assert_array_equal(candidates.extra_BNEd[:, :, 0], rows)


def test_a_history_is_zero_at_padding_whatever_the_tables_hold(features):
    built = embedder(linear_weights=False)
    for name in HISTORY:
        built.tables[name].assign(tf.fill(built.tables[name].shape, np.nan))
    user = built.user_side(features)
    history, mask = user.history_BLJd.numpy(), user.mask_BL.numpy()
    assert np.isnan(history[mask]).all()
    np.testing.assert_array_equal(history[~mask], 0.0)


def test_items_and_masks_are_those_of_the_item_key(linear, features):
    user, candidates = linear.user_side(features), linear.candidates(features)
    np.testing.assert_array_equal(user.items_BL, features["history/item_id"])
    np.testing.assert_array_equal(candidates.key_BN, features["candidate/item_id"])
    np.testing.assert_array_equal(user.mask_BL, features["history/item_id"].numpy() != 0)
    np.testing.assert_array_equal(candidates.mask_BN, features["candidate/item_id"].numpy() != 0)
    assert linear.dims.num_items == small_models.CARDINALITIES["item_id"]


def test_linear_weights_add_up_to_a_regression(linear, features):
    """A weight per value, times the value of a number; a history counts by its mean."""
    weights = {name: table.numpy()[:, -1] for name, table in linear.tables.items()}
    user, candidates = linear.user_side(features), linear.candidates(features)
    batch, count = candidates.mask_BN.shape
    for b in range(batch):
        total = weights["user_id"][features["user_id"][b]]
        total += features["age"][b].numpy() * linear.vectors["age"].numpy()[0, -1]
        for name in HISTORY:
            ids = [i for i in features[f"history/{name}"][b].numpy() if i != 0]
            total += sum(weights[name][i] for i in ids) / len(ids) if ids else 0.0
        assert float(user.linear_B[b]) == pytest.approx(total, rel=1e-5, abs=1e-6)
        for n in range(count):
            ids = {name: features[f"candidate/{name}"][b, n].numpy() for name in ITEM}
            total = sum(weights[name][i] for name, i in ids.items())
            assert float(candidates.linear_BN[b, n]) == pytest.approx(total, rel=1e-5, abs=1e-6)


def test_only_models_that_ask_have_linear_weights(features):
    plain, linear = embedder(linear_weights=False), embedder(linear_weights=True)
    for name, table in plain.tables.items():
        assert table.shape == (small_models.CARDINALITIES[name], SIZE)
        assert linear.tables[name].shape == (small_models.CARDINALITIES[name], SIZE + 1)
    assert not plain.user_side(features).linear_B.numpy().any()
    assert not plain.candidates(features).linear_BN.numpy().any()


def test_linear_weights_start_at_zero_beside_vectors_that_do_not():
    for weight in embedder(linear_weights=True).trainable_variables:
        assert not weight.numpy()[:, -1].any()
        assert weight.numpy()[:, :-1].all()
        assert np.abs(weight).max() <= 0.05


def test_a_step_changes_only_the_rows_of_its_batch():
    """Linear weights and vectors share one sparse update."""
    model = small_models.model(small_models.config("fm"))
    table = model.embedder.tables["item_id"]
    before, features = table.numpy(), small_models.batch()
    model.main_step(features)
    changed = (table.numpy() != before).any(1)
    items = np.concatenate([np.ravel(features[f"{k}/item_id"]) for k in ("history", "candidate")])
    # A row of padding enters nothing that is summed.
    expected = np.isin(np.arange(len(before)), items[items > 0])
    np.testing.assert_array_equal(changed, expected)
    assert (table.numpy() != before)[changed, -1].all()


def test_a_schema_without_further_item_features(features):
    schema = small_models.schema()
    content = schema.to_json()
    content["features"] = [f for f in content["features"] if f["name"] != "brand"]
    built = FeatureEmbedder(type(schema).from_json(content), small_models.CARDINALITIES, SIZE, True)
    candidates = built.candidates(features)
    assert candidates.extra_BNEd.shape == (*candidates.mask_BN.shape, 0, SIZE)
    assert built.dims.extra_fields == 0
    assert tf.reduce_all(tf.math.is_finite(candidates.linear_BN))


def rows_of(vectors, table):
    """Which row of a table each vector is."""
    return np.argmin(np.abs(vectors[..., None, :] - table).sum(-1), -1)


def test_training_hides_a_share_of_the_known_values():
    """Ids are 0 for padding, 1 for an unknown value and 2.. for known ones."""
    cardinalities = small_models.CARDINALITIES | {"user_id": 300}
    built = FeatureEmbedder(small_models.schema(), cardinalities, SIZE, oov_rate=0.3)
    features = small_models.batch(requests=200, candidates=5)
    seed = tf.constant([1, 7])
    user, candidates = built.user_side(features, seed=seed), built.candidates(features, seed=seed)
    for name, vectors, ids in (
        ("user_id", user.fields_BFd[:, 0], features["user_id"]),
        ("item_id", user.history_BLJd[:, :, 0], features["history/item_id"]),
        ("category_id", candidates.target_BNJd[:, :, 1], features["candidate/category_id"]),
        ("brand", candidates.extra_BNEd[:, :, 0], features["candidate/brand"]),
    ):
        ids = ids.numpy()
        known = ids > 1
        rows = rows_of(vectors.numpy(), built.tables[name].numpy())
        hidden = rows != ids
        assert set(rows[known & hidden]) == {1}
        expected = pytest.approx(0.3, abs=4 * np.sqrt(0.21 / known.sum()))
        assert hidden[known].mean() == expected
        if name != "item_id":  # a history is 0 at padding, which is no row
            assert not hidden[~known].any()
    np.testing.assert_array_equal(user.key_B, features["user_id"])
    np.testing.assert_array_equal(user.mask_BL, features["history/item_id"].numpy() > 0)
    np.testing.assert_array_equal(candidates.mask_BN, features["candidate/item_id"].numpy() > 0)
    assert not user.history_BLJd.numpy()[~user.mask_BL.numpy()].any()

    again = built.user_side(features, seed=seed)
    other = built.user_side(features, seed=seed + 1)
    np.testing.assert_array_equal(again.history_BLJd, user.history_BLJd)
    assert (other.history_BLJd.numpy() != user.history_BLJd.numpy()).any()


def test_only_training_hides_values_and_so_trains_the_row_of_unknown_ones():
    run = small_models.config("din", "none", "train.oov_rate=0.5")
    built = small_models.model(run)
    features = small_models.batch()
    before = {name: table.numpy()[1] for name, table in built.embedder.tables.items()}
    scores = built(features).numpy()
    np.testing.assert_array_equal(built(features), scores)
    built.main_step(features)
    for name, table in built.embedder.tables.items():
        assert (table.numpy()[1] != before[name]).any(), name


def test_compressed_tables_tell_all_ids_apart_with_fewer_rows():
    run = small_models.config("din", "none", 'model.compressed_features=["item_id"]')
    built = small_models.model(run).embedder
    rows, width = small_models.CARDINALITIES["item_id"], 8
    assert built.tables["item_id"].shape == (4, width)  # 30 ids, eight of which share a row
    assert built.quotients["item_id"].shape == (8, width)
    assert list(built.quotients) == ["item_id"]
    ids = np.arange(rows)
    features = small_models.batch(requests=1, candidates=rows) | {"candidate/item_id": ids[None]}
    features = {name: tf.constant(value) for name, value in features.items()}
    found = built.candidates(features).target_BNJd[0, :, 0].numpy()
    table, quotients = built.tables["item_id"].numpy(), built.quotients["item_id"].numpy()
    for i in ids:
        np.testing.assert_allclose(found[i], table[i % 4] * quotients[i // 4], rtol=1e-6)
    assert len(np.unique(found, axis=0)) == rows


def test_compressed_tables_start_like_plain_ones_and_train_sparsely():
    settings = 'model.compressed_features=["item_id"]', "model.compression=3"
    model = small_models.model(small_models.config("fm", "none", *settings))
    table, quotients = model.embedder.tables["item_id"], model.embedder.quotients["item_id"]
    assert (table.shape, quotients.shape) == ((10, 9), (3, 9))
    assert not table.numpy()[:, -1].any()  # no linear weights yet
    assert (quotients.numpy()[:, -1] == 1.0).all()
    before = table.numpy(), quotients.numpy()
    features = small_models.batch(requests=1, candidates=1, length=1)
    model.main_step(features)
    # The only request has an empty history, so its candidate is the only item.
    item = int(features["candidate/item_id"][0, 0])
    assert np.flatnonzero((table.numpy() != before[0]).any(1)).tolist() == [item % 10]
    assert np.flatnonzero((quotients.numpy() != before[1]).any(1)).tolist() == [item // 10]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('model.compressed_features=["item"]', "among user_id, item_id, category_id, brand"),
        ('model.compressed_features=["age"]', "found 'age'"),
    ],
    ids=["unknown", "numeric"],
)
def test_only_categorical_features_are_compressed(setting, message):
    with pytest.raises(UserError, match=message):
        small_models.model(small_models.config("din", "none", setting))
