"""Features of events in whole models: where they enter, and that a model begins as without them."""

import numpy as np
import pytest

from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from tests.helpers import event_models, small_models
from tests.reference.event_fields import added_fields

_EVENTS = ("action", "gap", "price", "tags")


@pytest.fixture(scope="module")
def model():
    built = event_models.model(small_models.config("din"))
    small_models.randomise(built)
    return built


@pytest.mark.parametrize(("name", "ssl"), [("din", "miss"), ("deepfm", "none"), ("lr", "none")])
def test_training_begins_as_without_features_of_events(name, ssl):
    run = small_models.config(name, ssl)
    with_events = event_models.model(run)
    plain = event_models.model(run, event_models.without_events())
    features = event_models.batch()
    np.testing.assert_array_equal(with_events(features).numpy(), plain(features).numpy())
    step = tf.constant([0, 0])
    for key, term in plain.loss_terms(features, step).items():
        other = with_events.loss_terms(features, step)[key]
        np.testing.assert_array_equal(other.values_Pn.numpy(), term.values_Pn.numpy())
    if run.train.has_ssl_steps:
        ours, theirs = (built.ssl_loss(features, step)[0] for built in (with_events, plain))
        assert ours.numpy() == theirs.numpy()


def test_the_fields_of_an_event_are_those_of_its_item_and_what_is_projected(model):
    features = event_models.batch()
    user = model.embedder.user_side(features)
    items = model.embedder.user_side(features, items_only=True)
    embedder = model.embedder
    names = [feature.name for feature in model.schema.event_features]
    assert names == sorted(_EVENTS)
    kernels = np.stack([embedder.event_projections[name].numpy() for name in names])
    for row in range(6):
        columns = []
        for name in names:
            values = features[history_key(name)].numpy()[row]
            if name == "price":
                columns.append(values[:, None] * embedder.vectors[name].numpy())
            elif name == "tags":
                table = embedder.tables[name].numpy()
                counts = np.maximum((values > 0).sum(-1, keepdims=True), 1)
                columns.append((table[values] * (values > 0)[..., None]).sum(1) / counts)
            else:
                columns.append(embedder.tables[name].numpy()[values])
        expected = added_fields(np.stack(columns, axis=1), kernels, 2)
        expected[~user.mask_BL.numpy()[row]] = 0.0
        found = (user.history_BLJd - items.history_BLJd).numpy()[row]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_of_events_reach_attention_and_not_the_candidates(model):
    features = event_models.batch()
    other = dict(features)
    mask = features[history_key("item_id")].numpy() > 0
    other[history_key("action")] = tf.constant(np.where(mask, 1, 0))
    before, after = (model.backbone.explain(
        model.backbone.encode_user(model.embedder.user_side(each)),
        model.embedder.candidates(each))["attention_BNKL"].numpy() for each in (features, other)
    )  # fmt: skip
    assert (np.abs(before - after).max(axis=(1, 2, 3))[1:] > 1e-5).any()
    ours, theirs = (model.embedder.candidates(each) for each in (features, other))
    np.testing.assert_array_equal(ours.target_BNJd.numpy(), theirs.target_BNJd.numpy())


def test_values_of_padding_change_no_score(model):
    features = event_models.batch()
    noisy = dict(features)
    mask = features[history_key("item_id")].numpy() > 0
    for name in _EVENTS:
        values = features[history_key(name)].numpy()
        shaped = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
        noisy[history_key(name)] = tf.constant(np.where(shaped, values, 1).astype(values.dtype))
    np.testing.assert_array_equal(model(features).numpy(), model(noisy).numpy())


def test_longer_padding_split_batches_and_other_orders_of_candidates_change_no_score(model):
    features = event_models.batch()
    scores = model(features).numpy()
    longer = dict(features)
    for key in features:
        if key.startswith(history_key("")):
            more = [[0, 0]] * (features[key].shape.rank - 2)
            longer[key] = tf.pad(features[key], [[0, 0], [0, 3], *more])
    np.testing.assert_allclose(model(longer).numpy(), scores, atol=1e-6)
    parts = [{key: value[i : i + 3] for key, value in features.items()} for i in (0, 3)]
    split = np.concatenate([model(part).numpy() for part in parts])
    np.testing.assert_allclose(split, scores, atol=1e-6)
    turned = {
        key: value[:, ::-1] if key.startswith(candidate_key("")) else value
        for key, value in features.items()
    }
    np.testing.assert_allclose(model(turned).numpy()[:, ::-1], scores, atol=1e-6)


def test_tables_of_events_train_from_the_second_step_and_have_hidden_values():
    run = small_models.config("din", "none", "train.oov_rate=0.5")
    built = event_models.model(run)
    names = (*built.embedder.event_projections, *built.embedder.tables)
    before = {name: built.embedder.tables[name].numpy() for name in ("action", "gap", "tags")}
    for step in range(3):
        built.main_step(event_models.batch(seed=step))
    assert len(set(names)) > 4
    for name, table in before.items():
        assert (built.embedder.tables[name].numpy() != table).any(), name
        assert built.embedder.event_projections[name].numpy().any(), name
    seed = tf.constant([3, 4])
    side, hidden = (built.embedder.user_side(event_models.batch(), seed=s) for s in (None, seed))
    only = built.embedder.user_side(event_models.batch(), seed=seed, items_only=True)
    assert not np.array_equal(side.history_BLJd, hidden.history_BLJd)
    assert not np.array_equal(hidden.history_BLJd, only.history_BLJd)


def test_self_supervised_steps_leave_tables_of_events_alone():
    built = event_models.model(small_models.config("din", "miss"))
    small_models.randomise(built)
    before = [weight.numpy() for weight in (*built.embedder.event_projections.values(),
                                            built.embedder.tables["action"])]  # fmt: skip
    built.ssl_step(event_models.batch())
    after = [*built.embedder.event_projections.values(), built.embedder.tables["action"]]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_seeds_draw_other_tables_of_events():
    first, second = (
        event_models.model(small_models.config("din", "none", f"train.seed={seed}"))
        for seed in (1, 2)
    )
    ours, theirs = (built.embedder.tables["action"].numpy() for built in (first, second))
    assert np.abs(ours).max() <= 0.05
    assert (ours != theirs).all()
