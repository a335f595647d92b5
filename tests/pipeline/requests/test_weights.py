"""Weights of samples, from the log to the loss and the metrics."""

import dataclasses
import json

import numpy as np
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.core.factory import compile_model
from models.evaluation import dumped_scores, scoring
from pipeline import audit
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing import dataset
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL_WEIGHT
from serving.exporting import signatures
from tests.helpers import impression_logs, small_logs
from tests.helpers.small_data_sets import read_examples, shard_bytes

_VOCABULARY = {"kind": "vocabulary"}


def _weight(user, item, time):
    """The weight of an event; that of item 1 is unknown."""
    return None if item == "i1" else (int(user[1:]) + time) % 7 / 2


def _schema(*further, **weight):
    return {
        "features": [
            {"name": "user_id", "role": "user", "dtype": "string", "encoder": _VOCABULARY},
            {"name": "item_id", "role": "item", "dtype": "string", "encoder": _VOCABULARY},
            {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
            {"name": "watched", "role": "weight", "dtype": "float32", "column": "dwell", **weight},
            *further,
        ],
        "history": {"max_length": 5},
    }


def _build(tmp_path, log, schema, name="log.csv", **arguments):
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    return build_examples(
        BuildArguments(
            input=small_logs.write_log(tmp_path / name, log),
            output=str(tmp_path / f"data-{name}"),
            schema=str(tmp_path / "schema.json"),
            num_shards=2,
            **arguments,
        )
    )


def _clicks():
    events = small_logs.random_events()
    log = small_logs.columns(events)
    del log["category_id"]
    return events, log | {"dwell": [_weight(*event) for event in events]}


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    path = tmp_path_factory.mktemp("clicks")
    return _build(path, _clicks()[1], _schema(default=1.5), negatives=2)


def test_positives_have_the_weight_of_their_event_and_negatives_weigh_one(clicks):
    weight_of = {event: _weight(*event) for event in _clicks()[0]}
    items, users = clicks.encoders["item_id"], clicks.encoders["user_id"]
    num_positives = 0
    for split in ("train", "validation", "test"):
        for example in read_examples(clicks, split).values():
            assert len(example[LABEL_WEIGHT]) == 3
            place = example["label"].index(1)
            item = items.decode(np.array([example["candidate/item_id"][place]]))[0]
            user = users.decode(np.array(example["user_id"]))[0]
            if (user, item, example["timestamp"][0]) in weight_of:  # None that is unknown.
                weight = weight_of[user, item, example["timestamp"][0]]
                assert example[LABEL_WEIGHT][place] == (1.5 if weight is None else weight)
                num_positives += 1
            assert sum(example[LABEL_WEIGHT]) - example[LABEL_WEIGHT][place] == 2
    assert num_positives > 30


def test_every_format_gives_the_same_bytes(clicks, tmp_path):
    for name in ("log.jsonl", "log.parquet"):
        data = _build(tmp_path, _clicks()[1], _schema(default=1.5), name, negatives=2)
        assert shard_bytes(data.path) == shard_bytes(clicks.path)


def test_without_weights_there_is_no_key(tmp_path):
    schema = _schema()
    schema["features"] = [f for f in schema["features"] if f["role"] != "weight"]
    data = _build(tmp_path, _clicks()[1], schema)
    assert all(LABEL_WEIGHT not in example for example in read_examples(data, "train").values())
    batch = next(iter(dataset.read(data, "train", batch_size=8, shuffle_seed=None)))
    assert LABEL_WEIGHT not in batch


@pytest.mark.parametrize("shown", [True, False])
def test_candidates_of_impression_logs_have_the_weight_of_their_row(tmp_path, shown):
    """With request ids and without."""
    rows = impression_logs.rows_of_impressions()
    log = impression_logs.columns(rows)
    log["dwell"] = [0.25 * place for place in range(len(rows))]
    further = [{"name": "click", "role": "label", "dtype": "int64"}]
    further += [{"name": "session", "role": "request", "dtype": "string"}] * shown
    schema = _schema(*further)
    schema["features"][2]["column"] = "time"
    data = _build(tmp_path, log, schema)
    row_of_weight = dict(zip(log["dwell"], rows, strict=True))
    num_candidates = 0
    for split in ("train", "validation", "test"):
        for example in read_examples(data, split).values():
            chosen = [row_of_weight[weight] for weight in example[LABEL_WEIGHT]]
            assert [row[4] for row in chosen] == example["label"]
            encoded = data.encoders["item_id"].encode([row[1] for row in chosen])
            assert encoded.tolist() == example["candidate/item_id"]
            num_candidates += len(chosen)
    assert num_candidates > 50
    assert not audit.audit(data.path)


def test_bad_weights_are_rejected_line_by_line(tmp_path):
    _, log = _clicks()
    log["dwell"] = ["1"] * len(log["dwell"])
    log["dwell"][:4] = ["-1", "", "much", "inf"]
    data = _build(tmp_path, log, _schema(), max_bad_fraction=0.5)
    rejected = data.manifest["conservation"]["rejected"]
    assert rejected == {
        "column 'dwell': a weight below 0": 1,
        "column 'dwell': missing value": 1,
        "column 'dwell': not a finite number": 2,
    }


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        ({"dtype": "string"}, "expected a numeric dtype for role 'weight', found string"),
        ({"encoder": {"kind": "numeric"}}, "expected no 'encoder' for role 'weight', found one"),
        ({"default": -1.0}, "expected a weight of 0 or more as 'default', found -1.0"),
    ],
)
def test_a_weight_is_a_number_of_zero_or_more(tmp_path, weight, error):
    with pytest.raises(UserError, match=error):
        _build(tmp_path, _clicks()[1], _schema(**weight))


def test_there_is_one_weight(tmp_path):
    second = {"name": "paid", "role": "weight", "dtype": "float32"}
    with pytest.raises(UserError, match="at most one feature of role 'weight', found 2"):
        _build(tmp_path, _clicks()[1], _schema(second))


def test_reading_from_memory_and_from_disk_agree(clicks):
    batches = [
        list(dataset.read(clicks, "train", batch_size=7, shuffle_seed=3, memory_budget=budget))
        for budget in (0, 1 << 30)
    ]
    for disk, memory in zip(*batches, strict=True):
        np.testing.assert_array_equal(disk[LABEL_WEIGHT], memory[LABEL_WEIGHT])
        np.testing.assert_array_equal(
            disk[LABEL_WEIGHT].numpy()[disk["candidate/item_id"].numpy() == 0], 0.0
        )


def test_the_auditor_looks_at_weights(clicks, tmp_path, monkeypatch):
    assert not audit.audit(clicks.path)
    findings = _tampered(clicks, monkeypatch, lambda weight_BN: weight_BN * 2)
    assert findings["candidates"].count == sum(
        clicks.num_requests(split) for split in ("train", "validation", "test")
    )
    assert "a sampled negative does not weigh 1" in findings["candidates"].examples[0]
    findings = _tampered(clicks, monkeypatch, lambda weight_BN: weight_BN * np.nan)
    assert "not one weight of 0 or more per candidate" in findings["candidates"].examples[0]


def _tampered(data, monkeypatch, change):
    """What the auditor finds if it reads other weights."""
    read = audit.request_batches

    def changed(*arguments):
        for batch in read(*arguments):
            yield dataclasses.replace(batch, weight_BN=change(batch.weight_BN))

    with monkeypatch.context() as patched:
        patched.setattr(audit, "request_batches", changed)
        return audit.audit(data.path)


def _config(data, **settings):
    plain = {"max_steps": 6, "batch_size": 16, "learning_rate": 0.01}
    return run_config.resolve(
        {"data": str(data.path), "model": {"name": "din"}, "train": plain | settings}
    )


def test_weights_reach_the_loss_and_the_metrics_and_no_signature(clicks, tmp_path):
    metrics = train.train(_config(clicks), tmp_path / "run", progress=False)["test"]
    scores = scoring.read_scores(tmp_path / "run", "test")
    assert scores.weight is not None
    assert dumped_scores.read(tmp_path / "run", "test").weight.tolist() == scores.weight.tolist()
    label, logit, weight = (
        column.astype(np.float64) for column in (scores.label, scores.logit, scores.weight)
    )
    loss = np.log1p(np.exp(-logit * (2 * label - 1)))
    assert metrics["weighted_log_loss"] == pytest.approx((weight * loss).sum() / weight.sum())
    ahead = logit[label == 1][:, None] - logit[label == 0]
    pairs = weight[label == 1][:, None] * weight[label == 0]
    expected = (pairs * ((ahead > 0) + 0.5 * (ahead == 0))).sum() / pairs.sum()
    assert metrics["weighted_auc"] == pytest.approx(expected)

    model = run_directory.load_model(tmp_path / "run")
    batch = next(iter(dataset.read(clicks, "train", batch_size=16, shuffle_seed=None)))
    mask_BN = batch["candidate/item_id"].numpy() > 0
    logit_BN = model(batch).numpy()
    loss_BN = np.log1p(np.exp(-logit_BN * (2 * batch["label"].numpy() - 1)))
    weight_BN = batch[LABEL_WEIGHT].numpy() * mask_BN
    compile_model(model, _config(clicks))
    term = model.loss_terms(batch, np.zeros(2, np.int32))["log_loss"]
    np.testing.assert_allclose(term.weights_Pn.numpy().reshape(mask_BN.shape), weight_BN)
    np.testing.assert_allclose(
        (term.values_Pn.numpy().reshape(mask_BN.shape) * weight_BN).sum(),
        (loss_BN * weight_BN).sum(),
        rtol=0.05,  # OOV dropout changes some ids in training.
    )
    names = {feature.name for feature, _ in signatures.raw_inputs(clicks.schema).values()}
    assert names == {"user_id", "item_id"}


def test_weights_of_a_schema_and_of_a_setting_exclude_each_other(clicks, tmp_path):
    with pytest.raises(UserError, match="feature 'watched' of role 'weight' weighs the samples"):
        train.train(_config(clicks, sample_weight="x"), tmp_path / "run", progress=False)
