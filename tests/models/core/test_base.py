"""The training step and the properties that every model must have, in and out of training."""

import numpy as np
import pytest

from models.keras import tf
from tests.helpers import small_models

SUM = ("train.joint=true", "train.ssl_steps=0", "train.embedding_learning_rate=0")
"""One loss and one rate, as eq. 17 of MISS says."""
MODELS = [
    ("din", "none"),
    ("din", "miss"),
    ("deminet", "none"),
    pytest.param(("deminet_wo_ssl", "none"), marks=pytest.mark.slow),
]
SEED = tf.constant([3, 5])


@pytest.fixture(params=MODELS, ids=lambda pair: "+".join(pair))
def trained(request):
    """A model whose weights are of a trained model's size."""
    settings = SUM if request.param[1] != "none" else ()
    model = small_models.model(small_models.config(*request.param, *settings))
    small_models.randomise(model)
    return model


def _pad(features, steps=0, candidates=0):
    """The same batch with more padding on the right; pads of non-key features hold garbage."""
    padded = dict(features)
    for name, value in features.items():
        extra = steps if name.startswith("history/") else candidates
        if extra and (name.startswith(("history/", "candidate/")) or name == "label"):
            garbage = 0 if name.endswith(("/item_id", "label")) else 3
            if name.startswith("history/") or candidates:
                fill = tf.cast(tf.fill([value.shape[0], extra], garbage), value.dtype)
                padded[name] = tf.concat([value, fill], 1)
    return padded


def _mean(term):
    weights = term.weights_Pn.numpy()
    total = (np.where(weights > 0, term.values_Pn.numpy(), 0) * weights).sum(-1)
    return np.mean(total / np.maximum(weights.sum(-1), 1e-9))


def test_padding_changes_no_logit(trained):
    features = small_models.batch()
    mask = features["candidate/item_id"].numpy() != 0
    plain = trained(features).numpy()[mask]
    padded = trained(_pad(features, steps=3, candidates=2)).numpy()[:, : mask.shape[1]][mask]
    np.testing.assert_allclose(padded, plain, atol=2e-6, rtol=1e-6)


def test_candidate_padding_changes_no_loss(trained):
    features = small_models.batch()
    plain = trained.loss_terms(features, SEED)
    padded = trained.loss_terms(_pad(features, candidates=2), SEED)
    assert plain.keys() == padded.keys()
    for name in plain:
        assert _mean(padded[name]) == pytest.approx(_mean(plain[name]), abs=1e-5), name


def test_history_padding_changes_no_main_loss(trained):
    """Self-supervised draws depend on shapes; their invariance is tested beside each loss."""
    features = small_models.batch()
    plain = trained.loss_terms(features, SEED)["log_loss"]
    padded = trained.loss_terms(_pad(features, steps=3), SEED)["log_loss"]
    assert _mean(padded) == pytest.approx(_mean(plain), abs=1e-5)


def test_many_candidates_score_as_single_ones(trained):
    features = small_models.batch(candidates=5)
    together = trained(features).numpy()
    for i in range(5):
        single = {
            name: value[:, i : i + 1] if name.startswith(("candidate/", "label")) else value
            for name, value in features.items()
        }
        np.testing.assert_allclose(trained(single).numpy()[:, 0], together[:, i], atol=1e-5)


def test_user_side_is_encoded_once_for_all_candidates(trained, monkeypatch):
    calls = []
    encode = trained.backbone.encode_user
    monkeypatch.setattr(
        trained.backbone, "encode_user", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    assert trained(small_models.batch(candidates=7)).shape == (6, 7)
    assert len(calls) == 1


def test_order_and_split_of_the_batch_change_nothing_at_inference(trained):
    features = small_models.batch()
    together = trained(features).numpy()
    backwards = {name: value[::-1] for name, value in features.items()}
    np.testing.assert_allclose(trained(backwards).numpy()[::-1], together, atol=2e-6)
    alone = {name: value[2:3] for name, value in features.items()}
    np.testing.assert_allclose(trained(alone).numpy()[0], together[2], atol=2e-6)


def test_empty_histories_have_finite_scores_and_gradients(trained):
    features = small_models.batch(requests=1)
    assert not features["history/item_id"].numpy().any()
    with tf.GradientTape() as tape:
        terms = trained.loss_terms(features, SEED)
        total = tf.add_n([tf.reduce_sum(t.values_Pn * t.weights_Pn) for t in terms.values()])
    assert np.isfinite(trained(features).numpy()).all()
    for gradient in tape.gradient(total, trained.trainable_variables):
        if gradient is not None:
            assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()


def test_every_weight_gets_a_gradient(trained):
    features = small_models.batch(requests=32, seed=1)
    # ReLU units of random weights may be dead for one draw; a weight is alive if any moves it.
    weights = trained.trainable_variables
    alive = [False] * len(weights)
    for seed in range(4):
        with tf.GradientTape() as tape:
            total, _ = trained._total(trained.loss_terms(features, tf.constant([seed, 1])), [])
        for i, gradient in enumerate(tape.gradient(total, weights)):
            assert gradient is not None, weights[i].name
            alive[i] |= bool(np.abs(tf.convert_to_tensor(gradient)).max() > 0)
    assert [w.name for w, moved in zip(weights, alive, strict=True) if not moved] == []


def test_train_step_lowers_the_loss_and_reports_every_term(trained):
    features = small_models.batch(requests=32)
    step = tf.function(trained.main_step)
    logs = [{name: float(v) for name, v in step(features).items()} for _ in range(60)]
    assert logs[-1]["log_loss"] < logs[0]["log_loss"]
    terms = set(trained.loss_terms(features, SEED))
    ratios = {f"{name}_ratio" for name in terms - {"log_loss"}}
    norms = {"gradient_norm", "gradient_norm_tables", "gradient_norm_dense"}
    assert set(logs[0]) == terms | ratios | norms | {"loss"}
    weights = {name: t.weight for name, t in trained.loss_terms(features, SEED).items()}
    assert logs[0]["loss"] == pytest.approx(
        sum(weights[name] * logs[0][name] for name in terms), rel=1e-5
    )


def test_log_loss_is_the_mean_over_valid_candidates(trained):
    features = small_models.batch()
    logits = trained(features).numpy().astype(np.float64)
    mask = features["candidate/item_id"].numpy() != 0
    label = features["label"].numpy()
    expected = (np.logaddexp(0, logits) - label * logits)[mask].mean()
    assert float(trained.test_step(features)["log_loss"]) == pytest.approx(expected, rel=1e-5)


def _weights_after_steps(run, steps=3):
    """Weights by place and name: the layers of a stack share names."""
    model = small_models.model(run)
    for i in range(steps):
        model.main_step(small_models.batch(seed=i))
    weights = [*model.embedder.trainable_variables, *model.backbone.trainable_variables]
    return {(i, weight.name): weight.numpy() for i, weight in enumerate(weights)}


def test_miss_changes_neither_initial_weights_nor_forward_pass():
    plain = small_models.model(small_models.config("din"))
    with_ssl = small_models.model(small_models.config("din", "miss"))
    features = small_models.batch()
    np.testing.assert_array_equal(plain(features).numpy(), with_ssl(features).numpy())
    names = {weight.name for weight in plain.trainable_variables}
    assert names < {weight.name for weight in with_ssl.trainable_variables}


def test_miss_of_weight_zero_trains_the_plain_backbone():
    plain = _weights_after_steps(small_models.config("din"))
    weightless = _weights_after_steps(
        small_models.config("din", "miss", "ssl.alpha=0.0", "train.clip_norm=0.0", *SUM)
    )
    for name, value in plain.items():
        np.testing.assert_array_equal(weightless[name], value, err_msg=str(name))


def test_deminet_views_draw_nothing_from_the_main_path():
    without = _weights_after_steps(small_models.config("deminet_wo_ssl"))
    vanishing = _weights_after_steps(
        small_models.config("deminet", "none", "model.ssl_weight=1e-30")
    )
    for name, value in without.items():
        np.testing.assert_allclose(vanishing[name], value, atol=1e-6, err_msg=str(name))


def test_same_seed_same_weights_other_seed_other_weights():
    run = small_models.config("deminet", "none")
    first, second = _weights_after_steps(run), _weights_after_steps(run)
    other = _weights_after_steps(small_models.config("deminet", "none", "train.seed=2"))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)
    assert any((other[name] != value).any() for name, value in first.items())


def test_gradient_is_clipped_to_its_global_norm():
    features = small_models.batch()
    norms = {}
    for bound in (0.0, 1e-3):
        model = small_models.model(small_models.config("din", "none", f"train.clip_norm={bound}"))
        model.optimizer.learning_rate = 0.0
        norms[bound] = float(model.main_step(features)["gradient_norm"])
        moments = model.optimizer.variables[2]
        norms[bound, "first moment"] = float(tf.reduce_max(tf.abs(moments)))
    assert norms[0.0] == pytest.approx(norms[1e-3])
    assert norms[1e-3, "first moment"] < norms[0.0, "first moment"]


def test_l2_is_the_squared_norm_of_the_kernels():
    features = small_models.batch()
    plain = small_models.model(small_models.config("din"))
    decayed = small_models.model(small_models.config("din", "none", "train.l2=0.5"))
    kernels = [w for w in plain.trainable_variables if "kernel" in w.name]
    expected = 0.5 * sum(float(tf.reduce_sum(kernel**2)) for kernel in kernels)
    difference = decayed.compute_loss(features, True) - plain.compute_loss(features, True)
    assert float(difference) == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_step():
    model = small_models.model(small_models.config("din"))
    model.embedder.tables["item_id"].assign(tf.fill([30, 8], np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        model.main_step(small_models.batch())
