import numpy as np
import pytest

from models.backbone_api import Backbone
from models.core import run_directory
from models.keras import tf
from preprocessing.errors import UserError
from preprocessing.example_keys import history_key
from preprocessing.schema import Schema
from serving.exporting import raw_requests, signatures
from serving.exporting.signatures import ServingModule
from tests.helpers import toy_runs

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def batch(toy_data):
    """All test requests at once: histories of 0 to `MAX_LENGTH` events, ragged candidates."""
    return next(raw_requests.batches(toy_data, "test", 64))


def scores(servable, raw):
    return servable.predict("serving_default", raw)["scores"]


def histories(raw):
    return [name for name in raw if name.startswith("history_")]


def pad_of(name):
    return toy_runs.SCHEMA[name.partition("_")[2]].pad_value


def padded(raw, names, before, after):
    """The inputs with columns of padding around them."""
    changed = dict(raw)
    for name in names:
        pad = pad_of(name)
        value = pad.encode() if isinstance(pad, str) else pad
        changed[name] = np.pad(
            raw[name], [(0, 0), (before, after)], constant_values=np.array(value, raw[name].dtype)
        )
    return changed


def test_inputs_follow_from_the_schema(toy_servable):
    assert toy_servable.input_types("serving_default") == {
        "user_id": "string",
        "age": "float",
        "hour": "int64",
        "history_item_id": "string",
        "history_category_id": "int64",
        "candidate_item_id": "string",
        "candidate_category_id": "int64",
        "candidate_price": "float",
    }
    assert toy_servable.input_types("explain") == toy_servable.input_types("serving_default")
    assert toy_servable.input_types("serialized") == {"examples": "string"}
    assert toy_servable.output_types("serving_default") == {"scores": "float"}
    assert toy_servable.output_types("serialized") == {"scores": "float"}


def test_serialized_gives_the_same_scores(toy_servable, batch):
    found = toy_servable.predict("serialized", {"examples": batch.examples})["scores"]
    np.testing.assert_allclose(found, scores(toy_servable, batch.raw), atol=TOLERANCE)


def test_scores_differ_between_requests_and_candidates(toy_servable, batch):
    found = scores(toy_servable, batch.raw)
    valid = found[found > 0]
    assert found.dtype == np.float32
    assert len(np.unique(valid.round(4))) > 0.9 * len(valid)


@pytest.mark.parametrize(("before", "after"), [(0, 3), (2, 0), (4, 9)])
def test_padding_around_a_history_changes_nothing(toy_servable, batch, before, after):
    changed = padded(batch.raw, histories(batch.raw), before, after)
    expected = scores(toy_servable, batch.raw)
    np.testing.assert_allclose(scores(toy_servable, changed), expected, atol=TOLERANCE)


def test_padding_between_events_changes_nothing(toy_servable, batch):
    changed = dict(batch.raw)
    for name in histories(batch.raw):
        spread = padded({name: np.repeat(batch.raw[name], 2, axis=1)}, [name], 0, 0)[name]
        spread[:, 1::2] = pad_of(name).encode() if isinstance(pad_of(name), str) else pad_of(name)
        changed[name] = spread
    expected = scores(toy_servable, batch.raw)
    np.testing.assert_allclose(scores(toy_servable, changed), expected, atol=TOLERANCE)


def test_only_the_most_recent_events_count(toy_servable, batch):
    changed = dict(batch.raw)
    for name in histories(batch.raw):
        # Older events in front, of which full histories must see nothing.
        changed[name] = np.concatenate([batch.raw[name][:, :3], batch.raw[name]], axis=1)
    full = (batch.features["history/item_id"].numpy() != 0).sum(axis=1) == toy_runs.MAX_LENGTH
    assert full.any()
    found, expected = scores(toy_servable, changed), scores(toy_servable, batch.raw)
    np.testing.assert_allclose(found[full], expected[full], atol=TOLERANCE)
    assert np.abs(found - expected).max() > 1e-3


def test_padded_candidates_score_zero_and_disturb_nobody(toy_servable, batch):
    names = [name for name in batch.raw if name.startswith("candidate_")]
    expected = scores(toy_servable, batch.raw)
    found = scores(toy_servable, padded(batch.raw, names, 1, 2))
    np.testing.assert_allclose(found[:, 1:-2], expected, atol=TOLERANCE)
    assert (found[:, [0, -2, -1]] == 0).all()
    is_pad = batch.raw["candidate_item_id"] == b""
    assert is_pad.any()
    assert ((expected == 0) == is_pad).all()


def test_requests_of_a_batch_do_not_see_each_other(toy_servable, batch):
    expected = scores(toy_servable, batch.raw)
    for i in range(len(batch.examples)):
        alone = {name: value[i : i + 1] for name, value in batch.raw.items()}
        np.testing.assert_allclose(scores(toy_servable, alone)[0], expected[i], atol=TOLERANCE)


def test_history_of_no_columns(toy_servable, batch):
    empty = {name: batch.raw[name][:, :0] for name in histories(batch.raw)}
    blank = {name: padded({name: batch.raw[name][:, :0]}, [name], 0, 4)[name] for name in empty}
    found = scores(toy_servable, batch.raw | empty)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, scores(toy_servable, batch.raw | blank), atol=TOLERANCE)


def test_empty_batch(toy_servable, batch):
    nobody = {name: value[:0] for name, value in batch.raw.items()}
    assert scores(toy_servable, nobody).shape == (0, 5)


def test_explanation(toy_servable, batch, toy_data):
    found = toy_servable.predict("explain", batch.raw)
    np.testing.assert_allclose(found["scores"], scores(toy_servable, batch.raw), atol=TOLERANCE)
    requests, candidates = batch.raw["candidate_item_id"].shape
    lengths = (batch.features["history/item_id"].numpy() != 0).sum(axis=1)
    assert found["confidence"].shape[:2] == (requests, candidates)
    np.testing.assert_allclose(found["confidence"].sum(-1), 1.0, atol=1e-5)
    assert found["attention"].shape == (*found["confidence"].shape, lengths.max())
    beyond = np.arange(lengths.max()) >= lengths[:, None]
    by_step = found["attention"].transpose(0, 3, 1, 2)
    assert (by_step[beyond] == 0).all()
    assert (by_step[~beyond] != 0).any()

    expected = np.zeros(requests, np.int64)
    for key, ids in batch.features.items():
        name = key.rpartition("/")[2]
        num_oov = toy_data.encoders[name].num_oov if name in toy_data.encoders else 0
        ids = ids.numpy().reshape(requests, -1)
        if num_oov:
            expected += ((ids > 0) & (ids <= num_oov)).sum(axis=1)
    assert expected.max() > 1
    np.testing.assert_array_equal(found["unknown_ids"], expected)


def test_attention_belongs_to_the_steps_as_sent(toy_servable, batch):
    """Padding before, between and behind events, and events too old for the model."""
    plain = toy_servable.predict("explain", batch.raw)["attention"]
    full = (batch.features["history/item_id"].numpy() != 0).sum(axis=1) == toy_runs.MAX_LENGTH
    assert full.any()
    changed, old = dict(batch.raw), 2
    for name in histories(batch.raw):
        values = np.concatenate([batch.raw[name][:, :old], batch.raw[name]], axis=1)
        spread = np.full([len(values), 2 * values.shape[1] + 3], pad_of(name), values.dtype)
        if isinstance(pad_of(name), str):
            spread[:] = pad_of(name).encode()
        spread[:, 1:-3:2] = values
        changed[name] = spread
    found = toy_servable.predict("explain", changed)["attention"][full]
    steps = 1 + 2 * np.arange(old + toy_runs.MAX_LENGTH)
    assert found.shape[-1] == 2 * len(steps) + 3
    assert (found[..., steps[:old]] == 0).all()
    np.testing.assert_allclose(found[..., steps[old:]], plain[full], atol=TOLERANCE)
    rest = np.setdiff1d(np.arange(found.shape[-1]), steps)
    assert (found[..., rest] == 0).all()


def test_attention_over_no_steps(toy_servable, batch):
    empty = {name: batch.raw[name][:, :0] for name in histories(batch.raw)}
    found = toy_servable.predict("explain", batch.raw | empty)
    assert found["attention"].shape == (*found["confidence"].shape, 0)


def test_unknown_values_are_scored_and_counted(toy_servable, batch):
    one = {name: value[:1] for name, value in batch.raw.items()}
    before = toy_servable.predict("explain", one)["unknown_ids"][0]
    known = np.array([[b"item 1 \xc3\xa9"]], object)
    unknown = np.array([[b"never seen"]], object)
    category = np.array([[2]])
    for items, count in ((known, 0), (unknown, 1)):
        request = one | {"history_item_id": items, "history_category_id": category}
        found = toy_servable.predict("explain", request)
        assert np.isfinite(found["scores"]).all()
        assert found["unknown_ids"][0] == before + count


def compacted_slowly(rows, max_length):
    """Row by row: drop padding, keep the end, pad on the right."""
    kept = [[pair for pair in row if pair[0] != 0][-max_length:] for row in rows]
    width = max(1, *map(len, kept))
    return np.array([row + [(0, 0)] * (width - len(row)) for row in kept])


@pytest.mark.parametrize("seed", range(5))
def test_compact_history_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 3, [7, 11]) * rng.integers(1, 50, [7, 11])
    categories = rng.integers(1, 9, [7, 11])
    features = {
        history_key("item_id"): tf.constant(items),
        history_key("category_id"): tf.constant(categories),
        "user_id": tf.range(7),
    }
    found = signatures.compact_history(toy_runs.SCHEMA, features)
    rows = [list(zip(*row, strict=True)) for row in zip(items, categories, strict=True)]
    expected = compacted_slowly(rows, toy_runs.MAX_LENGTH)
    np.testing.assert_array_equal(found[history_key("item_id")], expected[..., 0])
    np.testing.assert_array_equal(found[history_key("category_id")], expected[..., 1])
    slots = signatures.history_slots(toy_runs.SCHEMA, features).numpy()
    for row, (events, placed) in enumerate(zip(items, slots, strict=True)):
        kept = placed >= 0
        assert placed[kept].tolist() == list(range(np.count_nonzero(expected[row, :, 0])))
        np.testing.assert_array_equal(expected[row, placed[kept], 0], events[kept])
    assert found["user_id"] is features["user_id"]


def test_names_that_collide_are_refused():
    content = toy_runs.SCHEMA.to_json()
    content["features"][1]["name"] = "history_item_id"
    with pytest.raises(UserError, match="'history_item_id' twice"):
        signatures.raw_inputs(Schema.from_json(content))


def test_model_that_cannot_explain_has_no_such_signature(toy_run, toy_data):
    class Mute(Backbone):
        def encode_user(self, user, *, training=False, seed=None):
            return {}

        def score(self, state, candidates, *, training=False):
            return tf.reduce_sum(candidates.target_BND, -1)

    model = run_directory.load_model(toy_run)
    model.backbone = Mute()
    assert set(ServingModule(model, toy_data).signatures) == {"serving_default", "serialized"}
