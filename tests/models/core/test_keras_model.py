"""The model as users of Keras know models: compile, fit, callbacks, evaluate, predict, save."""

import dataclasses
import json

import numpy as np
import pytest

from models import registry
from models.core.factory import build_model, compile_model
from models.evaluation.metrics import ranking_metrics
from models.evaluation.scoring import Scorer
from models.keras import keras, tf, tfrs
from models.train import begin
from models.training.batches import training_batches
from preprocessing import dataset
from preprocessing.errors import UserError
from tests.helpers import small_models, toy_runs
from tests.helpers.python_runs import python

PAIRS = [("din", "none"), ("din", "miss"), ("deminet", "none")]


def _batches(data, split, **options):
    return dataset.read(data, split, **{"batch_size": 64, "shuffle_seed": None, **options})


@pytest.fixture
def config(data):
    content = {"data": str(data.path), "model": {"name": "din", "embedding_size": 4}}
    return small_models.resolve(content)


@pytest.fixture
def model(config, data):
    built = build_model(config, data)
    built.compile("adam", metrics=[keras.metrics.AUC(name="auc")])
    return built


def test_summary_counts_all_weights_before_training(capsys):
    built = small_models.model(small_models.config("din", "miss"))
    built.summary()
    printed = capsys.readouterr().out
    assert "unused" not in printed
    assert f"Total params: {built.count_params()} " in printed
    parts = (built.embedder, built.backbone, built.ssl)
    assert sum(part.count_params() for part in parts) == built.count_params() > 0
    for part in parts:
        assert f" {part.count_params()} " in printed


def test_names_of_optimisers_stand_for_pairs(model):
    assert type(model.optimizer) is keras.optimizers.Adam
    assert type(model.embedding_optimizer).__name__ == "LazyAdam"
    model.compile(keras.optimizers.Adam(0.3, beta_1=0.5))
    of_tables = model.embedding_optimizer.get_config()
    assert of_tables["learning_rate"] == pytest.approx(0.3)
    assert of_tables["beta_1"] == pytest.approx(0.5)
    model.compile("sgd")
    assert type(model.embedding_optimizer) is keras.optimizers.SGD
    assert model.embedding_optimizer is not model.optimizer
    model.compile(keras.optimizers.Adam(amsgrad=True))
    assert type(model.embedding_optimizer) is keras.optimizers.Adam


def test_adam_by_name_trains_as_the_defaults_do(config, data):
    named, configured = build_model(config, data), build_model(config, data)
    named.compile("adam")
    compile_model(configured, config)
    for batch in _batches(data, "train", shuffle_seed=1):
        first, second = named.main_step(batch), configured.main_step(batch)
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"optimizer": "adamm"}, "the name of an optimiser of Keras, found 'adamm'"),
        ({"optimizer": object()}, "an optimiser of Keras 2, found builtins.object"),
        ({"optimizer": keras.optimizers.legacy.Adam()}, "an optimiser of Keras 2, found tf_keras"),
        ({"loss": "mse"}, "no loss and no loss_weights.* found 'mse'"),
        ({"loss_weights": [1.0]}, r"no loss and no loss_weights.* found \[1.0\]"),
        ({"metrics": [keras.metrics.AUC(from_logits=True)]}, "with from_logits=True"),
    ],
)
def test_what_compile_refuses(model, arguments, said):
    with pytest.raises(UserError, match=said):
        model.compile(**arguments)


def test_the_idiom_of_keras_compiles(model, data):
    model.compile("adam", "binary_crossentropy", ["accuracy", "AUC"])
    history = model.fit(_batches(data, "train"), verbose=0).history
    assert {"loss", "accuracy", "auc"} <= {name.split("_1")[0] for name in history}


def test_fit_gives_what_callbacks_monitor(model, data, tmp_path):
    best = tmp_path / "best.keras"
    history = model.fit(
        _batches(data, "train", shuffle_seed=1),
        epochs=4,
        validation_data=_batches(data, "validation"),
        callbacks=[
            keras.callbacks.ModelCheckpoint(str(best), "val_auc", save_best_only=True, mode="max"),
            keras.callbacks.ModelCheckpoint(
                str(tmp_path / "best.weights.h5"), save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.TensorBoard(str(tmp_path / "events")),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=0,
    ).history
    assert {"loss", "log_loss", "auc", "val_loss", "val_log_loss", "val_auc"} <= set(history)
    stored = keras.models.load_model(best).evaluate(
        _batches(data, "validation"), return_dict=True, verbose=0
    )
    assert stored["auc"] == pytest.approx(max(history["val_auc"]), abs=1e-6)
    first = model.evaluate(_batches(data, "validation"), return_dict=True, verbose=0)
    assert first["loss"] == pytest.approx(min(history["val_loss"]), abs=1e-6)


def test_evaluate_agrees_with_the_command(model, data):
    model.fit(_batches(data, "train"), epochs=3, verbose=0)
    model.compile("adam", metrics=[keras.metrics.AUC(4000, name="auc")])
    found = model.evaluate(_batches(data, "test"), return_dict=True, verbose=0)
    exact = ranking_metrics(Scorer(model, data).score("test"))
    assert found["loss"] == found["log_loss"] == pytest.approx(exact["log_loss"], abs=1e-6)
    assert found["auc"] == pytest.approx(exact["auc"], abs=2e-3)  # Keras counts in bins.
    assert model.evaluate(_batches(data, "test"), verbose=0)[0] == pytest.approx(found["loss"])


def test_losses_of_an_epoch_are_means_over_its_candidates(model, data):
    model.compile("adam", embedding_optimizer="sgd")
    for optimizer, _ in model.optimizers():
        optimizer.learning_rate = 0.0
    batches = _batches(data, "train", batch_size=77)
    found = model.fit(batches, verbose=0).history["log_loss"][0]
    losses, counts = [], []
    for step, batch in enumerate(batches):
        model.optimizer.iterations.assign(step)
        losses.append(float(model.main_step(batch)["log_loss"]))
        counts.append(int((batch["candidate/item_id"].numpy() > 0).sum()))
    assert found == pytest.approx(np.average(losses, weights=counts), abs=1e-6)


def test_predict_gives_probabilities_and_nan_at_padding():
    built = small_models.model(small_models.config("din"))
    small_models.randomise(built)
    wide, narrow = small_models.batch(candidates=5), small_models.batch(candidates=2, seed=1)
    spec = {
        name: tf.TensorSpec([None] * value.shape.rank, value.dtype) for name, value in wide.items()
    }
    batches = tf.data.Dataset.from_generator(lambda: iter([wide, narrow]), output_signature=spec)
    predicted = built.predict(batches, verbose=0)
    assert predicted.shape == (12, 5)
    start = 0
    for batch in (wide, narrow):
        mask = np.pad(batch["candidate/item_id"].numpy() > 0, [(0, 0), (0, 5)])[:, :5]
        part = predicted[start : start + 6]
        np.testing.assert_array_equal(np.isnan(part), ~mask)
        valid = mask[:, : batch["label"].shape[1]]
        np.testing.assert_allclose(part[mask], tf.sigmoid(built(batch)).numpy()[valid], atol=1e-6)
        start += 6
    alone = {name: value for name, value in wide.items() if name != "label"}
    np.testing.assert_allclose(built.predict_on_batch(alone), predicted[:6], atol=1e-6)


@pytest.mark.parametrize(("name", "ssl"), PAIRS)
def test_callbacks_set_the_rates_of_all_optimisers(name, ssl):
    built = small_models.model(small_models.config(name, ssl))
    built.compile("adam", embedding_optimizer=keras.optimizers.SGD(1e-4))
    batches = tf.data.Dataset.from_tensors(small_models.batch())

    def rates():
        return sorted(float(optimizer.learning_rate) for optimizer, _ in built.optimizers())

    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch))
    built.fit(batches, epochs=2, callbacks=[scheduler], verbose=0)
    assert rates() == pytest.approx([0.0005] + [0.005] * (3 if ssl == "miss" else 1))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    built.fit(batches, epochs=3, callbacks=[plateau], verbose=0)
    built.train_on_batch(small_models.batch())  # Plateaus act at the end of an epoch.
    assert max(rates()) < 0.005
    assert max(rates()) == pytest.approx(10 * min(rates()))
    built.embedding_optimizer.learning_rate = 0.25  # Holds until the leading rate changes.
    built.train_on_batch(small_models.batch())
    assert float(built.embedding_optimizer.learning_rate) == 0.25


def test_a_schedule_of_the_tables_is_left_alone():
    built = small_models.model(small_models.config("din"))
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    built.compile("adam", embedding_optimizer=keras.optimizers.SGD(decay))
    built.optimizer.learning_rate = 0.5
    built.train_on_batch(small_models.batch())
    assert float(built.embedding_optimizer.learning_rate) == pytest.approx(
        0.1
    )  # Of the step taken.


def _loss(built, batch, **options):
    return built.train_on_batch(batch, return_dict=True, **options)["log_loss"]


def test_class_and_sample_weights_weigh_the_loss():
    batch = small_models.batch()
    labels = batch["label"].numpy()
    features = {name: value for name, value in batch.items() if name != "label"}

    def fresh(**settings):
        built = small_models.model(small_models.config("din"))
        built.compile("adam", **settings)
        return built

    expected = _loss(fresh(positive_weight=3.0), batch)
    assert expected != pytest.approx(_loss(fresh(), batch), abs=1e-4)
    weights = np.where(labels > 0, 3.0, 1.0)
    assert _loss(fresh(), batch, class_weight={1: 3.0}) == pytest.approx(expected, abs=1e-6)
    assert _loss(fresh(), features, y=labels, sample_weight=weights) == pytest.approx(expected)
    of_requests = np.array([0, 2, 1, 1, 3, 1], np.float32)
    tiled = np.tile(of_requests[:, None], labels.shape[1])
    by_request = _loss(fresh(), features, y=labels, sample_weight=of_requests)
    assert by_request == pytest.approx(_loss(fresh(), features, y=labels, sample_weight=tiled))
    built = fresh()
    weighed = built.fit(tf.data.Dataset.from_tensors(batch), class_weight={1: 3.0}, verbose=0)
    assert weighed.history["log_loss"][0] == pytest.approx(expected, abs=1e-6)
    built = fresh()  # Weights of one fit are not those of the next.
    _loss(built, batch, class_weight={1: 3.0})
    again = fresh()
    again.set_weights(built.get_weights())
    assert _loss(built, batch) == pytest.approx(_loss(again, batch), abs=1e-3)
    with pytest.raises(UserError, match="class_weight with weights .* found {2: 1.0}"):
        built.fit(batch, class_weight={2: 1.0})


def test_evaluation_has_weights_only_where_they_are_given():
    batch = small_models.batch()
    built = small_models.model(small_models.config("din"))
    built.compile("adam", positive_weight=5.0)
    features = {name: value for name, value in batch.items() if name != "label"}
    plain = built.test_on_batch(batch, return_dict=True)["loss"]
    assert plain == pytest.approx(
        built.test_on_batch(features, batch["label"], return_dict=True)["loss"]
    )
    first = np.eye(6, dtype=np.float32)[0]
    of_first = built.test_on_batch(features, batch["label"], first, return_dict=True)["loss"]
    alone = built.test_on_batch({k: v[:1] for k, v in batch.items()}, return_dict=True)["loss"]
    assert of_first == pytest.approx(alone, abs=1e-6)


def test_fit_steps_are_those_of_the_command(data, tmp_path):
    content = {"data": str(data.path), "model": {"name": "din"}}
    steps = ["train.max_steps=5", "train.batch_size=100", "train.native_ops=off"]
    config = small_models.resolve(content, steps)
    trainer = begin(config, tmp_path / "run", progress=False)
    trainer.fit()
    built = build_model(config, data)
    built.compile("adam")
    built.fit(training_batches(data, config.train, 0, 2), epochs=5, steps_per_epoch=1, verbose=0)
    for mine, theirs in zip(built.weights, trainer.model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.name)


def test_fit_trains_self_supervision_too():
    built = small_models.model(small_models.config("din", "miss"))
    built.compile("adam")
    before = [weight.numpy() for weight in built.ssl.trainable_variables]
    logs = built.train_on_batch(small_models.batch(), return_dict=True)
    assert "ssl_loss" in logs
    after = built.ssl.trainable_variables
    assert any((old != new.numpy()).any() for old, new in zip(before, after, strict=True))
    built.compile("adam", joint=True)
    assert built.ssl_optimizer is None
    assert "ssl_loss" not in built.train_on_batch(small_models.batch(), return_dict=True)


# In a process of its own: devices are divided before TensorFlow begins, and keys of collectives
# belong to one strategy of a process.
_REPLICAS = """
import json, sys
from models.keras import keras, tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.helpers import small_models

batch = small_models.batch(requests=8, seed=3)
results = []
for strategy in (
    tf.distribute.OneDeviceStrategy("CPU:0"),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
):
    with strategy.scope():
        built = small_models.model(small_models.config("din", sys.argv[1]))
        built.compile("adam", metrics=[keras.metrics.AUC(name="auc")])
    batches = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch))
    history = built.fit(
        batches, epochs=3, validation_data=batches, callbacks=[scheduler], verbose=0
    ).history
    history = {name: [float(value) for value in values] for name, values in history.items()}
    results.append((history, built.predict(batches, verbose=0).tolist()))
print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ssl", ["none", "miss"])
def test_two_replicas_fit_and_evaluate_as_one(ssl):
    printed = python("-c", _REPLICAS, ssl)
    (first, scores), (second, others) = json.loads(printed.splitlines()[-1])
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values == pytest.approx(second[name], rel=1e-4, abs=1e-5), name
    np.testing.assert_allclose(scores, others, atol=1e-5)


ALL = [(name, "none") for name in registry.MODELS] + [("din", name) for name in registry.SSL]
ALL = [pair if pair in PAIRS else pytest.param(*pair, marks=pytest.mark.slow) for pair in ALL]


@pytest.mark.parametrize(("name", "ssl"), ALL)
def test_a_saved_model_scores_and_trains_on_as_before(name, ssl, tmp_path):
    if name == "lr":
        built = small_models.model(small_models.resolve({"model": {"name": "lr"}}))
    else:
        built = small_models.model(small_models.config(name, ssl))
    batch = small_models.batch()
    built.train_on_batch(batch)
    small_models.randomise(built)
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(batch), built.predict_on_batch(batch))
    for mine, theirs in zip(built.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    first = built.train_on_batch(batch, return_dict=True)
    assert first == pytest.approx(loaded.train_on_batch(batch, return_dict=True), rel=1e-5)
    # Without --deterministic, TensorFlow adds up three or more gradients in an order of its own.
    for mine, theirs in zip(built.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_learning_rates_of_single_tables_are_saved(tmp_path):
    built = small_models.model(small_models.config("din"))
    tables = built.embedder.table_weights()
    built.embedding_optimizer.set_factor(tables[:1], 0.25)
    built.build_optimizers()
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    factors = loaded.embedding_optimizer.factors(loaded.embedder.table_weights())
    assert factors == [0.25, *[1.0] * (len(tables) - 1)]
    batch = small_models.batch()
    assert _loss(built, batch) == _loss(loaded, batch)
    assert _loss(built, batch) == _loss(loaded, batch)


def test_a_saved_model_names_no_path_of_this_machine(model, tmp_path):
    model.save(tmp_path / "model.keras")
    config = model.get_config()["run"]
    assert (config["data"], config["warm_start"], config["continues"]) == ("", "", "")
    copy = keras.models.clone_model(model)
    assert copy.count_params() == model.count_params()


def test_saving_refuses_what_it_cannot_keep(model, tmp_path):
    for path in (tmp_path / "model.h5", tmp_path / "model"):
        with pytest.raises(UserError, match="Expected a path that ends in .keras, found"):
            model.save(path)
    by_hand = type(model)(model.schema, model.embedder, model.backbone)
    with pytest.raises(UserError, match="Expected a model of models.build_model"):
        by_hand.get_config()


@pytest.mark.parametrize("file", ["w.weights.h5", "w.h5", "w"])
def test_weights_alone_are_saved_and_loaded(model, config, data, file, tmp_path):
    model.fit(_batches(data, "train"), verbose=0)
    model.save_weights(tmp_path / file)
    other = build_model(
        dataclasses.replace(config, train=dataclasses.replace(config.train, seed=9)), data
    )
    other.compile("adam")
    other.build_optimizers()
    other.load_weights(tmp_path / file)
    batch = next(iter(_batches(data, "test")))
    np.testing.assert_array_equal(other(batch), model(batch))


class Nested(keras.layers.Layer):
    """Layers where the files of Keras do not look for them."""

    def __init__(self):
        super().__init__()
        self.pairs = [[keras.layers.Dense(2), keras.layers.Dense(2)]]

    def call(self, inputs):
        return self.pairs[0][1](self.pairs[0][0](inputs))


def test_layers_in_lists_of_lists_are_saved(tmp_path):
    built = small_models.model(small_models.config("din"))
    built.backbone.nested = Nested()
    built.backbone.nested(tf.ones([1, 2]))
    small_models.randomise(built)
    assert len(built._unreached()) == 4
    built.save_weights(tmp_path / "w.weights.h5")
    other = small_models.model(small_models.config("din"))
    other.backbone.nested = Nested()
    other.backbone.nested(tf.ones([1, 2]))
    other.load_weights(tmp_path / "w.weights.h5")
    for mine, theirs in zip(built.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_missing_features_and_labels_are_named(model, data):
    batches = _batches(data, "train")
    without = batches.map(lambda batch: {k: v for k, v in batch.items() if k != "history/item_id"})
    with pytest.raises(UserError, match="found no history/item_id. Fix: read batches"):
        model.fit(without)
    unlabelled = batches.map(lambda batch: {k: v for k, v in batch.items() if k != "label"})
    with pytest.raises(UserError, match="found no label"):
        model.evaluate(unlabelled)
    model.predict(unlabelled, verbose=0)
    with pytest.raises(UserError, match="found no user_id"):
        model.predict({"item_id": np.zeros([1, 1])})


def test_it_is_a_model_of_tensorflow_recommenders(model, data):
    batch = next(iter(_batches(data, "train")))
    assert isinstance(model, tfrs.Model)
    assert isinstance(model.task, tfrs.tasks.Ranking)
    at_inference = model.test_on_batch(batch, return_dict=True)["loss"]
    assert float(model.compute_loss(batch)) == pytest.approx(at_inference, abs=1e-6)
    trained = float(model.compute_loss(batch, training=True))
    assert trained == pytest.approx(float(model.main_step(batch)["loss"]), abs=1e-6)


class TwoTasks(tfrs.Model):
    """A model of tensorflow-recommenders with embeddings and a backbone of this project."""

    def __init__(self, part):
        super().__init__()
        self.part = part
        self.second = tfrs.tasks.Ranking(loss=keras.losses.MeanSquaredError())

    def call(self, features):
        return tf.sigmoid(self.part(features))

    def compute_loss(self, inputs, training=False):
        mask = inputs["candidate/item_id"] > 0
        clicks = self.second(
            tf.boolean_mask(inputs["label"], mask), tf.boolean_mask(self(inputs), mask)
        )
        return self.part.compute_loss(inputs, training) + clicks


def test_a_model_of_tensorflow_recommenders_can_hold_it():
    part = small_models.model(small_models.config("din"))
    outer = TwoTasks(part)
    outer.compile("adam")
    batches = tf.data.Dataset.from_tensors(small_models.batch())
    losses = outer.fit(batches, epochs=20, verbose=0).history["total_loss"]
    assert losses[-1] < losses[0]


def test_a_run_that_was_trained_is_saved_for_keras(tmp_path):
    from models.core import run_directory

    data = toy_runs.write_data(tmp_path / "data")
    trained = run_directory.load_model(toy_runs.write_run(tmp_path / "run", data, "din"))
    trained.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    batch = next(iter(_batches(data, "test")))
    np.testing.assert_array_equal(loaded(batch), trained(batch))
