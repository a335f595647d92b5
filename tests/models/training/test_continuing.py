"""Runs that go on with another one on the next day's data."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from models import train
from models.config import run_config
from models.core import run_directory
from models.core.checkpoints import restore_best_state
from models.core.factory import build_model, compile_model
from models.evaluation.metrics import concatenated, ranking_metrics
from models.evaluation.scoring import Scorer
from models.keras import tf
from models.training import trainer
from models.training.replay import Replay
from models.training.row_growth import Growth
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing.encoders import fitting
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.encoder_specs import Vocabulary
from tests.helpers import toy_runs

SCHEMA = {
    "features": [
        {"name": "user_id", "role": "user", "dtype": "string", "encoder": {"kind": "vocabulary"}},
        {
            "name": "item_id",
            "role": "item",
            "dtype": "string",
            "encoder": {"kind": "vocabulary", "oov_buckets": 3},
        },
        {
            "name": "shop",
            "role": "item",
            "dtype": "string",
            "encoder": {"kind": "hash", "buckets": 5},
        },
        {"name": "timestamp", "role": "timestamp", "dtype": "int64"},
    ],
    "history": {"max_length": 8, "features": ["item_id", "shop"]},
}


def test_a_new_value_has_the_row_of_the_bucket_that_it_fell_into():
    def fit(values):
        encoder = Vocabulary(oov_buckets=4)
        feature = dataclasses.replace(toy_runs.SCHEMA["item_id"], encoder=encoder)
        return fitting.fit(feature, pa.array(values), np.ones(len(values), np.int64))

    before, after = fit(["b", "c"]), fit(["a", "b", "c", "d"])
    growth = Growth.between(before, after)
    assert growth.is_new.tolist() == [False] * 5 + [True, False, False, True]
    np.testing.assert_array_equal(growth.sources[:5], np.arange(5))
    np.testing.assert_array_equal(growth.sources[5:], before.encode(pa.array(["a", "b", "c", "d"])))
    assert growth.gone == 0
    assert growth.moves
    assert not Growth.between(before, before).moves
    assert Growth.between(after, before).gone == 2


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """A log until a day, and the same log a day later: more users, items and events."""
    path = tmp_path_factory.mktemp("continued_days")
    rng = np.random.default_rng(5)
    rows = []
    for time in range(4000):
        late = time >= 2500
        item = int((80 if late else 60) * rng.random() ** 3)
        user = rng.integers(0, 150 if late else 100)
        rows.append((f"u{user}", f"i{item}", f"s{item % 7}", 1_700_000_000 + 60 * time))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "shop", "timestamp"])
    (path / "schema.json").write_text(pd.Series([SCHEMA]).to_json(orient="records")[1:-1])
    built = []
    for name, part in (("monday", log[:2500]), ("tuesday", log)):
        part.to_csv(path / f"{name}.csv", index=False)
        arguments = BuildArguments(
            input=str(path / f"{name}.csv"),
            schema=str(path / "schema.json"),
            output=str(path / name),
            protocol="time_split",
        )
        built.append(build_examples(arguments))
    return built


def _config(data, **rest):
    settings = {"batch_size": 64, "max_steps": 12, "learning_rate": 0.03}
    return run_config.resolve(
        {
            "data": str(data.path),
            "model": {"name": "din", "embedding_size": 4, "batch_norm": True},
            "ssl": {"name": "miss"},
            **rest,
            "train": settings | {"ssl_steps": 1, "joint": False} | rest.get("train", {}),
        }
    )


@pytest.fixture(scope="module")
def monday(days, tmp_path_factory):
    path = tmp_path_factory.mktemp("continued_runs") / "monday"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "EVALUATION_INTERVAL", 4)
        train.train(_config(days[0]), path, progress=False)
    return path


def _best_state(run):
    """The model of the run's best evaluation, with the state of its optimisers."""
    model = build_model(run.config, run.data)
    compile_model(model, run.config)
    model.build_optimizers()
    restore_best_state(model, run.path / run_directory.CHECKPOINTS)
    return model


def _encoded(before, after, batch):
    """A batch of the later data set with the ids of the earlier one."""
    converted = dict(batch)
    for feature in after.schema.encoded_features:
        keys = [feature.name, candidate_key(feature.name), history_key(feature.name)]
        for key in filter(batch.__contains__, keys):
            ids = batch[key].numpy()
            values = after.encoders[feature.name].decode(ids)
            flat = before.encoders[feature.name].encode(pa.array(values.ravel()))
            converted[key] = tf.constant(flat.reshape(ids.shape))
    return converted


def test_before_its_first_step_it_scores_as_the_run_before(days, monday, tmp_path):
    """Also requests of values that are new, and for the checkpoint of the best evaluation."""
    begun = train.begin(
        _config(days[1], continues=str(monday)), tmp_path / "tuesday", progress=False
    )
    source = run_directory.load_model(monday)
    unknown = 0
    batches = trainer.training_batches(days[1], begun.config.train, 0, 1)
    for batch in itertools.islice(batches, 10):
        translated = _encoded(*days, batch)
        items = translated["candidate/item_id"].numpy()
        unknown += ((items > 0) & (items <= 3)).sum()
        np.testing.assert_array_equal(begun.model(batch), source(translated))
    assert unknown > 20


def test_moments_statistics_and_steps_go_on(days, monday, tmp_path):
    begun = train.begin(
        _config(days[1], continues=str(monday)), tmp_path / "tuesday", progress=False
    )
    source = _best_state(run_directory.open_run(monday))
    growth = {
        name: Growth.between(days[0].encoders[name], encoder)
        for name, encoder in days[1].encoders.items()
    }
    moved = 0
    for (theirs, _), (ours, weights) in zip(
        source.optimizers(), begun.model.optimizers(), strict=True
    ):
        assert ours.iterations == theirs.iterations
        assert ours.iterations.numpy() > 0
        slots, before = ours.variables[1:], theirs.variables[1:]
        assert len(slots) == 2 * len(weights)
        for place, (slot, old) in enumerate(zip(slots, before, strict=True)):
            weight = weights[place // 2]
            names = [n for n, table in begun.model.embedder.tables.items() if table is weight]
            if not names:
                np.testing.assert_array_equal(slot, old)
                continue
            rows = growth[names[0]]
            np.testing.assert_array_equal(slot.numpy()[rows.is_new], 0.0)
            np.testing.assert_array_equal(
                slot.numpy()[~rows.is_new], old.numpy()[rows.sources[~rows.is_new]]
            )
            moved += np.abs(slot.numpy()).sum() > 0
    assert moved >= 4


def test_the_run_itself(days, monday, tmp_path, monkeypatch, capsys):
    """Each day is measured before it is learned; the first weights are a candidate for the best."""
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    config = _config(days[1], continues=str(monday))
    path = tmp_path / "tuesday"
    begun = train.begin(config, path, progress=True)
    output = capsys.readouterr().out
    assert "continue: item_id: " in output
    assert "all other weights and the optimisers taken over, at step " in output
    assert "tuesday before training on it: " in output
    scorer = Scorer(begun.model, days[1])
    scores = concatenated([scorer.score(split) for split in ("train", "validation", "test")])
    expected = ranking_metrics(scores)
    recorded = pd.read_csv(path / run_directory.DAYS)
    assert recorded["data"].tolist() == ["tuesday"]
    assert recorded["requests"].item() == days[1].num_requests("train") + sum(
        days[1].num_requests(split) for split in ("validation", "test")
    )
    for name in ("auc", "gauc", "log_loss"):
        assert recorded[name].item() == pytest.approx(expected[name], abs=1e-6)
    begun.run()
    history = pd.read_csv(path / run_directory.HISTORY)
    assert history["step"].tolist()[:2] == [0, 10]
    assert run_directory.open_run(path).config.continues == str(monday)

    # The third day has two rows.
    third = train.begin(_config(days[1], continues=str(path)), tmp_path / "third", progress=False)
    assert len(pd.read_csv(tmp_path / "third" / run_directory.DAYS)) == 2
    assert third.model.optimizer.iterations > begun.config.train.max_steps


@pytest.mark.slow
def test_resuming_it_is_exact(days, monday, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    config = _config(days[1], continues=str(monday))
    whole = train.begin(config, tmp_path / "whole", progress=False)
    whole.run()
    short = _config(days[1], continues=str(monday), train={"max_steps": 4})
    train.train(short, tmp_path / "parts", progress=False)
    resumed = train.begin(config, tmp_path / "parts", resume=True, progress=False)
    assert resumed.progress.step == 4
    resumed.run()
    for ours, theirs in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "din", "embedding_size": 8}}, "model.embedding_size is 4 there, 8"),
        ({"ssl": {"name": "none"}, "train": {"ssl_steps": 0}}, "ssl.name is 'miss' there"),
        ({"train": {"embedding_optimizer": "adagrad"}}, "train.embedding_optimizer is 'lazy_adam'"),
        ({"train": {"distribute": "parameter_server"}}, "found parameter_server"),
    ],
)
def test_what_does_not_fit_is_refused(days, monday, tmp_path, changes, message):
    from models.training.continuing import continue_run

    config = _config(days[1], continues=str(monday), **changes)
    model = build_model(config, days[1])
    with pytest.raises(UserError, match=message):
        continue_run(model, days[1], config)


def test_a_run_without_the_checkpoint_says_what_else_to_do(days, tmp_path):
    config = _config(days[0])
    run_directory.begin(tmp_path / "run", config, days[0])
    model = build_model(config, days[0])
    with pytest.raises(UserError, match="--warm_start instead of --continue"):
        restore_best_state(model, tmp_path / "run" / run_directory.CHECKPOINTS)


def test_two_runs_to_begin_with_are_refused(days):
    with pytest.raises(UserError, match="Expected one run to begin with"):
        _config(days[1], continues="/a", warm_start="/b")


def test_replayed_requests_have_the_ids_of_now(days, monday):
    config = _config(days[1], continues=str(monday), train={"replay": 0.5})
    replay = Replay(config, days[1])
    seen = set()
    for batch in itertools.islice(replay.dataset(0), 60):
        decoded = days[1].encoders["item_id"].decode(batch["candidate/item_id"].numpy())
        users = days[1].encoders["user_id"].decode(batch["user_id"].numpy())
        for user, request, items in zip(users, batch["request_id"].numpy(), decoded, strict=True):
            seen.add((user, request, frozenset(item for item in items if item)))
    expected = set()
    for batch in trainer.training_batches(days[0], config.train, 0, 1):
        decoded = days[0].encoders["item_id"].decode(batch["candidate/item_id"].numpy())
        users = days[0].encoders["user_id"].decode(batch["user_id"].numpy())
        for user, request, items in zip(users, batch["request_id"].numpy(), decoded, strict=True):
            expected.add((user, request, frozenset(item for item in items if item)))
    assert seen == expected


@pytest.mark.slow
def test_replay_takes_a_step_ahead_of_every_second(days, monday, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    train_settings = {"replay": 0.5, "max_steps": 12, "patience": 100.0}
    config = _config(days[1], continues=str(monday), train=train_settings)
    whole = train.begin(config, tmp_path / "whole", progress=False)
    first = int(whole.model.optimizer.iterations.numpy())
    whole.run()
    assert whole.progress.replayed_step == 6
    assert whole.model.optimizer.iterations == first + 18
    # An interruption changes nothing.
    short = _config(days[1], continues=str(monday), train=train_settings | {"max_steps": 5})
    train.train(short, tmp_path / "parts", progress=False)
    resumed = train.begin(config, tmp_path / "parts", resume=True, progress=False)
    resumed.run()
    for ours, theirs in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_replay_needs_earlier_days(days):
    with pytest.raises(UserError, match="train.replay with --continue only"):
        _config(days[1], train={"replay": 0.1})


@pytest.mark.slow
def test_a_run_that_took_passes_ahead_goes_on_without_them(days, tmp_path, monkeypatch):
    """It has optimisers of self-supervision, which the next day does not need."""
    monkeypatch.setattr(trainer, "EVALUATION_INTERVAL", 4)
    joint = {"joint": True, "ssl_steps": 0}
    first = _config(days[0], train=joint | {"pretrain_epochs": 1, "max_steps": 4})
    train.train(first, tmp_path / "first", progress=False)
    second = _config(days[1], continues=str(tmp_path / "first"), train=joint)
    begun = train.begin(second, tmp_path / "second", progress=False)
    source = _best_state(run_directory.open_run(tmp_path / "first"))
    assert len(source.optimizers()) == 4
    assert begun.model.optimizer.iterations == source.optimizer.iterations
