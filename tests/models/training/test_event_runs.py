"""Runs on data sets with features of events: warm start by value, reports, a user's own model."""

import numpy as np
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.reporting import run_report
from models.training import data_checks, memory, model_checks, trainer
from models.training.warm_start import warm_start
from preprocessing.errors import UserError
from tests.helpers import event_logs, event_models, small_models


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two data sets whose actions have other ids, by other counts; the second has no price."""
    path = tmp_path_factory.mktemp("event_days")
    features = [feature for feature in event_logs.EVENTS if feature["name"] != "price"]
    later = event_logs.rows(seed=5)
    for row in later:
        row["action"] = {"view": "buy", "buy": "view"}.get(row["action"], row["action"])
    return [
        event_logs.write_data(path / "first"),
        event_logs.write_data(path / "second", *features, *event_logs.TIMES, log=later),
    ]


def _config(data, **rest):
    return run_config.resolve(
        {"data": str(data.path), "model": {"name": "din", "embedding_size": 4},
         "train": {"batch_size": 16, "max_steps": 6}, **rest}
    )  # fmt: skip


def test_actions_and_gaps_keep_their_rows_and_what_they_add(days, tmp_path):
    before, after = days
    source = trainer.build_model(_config(before), before)
    small_models.randomise(source)
    run_directory.begin(tmp_path, _config(before), before)
    run_directory.best_checkpoint(source, tmp_path).save()
    model = trainer.build_model(_config(after), after)
    lines = warm_start(model, after, _config(after, warm_start=str(tmp_path)))
    assert "action: what it adds to item_id, category_id taken over" in lines
    assert "price: left behind, the new data set does not have it" in lines
    for word in ("view", "cart", "buy"):
        rows = [
            built.embedder.tables["action"].numpy()[data.encoders["action"].encode([word])[0]]
            for data, built in ((before, source), (after, model))
        ]
        np.testing.assert_array_equal(*rows)
    for name in ("action", "age", "coupon", "dwell", "pause"):
        ours, theirs = (each.embedder.event_projections[name].numpy() for each in (model, source))
        np.testing.assert_array_equal(ours, theirs)
    for name in ("age", "pause", "hour"):
        ours, theirs = (each.embedder.tables[name].numpy() for each in (model, source))
        np.testing.assert_array_equal(ours, theirs)


def test_features_that_are_new_begin_with_nothing(days, tmp_path):
    after, before = days
    source = trainer.build_model(_config(before), before)
    small_models.randomise(source)
    run_directory.begin(tmp_path, _config(before), before)
    run_directory.best_checkpoint(source, tmp_path).save()
    model = trainer.build_model(_config(after), after)
    lines = warm_start(model, after, _config(after, warm_start=str(tmp_path)))
    assert "price: what it adds to events begins with nothing" in lines
    assert not model.embedder.event_projections["price"].numpy().any()


def test_a_run_trains_and_its_report_names_them(days, tmp_path):
    train.train(_config(days[0]), tmp_path / "run")
    page = run_report.write_report(tmp_path / "run", tmp_path / "report.html")
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    assert "bucketised, from gap_to_request" in text
    assert "item_id, category_id, action, age, coupon, dwell, pause, price" in text


def test_a_model_of_ones_own_is_tried_on_them():
    run = small_models.config("user_models:Good")
    model_checks.check_user_parts(run, event_models.schema())


def test_memory_counts_their_tables(days):
    sizes = memory._table_sizes(_config(days[0]), days[0])
    assert sizes["action"] == 4 * 4 * days[0].encoders["action"].cardinality
    assert sizes["age"] == 4 * 4 * 33


def test_they_cannot_weigh_samples():
    content = event_logs.schema(
        {**event_logs.PRICE, "encoder": {"kind": "numeric", "normalisation": "none"}}
    )
    from preprocessing.schema import Schema

    with pytest.raises(UserError, match="the schema has none"):
        data_checks.check_sample_weight(Schema.from_json(content), "price")
