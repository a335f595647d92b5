"""Warm starts between other features: every entry of a weight goes with its feature."""

import numpy as np
import pyarrow as pa
import pytest

from models import registry
from models.backbone_api import Backbone, ModelConfig, pair_fields
from models.config import run_config
from models.core.base import CTRModel
from models.core.embeddings import FeatureEmbedder
from models.core.factory import build_sized
from models.keras import tf
from models.layers.mlp import MLP
from models.ops.weight_layouts import Block, Layout, distinct_pairs, hidden, places, products
from models.training.warm_start import take_over
from preprocessing.encoders import fitting
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import Role
from preprocessing.schema import Schema
from tests.helpers import small_models

D = 4
LENGTH, REQUESTS, CANDIDATES = 5, 6, 3
VOCABULARY = {"kind": "vocabulary"}
KINDS = {
    "user_id": ("user", VOCABULARY),
    "age": ("user", {"kind": "numeric"}),
    "account": ("user", VOCABULARY),
    "hour": ("context", {"kind": "hash", "buckets": 5}),
    "item_id": ("item", VOCABULARY),
    "category_id": ("item", VOCABULARY),
    "brand": ("item", VOCABULARY),
    "colour": ("item", VOCABULARY),
    "price": ("item", {"kind": "bucketised", "boundaries": [1.0, 2.0]}),
    "size": ("item", VOCABULARY),
}
USER, ITEMS = ("user_id", "age", "hour"), ("item_id", "category_id", "brand")
BEFORE = (*USER, *ITEMS, "price")


def _schema(names, history=ITEMS, **kinds):
    features = []
    for name in names:
        role, encoder = (KINDS | kinds)[name]
        dtype = "float32" if encoder["kind"] in ("numeric", "bucketised") else "string"
        features.append({"name": name, "role": role, "dtype": dtype, "encoder": encoder})
    return Schema.from_json(
        {"features": features, "history": {"max_length": LENGTH, "features": list(history)}}
    )


def _fitted(schema):
    values = {"string": pa.array([f"v{i}" for i in range(6)]), "float32": pa.array([0.5, 1.5, 4.0])}
    return {
        feature.name: fitting.fit(
            feature, values[feature.dtype.value], np.ones(len(values[feature.dtype.value]), int)
        )
        for feature in schema.encoded_features
    }


def _batch(*schemas):
    """Requests with the features of all schemas; the first history is empty."""
    rng = np.random.default_rng(5)
    lengths = np.append(0, rng.integers(1, LENGTH + 1, REQUESTS - 1))
    events = np.arange(LENGTH) < lengths[:, None]
    features = {}
    for schema in schemas:
        for feature in schema.encoded_features:
            keys = {feature.name: ()}
            if feature.role is Role.ITEM:
                name = feature.name
                keys = {candidate_key(name): (CANDIDATES,), history_key(name): (LENGTH,)}
            for key, shape in keys.items():
                if key in features:
                    continue
                values = rng.integers(1, 4, (REQUESTS, *shape))
                if not feature.is_categorical:
                    values = rng.normal(size=(REQUESTS, *shape)).astype(np.float32)
                features[key] = tf.constant(values * events if "history" in key else values)
    return features


def _settings(name):
    """Small ones, with parts that the defaults leave out."""
    settings = {"name": name}
    if name != "lr":
        settings["embedding_size"] = D
    if hasattr(registry.load_model_class(name)[0].Config, "interests"):
        settings["interests"] = 2
    return settings | {"sim": {"heads": 2}, "dmin": {"auxiliary_weight": 0.1}}.get(name, {})


def _build(name, schema, precision="float32", ssl="none", **settings):
    """A new model."""
    content = {
        "model": _settings(name) | settings,
        "ssl": {"name": ssl},
        "train": {"oov_rate": 0.0},
    }
    cardinalities = {key: encoder.cardinality for key, encoder in _fitted(schema).items()}
    return build_sized(run_config.resolve(content), schema, cardinalities, precision)


def _trained(model, seed=1):
    """The model with other weights, all of them random, statistics of normalisations included."""
    small_models.randomise(model, seed)
    rng = np.random.default_rng(seed)
    for weight in model.backbone.non_trainable_weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def _take_over(source, model):
    """The lines of a warm start; then rows of features that the source lacks are 0."""
    lines = take_over(source, _fitted(source.schema), model, _fitted(model.schema))
    known = {feature.name for feature in source.schema.encoded_features}
    for name, table in (model.embedder.tables | model.embedder.vectors).items():
        if name not in known:
            table.assign(tf.zeros_like(table))
    return lines


def _names():
    """Every name; those of classes that have come before are left to `make test-slow`."""
    seen = set()
    for name in registry.MODELS:
        model_class, _ = registry.load_model_class(name)
        yield pytest.param(name, marks=[pytest.mark.slow] if model_class in seen else [])
        seen.add(model_class)


def _new(name, has_new_features):
    """What the report says of new weights: DemiNet counts the batches of its statistics anew."""
    is_counted_anew = has_new_features and name.startswith("deminet")
    return ", 1 new (experts.normalize.seen_batches)" if is_counted_anew else ", 0 new"


@pytest.mark.parametrize("name", _names())
def test_scores_of_every_model_survive_new_features_among_the_old_and_another_order(name):
    """New features enter with embeddings of 0, on both sides, and leave again."""
    # These let the fields attend to each other, and so to the new ones.
    added = () if name in ("autoint", "fignn") else ("account", "colour")
    before = _schema(BEFORE)
    after = _schema((*BEFORE, *added), history=("item_id", "brand", "category_id"))
    source, model = _trained(_build(name, before)), _build(name, after)
    features = _batch(before, after)
    scores = source(features).numpy()
    assert np.abs(model(features) - scores).max() > 0.1
    lines = _take_over(source, model)
    np.testing.assert_allclose(model(features), scores, rtol=1e-5, atol=1e-5)
    assert _new(name, bool(added)) in lines[-1]
    assert ("in part (new rows for account, colour)" in lines[-1]) == (
        bool(added) and name not in ("lr", "fm")
    )
    # And back: nothing of the features in common was lost.
    _trained(source, seed=3)
    assert np.abs(source(features) - scores).max() > 0.1
    lines = _take_over(model, source)
    np.testing.assert_allclose(source(features), scores, rtol=1e-5, atol=1e-5)
    assert "in part" not in lines[-1]
    assert ", 0 new" in lines[-1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "dien" else [pytest.mark.slow])
        for name in registry.MODELS
    ],
)
def test_every_weight_is_taken_over_where_events_get_wider(name):
    """Hidden layers of the width of an event grow: their units are those of before, then more."""
    before = _schema(BEFORE)
    after = _schema((*BEFORE, "size"), history=("item_id", "size", "category_id", "brand"))
    source, model = _trained(_build(name, before)), _build(name, after)
    kept = [np.array(weight) for weight in source.weights]
    assert _new(name, has_new_features=True) in _take_over(source, model)[-1]
    _trained(source, seed=3)
    lines = _take_over(model, source)
    assert "in part" not in lines[-1]
    assert "size: left behind, the new data set does not have it" in lines
    for weight, value in zip(source.weights, kept, strict=True):
        if "seen_batches" not in weight.name:  # Counted anew, see `_new`.
            np.testing.assert_array_equal(weight, value, err_msg=weight.name)


@pytest.fixture(scope="module")
def din():
    """A trained DIN of the features `BEFORE`; its weights and how many they are are known.

    22: 4 and 2 and 2 of the attention's dense layers, 8 of its two Dice, 8 of the network. One more
    is the vector of the age.
    """
    return _trained(_build("din", _schema(BEFORE)))


def _network(model):
    """Rows of the first kernel of the network, a block for each field."""
    return np.array(model.backbone.dnn.stack[0].kernel).reshape(-1, D, 40)


def test_blocks_of_new_features_are_those_of_a_new_run(din):
    after = _schema((*BEFORE, "account", "colour"))
    model = _build("din", after)
    initial = _network(model).copy()
    lines = take_over(din, _fitted(din.schema), model, _fitted(after))
    assert lines[-1] == (
        "23 other weights taken over, 1 of them in part (new rows for account, colour), 0 new"
    )
    assert "account: all rows are new: the run does not have it" in lines
    assert "user_id: 8 rows taken over, 0 new, 0 of the run left behind" in lines
    # user_id account age hour, item category brand, colour price, item category brand
    places_before = [0, None, 1, 2, 3, 4, 5, None, 6, 7, 8, 9]
    for place, before in enumerate(places_before):
        expected = initial[place] if before is None else _network(din)[before]
        np.testing.assert_array_equal(_network(model)[place], expected)


def test_blocks_of_features_that_are_gone_are_left_behind(din):
    after = _schema(("user_id", "age", *ITEMS))
    model = _build("din", after)
    lines = take_over(din, _fitted(din.schema), model, _fitted(after))
    assert lines[-1] == (
        "23 other weights taken over, 0 new; rows for hour, price left behind in 1"
    )
    for name in ("hour", "price"):
        assert f"{name}: left behind, the new data set does not have it" in lines
    # user_id age, item category brand, item category brand; without hour and price
    kept = _network(din)[[0, 1, 3, 4, 5, 7, 8, 9]]
    np.testing.assert_array_equal(_network(model), kept)


def test_another_feature_in_the_same_place_is_new(din):
    """Of another name, or of the same name and another kind."""
    bucketised = {"kind": "bucketised", "boundaries": [20.0, 40.0]}
    after = _schema(
        ("user_id", "age", "hour", *ITEMS, "size"),
        age=("user", bucketised),
        hour=("user", KINDS["hour"][1]),
    )
    model = _build("din", after)
    initial = _network(model).copy()
    lines = take_over(din, _fitted(din.schema), model, _fitted(after))
    assert lines[-1] == (
        "22 other weights taken over, 1 of them in part (new rows for age, hour, size), 0 new; "
        "rows for age, hour, price left behind in 1"
    )
    for line in (
        "age: all rows are new: it is user, bucketised of float32 here, user, numeric of standard "
        "there",
        "hour: all rows are new: it is user, hash of string here, context, hash of string there",
        "size: all rows are new: the run does not have it",
        "price: left behind, the new data set does not have it",
    ):
        assert line in lines
    for place, is_new in enumerate([False, True, True, *[False] * 3, True, *[False] * 3]):
        expected = initial[place] if is_new else _network(din)[place]
        np.testing.assert_array_equal(_network(model)[place], expected)
    # A number that is scaled in another way is another one.
    scaled = _schema(BEFORE, age=("user", {"kind": "numeric", "normalisation": "none"}))
    model = _build("din", scaled)
    lines = take_over(din, _fitted(din.schema), model, _fitted(scaled))
    assert lines[-1].startswith("22 other weights taken over, 1 of them in part")
    assert ", 1 new (vector of age)" in lines[-1]
    assert any(line.startswith("age: its vector is new: it is user, numeric") for line in lines)


def test_another_order_of_the_history_is_said(din):
    after = _schema(BEFORE, history=("item_id", "brand", "category_id"))
    lines = take_over(din, _fitted(din.schema), _build("din", after), _fitted(after))
    assert lines[-2:] == [
        "history.features is item_id, brand, category_id here, item_id, category_id, brand there: "
        "weights go with their features",
        "23 other weights taken over, 0 new",
    ]


def test_weights_of_half_precision_models_are_matched_as_well(din):
    after = _schema((*BEFORE, "account"), history=("item_id", "brand", "category_id"))
    whole, half = _build("din", after), _build("din", after, precision="mixed_bfloat16")
    lines = [take_over(din, _fitted(din.schema), m, _fitted(after)) for m in (whole, half)]
    assert lines[0] == lines[1]
    for ours, theirs in zip(half.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "ssl",
    [
        pytest.param(name, marks=[] if name == "miss" else [pytest.mark.slow])
        for name in registry.SSL
    ],
)
def test_self_supervision_begins_anew_and_changes_no_score(din, ssl):
    after = _schema(BEFORE, history=("item_id", "brand", "category_id"))
    model = _build("din", after, ssl=ssl)
    initial = [np.array(weight) for weight in model.ssl.weights]
    lines = _take_over(din, model)
    assert lines[-1] == f"{len(initial)} weights of self-supervision begin anew"
    for weight, value in zip(model.ssl.weights, initial, strict=True):
        np.testing.assert_array_equal(weight, value)
    features = _batch(after)
    np.testing.assert_allclose(model(features), din(features), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_items_told_by_another_key_have_new_rows():
    """Also in tables of the model itself, which are rows of items."""
    schema = _schema(BEFORE)
    other = _schema(("user_id", "category_id", "item_id", "brand"), ("category_id", "item_id"))
    source, model = _trained(_build("dmr", schema)), _build("dmr", other)
    initial = np.array(model.backbone.item_vectors)
    lines = take_over(source, _fitted(schema), model, _fitted(other))
    assert "item_vectors: all rows are new: items are told by item_id there" in lines
    np.testing.assert_array_equal(model.backbone.item_vectors, initial)
    assert "item_id: 8 rows taken over, 0 new, 0 of the run left behind" in lines


class _Undeclared(Backbone):
    """A model from elsewhere, without `layouts`."""

    def __init__(self, config, dims):
        super().__init__(name="undeclared")
        self.dnn = MLP((3, 1))

    def encode_user(self, user, *, training=False, seed=None):
        return {"fields_BFd": user.fields_BFd}

    def score(self, state, candidates, *, training=False):
        return self.dnn(pair_fields(state["fields_BFd"], candidates))[..., 0]


class _Grown(_Undeclared):
    """It has a weight that faces features, of which it says nothing."""

    def __init__(self, config, dims):
        super().__init__(config, dims)
        self.gate = self.add_weight(name="gate", shape=(dims.user_fields,), initializer="ones")

    def layouts(self, fields):
        yield from self.dnn.layouts(fields.pair)


class _Misdeclared(_Undeclared):
    """Its network reads another concatenation than it says."""

    def layouts(self, fields):
        yield from self.dnn.layouts(fields.pair + fields.history)


def _build_other(backbone_class, schema, seed):
    sizes = {key: encoder.cardinality for key, encoder in _fitted(schema).items()}
    embedder = FeatureEmbedder(schema, sizes, D)
    model = CTRModel(schema, embedder, backbone_class(ModelConfig(), embedder.dims))
    model(_batch(schema))
    small_models.randomise(model, seed)
    return model


def test_a_model_that_does_not_say_what_its_weights_face_gets_new_ones_with_a_warning():
    """Unless features and order are the same. A replaced feature changes no shape."""
    before, after = _schema(BEFORE), _schema((*USER, *ITEMS, "size"))
    source = _build_other(_Undeclared, before, seed=1)
    model = _build_other(_Undeclared, after, seed=2)
    initial = [np.array(weight) for weight in model.backbone.weights]
    lines = take_over(source, _fitted(before), model, _fitted(after))
    assert lines[-2] == (
        "WARNING: _Undeclared does not say which feature the entries of dnn.stack.0.kernel, "
        "dnn.stack.0.bias, dnn.stack.1.kernel, dnn.stack.1.bias belong to, and the features differ "
        "(new: size; gone: price): these begin anew. Fix: its method layouts should yield them, "
        "see docs/extending.md."
    )
    assert lines[-1].startswith("1 other weights taken over, 4 new (dnn.stack.0.kernel, ")
    for weight, value in zip(model.backbone.weights, initial, strict=True):
        np.testing.assert_array_equal(weight, value)
    same = _build_other(_Undeclared, before, seed=3)
    lines = take_over(source, _fitted(before), same, _fitted(before))
    assert lines[-1] == "5 other weights taken over, 0 new"
    np.testing.assert_array_equal(same(_batch(before)), source(_batch(before)))


def test_a_single_weight_of_which_nothing_is_said_begins_anew():
    before, after = _schema(BEFORE), _schema(("user_id", "account", *BEFORE[2:]))
    source = _build_other(_Grown, before, seed=1)
    model = _build_other(_Grown, after, seed=2)
    initial = np.array(model.backbone.gate)
    lines = take_over(source, _fitted(before), model, _fitted(after))
    assert "_Grown does not say which feature the entries of gate belong to" in lines[-2]
    assert lines[-1] == (
        "4 other weights taken over, 1 of them in part (new rows for account), 1 new (gate); rows "
        "for age left behind in 1"
    )
    np.testing.assert_array_equal(model.backbone.gate, initial)


def test_layouts_that_do_not_fit_are_refused():
    models = [
        _build_other(_Misdeclared, _schema(names), seed=1)
        for names in (BEFORE, (*BEFORE, "account"))
    ]
    before, after = (_fitted(model.schema) for model in models)
    with pytest.raises(UserError, match=r"layouts of dnn.stack.0.kernel that fit its 32 entries"):
        take_over(models[0], before, models[1], after)


@pytest.mark.slow
def test_heads_that_are_slices_of_events_go_with_their_features():
    """A head that spans parts of two features means nothing among others, and begins anew."""
    before = _schema(BEFORE)
    after = _schema(BEFORE, history=("item_id", "brand", "category_id"))
    features = _batch(before)
    for heads, new in ((3, 0), (6, 0), (4, 4)):
        settings = {"head_mode": "slice", "heads": heads, "depth": 1}
        source = _trained(_build("deminet", before, **settings))
        model = _build("deminet", after, **settings)
        lines = _take_over(source, model)
        if new:
            assert f"{new} of them in part" in lines[-1]
        else:
            assert lines[-1].endswith("other weights taken over, 0 new")
            np.testing.assert_allclose(model(features), source(features), rtol=1e-5, atol=1e-5)


def _layout(*blocks):
    return Layout(tuple(Block(label, width) for label, width in blocks))


def test_places_follow_labels_and_their_number():
    before = _layout(("a", 2), ("b", 1), ("a", 2), ("gone", 1))
    after = _layout(("new", 1), ("b", 2), ("a", 2), ("a", 1))
    #                                          new  b      a     a
    assert places(before, after).tolist() == [-1, 2, -1, 0, 1, 3]
    # Three gates of two units, then of three.
    assert places(hidden(2, 3), hidden(3, 3)).tolist() == [0, 1, -1, 2, 3, -1, 4, 5, -1]
    assert (before * 2).size == 12
    assert places(_layout(("a", 0)), _layout(("a", 0))).tolist() == []


def test_pairs_of_fields_follow_both_fields():
    before, after = "xyz", "zwyx"
    old, new = (_layout(*((label, 5) for label in labels)) for labels in (before, after))
    pairs = [a + b for i, a in enumerate(before) for b in before[i + 1 :]]
    expected = []
    for i, a in enumerate(after):
        for b in after[i + 1 :]:
            found = [n for n, pair in enumerate(pairs) if pair in (a + b, b + a)]
            expected.append(found[0] if found else -1)
    assert places(distinct_pairs(old), distinct_pairs(new)).tolist() == expected
    ordered = [a + b for a in before for b in before]
    expected = [ordered.index(a + b) if a + b in ordered else -1 for a in after for b in after]
    assert places(products(old, old), products(new, new)).tolist() == expected


def test_slices_are_the_same_if_they_hold_the_same():
    old, new = _layout(("x", 4), ("y", 4)), _layout(("y", 4), ("x", 4))
    assert places(old.equal_slices(4), new.equal_slices(4)).tolist() == [2, 3, 0, 1]
    three = _layout(("x", 4), ("y", 4), ("z", 4)), _layout(("x", 4), ("z", 4), ("y", 4))
    assert places(three[0].equal_slices(4), three[1].equal_slices(4)).tolist() == [0, -1, -1, -1]
