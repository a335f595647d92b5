"""preprocessing.schema: round trips, hashes, and one line for each mistake."""

import copy
import json
import random
import re

import pytest

from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.encoder_specs import Bucketised, Hash, Numeric, Vocabulary
from preprocessing.features.feature import Role
from preprocessing.features.history import Behaviours
from preprocessing.schema import Schema

CONTENT = {
    "features": [
        {
            "name": "user_id",
            "column": "uid",
            "role": "user",
            "dtype": "string",
            "encoder": {"kind": "vocabulary", "min_count": 2, "oov_buckets": 3},
            "description": "who",
        },
        {"name": "age", "role": "user", "dtype": "float32", "encoder": {"kind": "numeric"}},
        {
            "name": "device",
            "role": "context",
            "dtype": "string",
            "encoder": {"kind": "hash", "buckets": 100},
            "default": "unknown",
        },
        {"name": "item_id", "role": "item", "dtype": "int64", "encoder": {"kind": "vocabulary"}},
        {
            "name": "price",
            "role": "item",
            "dtype": "float32",
            "encoder": {"kind": "bucketised", "boundaries": [1.0, 2.5]},
        },
        {"name": "shop", "role": "item", "dtype": "string", "encoder": {"kind": "vocabulary"}},
        {"name": "clicked", "role": "label", "dtype": "int64"},
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ],
    "history": {
        "max_length": 30,
        "features": ["item_id", "shop"],
        "behaviours": {"column": "action", "values": ["buy", 4]},
    },
}


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


def test_reads_every_kind_of_feature(content):
    schema = Schema.from_json(content)
    assert schema["user_id"].encoder == Vocabulary(min_count=2, oov_buckets=3)
    assert schema["age"].encoder == Numeric()
    assert schema["device"].encoder == Hash(buckets=100)
    assert schema["price"].encoder == Bucketised(boundaries=(1.0, 2.5))
    assert schema["clicked"].encoder is None
    assert (schema["user_id"].column, schema["age"].column) == ("uid", "age")
    assert schema["device"].default == "unknown"
    assert schema.history.behaviours == Behaviours(column="action", values=("buy", "4"))


def test_views_by_role(content):
    schema = Schema.from_json(content)

    def names(features):
        return [feature.name for feature in features]

    assert names(schema.user_features) == ["user_id", "age", "device"]
    assert names(schema.item_features) == ["item_id", "shop", "price"]
    assert names(schema.history_features) == ["item_id", "shop"]
    assert names(schema.extra_features) == ["price"]
    assert names(schema.encoded_features) == [
        "user_id",
        "age",
        "device",
        "item_id",
        "shop",
        "price",
    ]
    assert names(schema.with_role(Role.LABEL)) == ["clicked"]
    assert (schema.user_key.name, schema.item_key.name) == ("user_id", "item_id")
    assert schema.timestamp.name == "timestamp"
    with pytest.raises(KeyError):
        schema["nobody"]


def test_categorical_and_pad_values(content):
    schema = Schema.from_json(content)
    assert [f.name for f in schema.features if f.is_categorical] == [
        "user_id",
        "device",
        "item_id",
        "shop",
        "price",
    ]
    assert [schema[name].pad_value for name in ("user_id", "item_id", "price")] == ["", -1, 0.0]


def test_keys_of_examples():
    assert candidate_key("shop") == "candidate/shop"
    assert history_key("shop") == "history/shop"


def test_round_trip_through_json_and_file(content, tmp_path):
    schema = Schema.from_json(content)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    schema.save(tmp_path / "schema.json")
    loaded = Schema.load(tmp_path / "schema.json")
    assert loaded == schema
    assert loaded.hash() == schema.hash()


def test_defaults_spelt_out_are_the_same_schema(content):
    schema = Schema.from_json(content)
    content["features"][1]["column"] = "age"
    content["features"][1]["encoder"]["normalisation"] = "standard"
    assert Schema.from_json(content).hash() == schema.hash()
    del content["history"]
    assert Schema.from_json(content).history.features == ("item_id", "price", "shop")
    assert Schema.from_json(content).history.max_length == 50


@pytest.mark.parametrize("history", [CONTENT["history"], {"max_length": 30}])
def test_the_order_of_the_records_changes_nothing(content, history):
    """Not even the order of the fields of a model, so that equal hashes are equal models."""
    content["history"] = history
    schema = Schema.from_json(content)
    for seed in range(5):
        permuted = copy.deepcopy(content)
        random.Random(seed).shuffle(permuted["features"])
        keys = [("user_id", "age"), ("item_id", "shop"), ("item_id", "price")]
        names = [record["name"] for record in permuted["features"]]
        if any(names.index(key) > names.index(other) for key, other in keys):
            permuted["features"].sort(key=lambda record: not record["name"].endswith("_id"))
        other = Schema.from_json(permuted)
        assert other == schema
        assert other.hash() == schema.hash()
        assert schema.diff(other) == []


@pytest.mark.parametrize("role", ["user", "item"])
def test_which_feature_is_the_key_counts(content, role):
    """The first of its role: another one groups other events, or identifies other items."""
    content["features"] = [
        {"name": f"{role}_{n}", "role": role, "dtype": "int64", "encoder": {"kind": "vocabulary"}}
        for n in (1, 2)
    ] + [record for record in content["features"] if record["role"] != role]
    content["history"] = {}
    schema = Schema.from_json(content)
    content["features"][:2] = content["features"][1::-1]
    other = Schema.from_json(content)
    assert (schema.with_role(role)[0].name, other.with_role(role)[0].name) == (
        f"{role}_1",
        f"{role}_2",
    )
    assert other.hash() != schema.hash()
    assert any(line.startswith("features.order") for line in schema.diff(other))


def test_hash_ignores_descriptions_alone(content):
    schema = Schema.from_json(content)
    content["features"][0]["description"] = "someone else"
    described = Schema.from_json(content)
    assert described.hash() == schema.hash()
    assert schema.diff(described) == []
    schema.require_equal(described, "here", "there")


@pytest.mark.parametrize(
    ("path", "value", "difference"),
    [
        (("features", 0, "column"), "id", "features[user_id].column: 'uid' here, 'id' there"),
        (("features", 2, "default"), "x", "features[device].default: 'unknown' here, 'x' there"),
        (
            ("features", 0, "encoder", "min_count"),
            9,
            "features[user_id].encoder.min_count: 2 here, 9 there",
        ),
        (
            ("features", 6, "positive"),
            "> 1",
            "features[clicked].positive: 'absent' here, '>1' there",
        ),
        (("history", "max_length"), 31, "history.max_length: 30 here, 31 there"),
        (
            ("history", "behaviours", "values"),
            ["buy"],
            "history.behaviours.values: ['buy', '4'] here, ['buy'] there",
        ),
    ],
)
def test_hash_and_diff_tell_every_other_change(content, path, value, difference):
    schema = Schema.from_json(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    other = Schema.from_json(content)
    assert other.hash() != schema.hash()
    assert schema.diff(other) == [difference]
    with pytest.raises(UserError, match=re.escape(f"run and data differ in {difference}")):
        schema.require_equal(other, "run", "data")


def test_diff_tells_missing_features_and_order(content):
    schema = Schema.from_json(content)
    shop = content["features"].pop(5)
    content["features"].insert(3, shop)
    content["history"]["features"] = ["shop"]  # the item key now
    difference = schema.diff(Schema.from_json(content))
    assert [line.split(":")[0] for line in difference] == ["features.order", "history.features"]
    content["features"].pop(1)
    difference = schema.diff(Schema.from_json(content))
    assert "features[age].role: 'user' here, 'absent' there" in difference


def _mistake(path, value):
    def make(content):
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return make


def _drop(*path):
    def make(content):
        place = content
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            _mistake(("features", 0, "columm"), "uid"),
            "s.json: features[0]: unknown key 'columm'. Fix: did you mean 'column'?",
        ),
        (
            _mistake(("features", 0, "zzz"), 1),
            "s.json: features[0]: unknown key 'zzz'. Fix: known keys: column, default,",
        ),
        (
            _mistake(("feature",), []),
            "s.json: unknown key 'feature'. Fix: did you mean 'features'?",
        ),
        (
            _mistake(("history", "maxlength"), 3),
            "s.json: history: unknown key 'maxlength'. Fix: did you mean 'max_length'?",
        ),
        (
            _mistake(("features", 0, "encoder", "min_cuont"), 3),
            "features[0] (user_id): encoder: unknown key 'min_cuont'. Fix: did you mean",
        ),
        (
            _mistake(("features", 0, "role"), "usr"),
            "features[0] (user_id): role: expected one of user, item, context, event, label, "
            "weight, timestamp, request, found 'usr'. Fix: did you mean 'user'?",
        ),
        (
            _mistake(("features", 0, "dtype"), "int46"),
            "expected one of string, int64, float32, datetime, found 'int46'. Fix: did you mean",
        ),
        (
            _mistake(("features", 0, "encoder"), {"kind": "vocabluary"}),
            "encoder: kind: expected one of vocabulary, hash, numeric, bucketised, vector, "
            "found 'vocabluary'. Fix: did you mean 'vocabulary'?",
        ),
        (
            _mistake(("features", 0, "encoder"), "hash"),
            "encoder: expected an object, found str",
        ),
        (
            _mistake(("features", 2, "encoder"), {"kind": "hash"}),
            "features[2] (device): encoder: expected the key 'buckets', found",
        ),
        (
            _mistake(("features", 2, "encoder", "buckets"), 1),
            "buckets: expected an integer of at least 2, found 1",
        ),
        (
            _mistake(("features", 0, "encoder", "oov_buckets"), 0),
            "oov_buckets: expected an integer of at least 1, found 0",
        ),
        (
            _mistake(("features", 0, "encoder", "min_count"), "2"),
            "min_count: expected an integer of at least 1, found '2'",
        ),
        (
            _mistake(("features", 1, "encoder", "normalisation"), "minmax"),
            "normalisation: expected one of none, standard, log_standard, found 'minmax'",
        ),
        (
            _mistake(("features", 4, "encoder", "boundaries"), [2.0, 1.0]),
            "expected 'boundaries' in increasing order",
        ),
        (
            _mistake(("features", 4, "encoder", "quantiles"), 4),
            "expected either 'boundaries' or 'quantiles'",
        ),
        (
            _mistake(("features", 4, "encoder"), {"kind": "bucketised"}),
            "expected either 'boundaries' or 'quantiles'",
        ),
        (
            _mistake(("features", 1, "name"), "user_id"),
            "expected unique feature names, found 'user_id' twice",
        ),
        (
            _mistake(("features", 0, "name"), "user id"),
            "features[0]: expected an identifier as 'name', found 'user id'",
        ),
        (_drop("features"), "expected the key 'features', found history"),
        (_drop("features", 0, "dtype"), "features[0]: expected the key 'dtype', found"),
        (
            _drop("features", 0, "encoder"),
            "(user_id): expected an 'encoder' for role 'user', found none. Fix: for example",
        ),
        (
            _mistake(("features", 7, "encoder"), {"kind": "vocabulary"}),
            "(timestamp): expected no 'encoder' for role 'timestamp', found one",
        ),
        (
            _mistake(("features", 1, "dtype"), "string"),
            "(age): expected a numeric dtype for numeric, found string",
        ),
        (
            _mistake(("features", 5, "dtype"), "float32"),
            "(shop): expected dtype string or int64 for vocabulary, found float32",
        ),
        (
            _mistake(("features", 6, "role"), "timestamp"),
            "expected at most one feature of role 'timestamp', found 2",
        ),
        (
            lambda content: content["features"].reverse(),
            "history: expected the item key 'shop' first, found ['item_id', 'shop']",
        ),
        (
            _mistake(("history", "features"), ["item_id", "age"]),
            "history: expected names of item features (item_id, price, shop), found 'age'",
        ),
        (
            _mistake(("history", "features"), []),
            "history: expected the item key 'item_id' first, found []",
        ),
        (
            _mistake(("history", "max_length"), 0),
            "history: max_length: expected an integer of at least 1, found 0",
        ),
        (
            _drop("history", "behaviours", "values"),
            "history: behaviours: expected the key 'values', found column",
        ),
        (_mistake(("features", 0), "user_id"), "features[0]: expected an object, found str"),
        (_mistake(("history",), 50), "history: expected an object, found int"),
        (_mistake(("features",), 5), "features: expected an array, found 5"),
        (_mistake(("features", 0, "encoder", "kind"), ["x"]), "kind: expected one of"),
        (_mistake(("features", 0, "column"), 3), "column: expected a string, found 3"),
        (_mistake(("features", 0, "default"), 3), "default: expected a value of dtype string"),
        (_mistake(("features", 0, "default"), ""), "expected another value than '', which means"),
        (_mistake(("features", 3, "default"), -1), "expected another value than -1, which means"),
        (_mistake(("features", 0, "name"), "label"), "expected a name other than timestamp"),
        (_mistake(("features", 4, "encoder", "boundaries"), "12"), "expected an array, found '12'"),
        (_mistake(("features", 4, "encoder", "boundaries"), ["a"]), "expected numbers, found 'a'"),
        (
            _mistake(("features", 4, "encoder"), {"kind": "bucketised", "quantiles": -2}),
            "quantiles: expected an integer of at least 0, found -2",
        ),
        (
            _mistake(("features", 6, "positive"), 4),
            "features[6] (clicked): positive: expected >=, >, <=, < or == and a number, found 4",
        ),
        (
            _mistake(("features", 7, "positive"), ">=4"),
            "expected 'positive' for the role 'label' and dtype int64 or float32 only, found it "
            "for the role 'timestamp' and dtype int64",
        ),
        (
            _mistake(
                ("features", 6),
                {"name": "clicked", "role": "label", "dtype": "string", "positive": ">=4"},
            ),
            "found it for the role 'label' and dtype string",
        ),
        (
            _mistake(("features", 6, "default"), 0),
            "features[6] (clicked): expected no 'default' for role 'label', found one",
        ),
        (
            _mistake(("features", 7, "default"), 0),
            "features[7] (timestamp): expected no 'default' for role 'timestamp', found one",
        ),
        (_mistake(("history", "features"), 5), "history: features: expected an array, found 5"),
        (
            _mistake(("history", "features"), ["item_id", "item_id"]),
            "expected each feature once, found 'item_id' twice",
        ),
        (
            _mistake(("history", "max_length"), True),
            "expected an integer of at least 1, found True",
        ),
        (
            _mistake(("history", "behaviours", "values"), "buy"),
            "values: expected an array, found 'buy'",
        ),
    ],
)
def test_each_mistake_is_one_line_that_says_where(content, make, message):
    make(content)
    with pytest.raises(UserError) as caught:
        Schema.from_json(content, "s.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("s.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("role", "other"), [("user", "context"), ("item", "context")])
def test_a_user_and_an_item_are_needed(content, role, other):
    for record in content["features"]:
        if record["role"] == role:
            record["role"] = other
    content.pop("history")
    with pytest.raises(UserError, match=f"at least one feature of role '{role}', found 0"):
        Schema.from_json(content)


@pytest.mark.parametrize("key", ["user_id", "item_id"])
def test_keys_are_categorical(content, key):
    for record in content["features"]:
        if record["name"] == key:
            record.update(dtype="float32", encoder={"kind": "numeric"})
    with pytest.raises(UserError, match=f"categorical encoder for the key '{key}'"):
        Schema.from_json(content)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="Expected a schema in .*, found no such file"):
        Schema.load(tmp_path / "schema.json")
    (tmp_path / "schema.json").write_text("{'features': []}")
    with pytest.raises(UserError, match="Expected a schema in .*schema.json, found a syntax error"):
        Schema.load(tmp_path / "schema.json")
    (tmp_path / "schema.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="Expected a schema in .*found a syntax error"):
        Schema.load(tmp_path / "schema.json")
    (tmp_path / "schema.json").write_text("[]")
    with pytest.raises(UserError, match="a JSON object, found list"):
        Schema.load(tmp_path / "schema.json")
