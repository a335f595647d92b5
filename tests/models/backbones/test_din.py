"""DIN against its NumPy twin and the invariants every model must keep."""

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.din import DIN, DINConfig
from models.keras import tf
from preprocessing.errors import UserError
from tests.reference import din as reference
from tests.reference import embedded

DIMS = Dims(user_fields=2, history_features=2, extra_fields=1, embedding_size=4, max_length=7)
LENGTHS = (7, 3, 0, 1, 5)


def build(config=None, dims=DIMS, *, random=True):
    model = DIN(config or DINConfig(attention_units=(6, 5), units=(8, 6)), dims)
    score(model, *embedded.batch(dims, [2]))
    if random:
        embedded.randomize(model, seed=3)
    return model


def score(model, user, candidates, training=False):
    state = model.encode_user(user, training=training, seed=tf.constant([1, 2]))
    return model.score(state, candidates, training=training)


def twin_weights(model):
    """The weights of a DIN as the twin wants them."""
    attention = model.attention

    def dense(layer):
        kernel = layer.kernel.numpy()
        return kernel, 0.0 if layer.bias is None else layer.bias.numpy()

    return {
        "hidden": [dense(attention), *map(dense, attention.hidden)],
        "dice": [
            tuple(
                w.numpy()
                for w in (
                    layer.alpha,
                    layer.normalization.moving_mean,
                    layer.normalization.moving_variance,
                )
            )
            for layer in attention.dice
        ],
        "scorer": dense(attention.scorer),
        "dnn": [dense(layer) for layer in model.dnn.stack],
    }


def twin_logits(model, user, candidates, **options):
    shape = candidates.extra_BNEd.shape
    return reference.logits(
        user.fields_BFd.numpy(),
        user.history_BLD.numpy(),
        user.mask_BL.numpy(),
        candidates.target_BND.numpy(),
        candidates.extra_BNEd.numpy().reshape(shape[0], shape[1], -1),
        candidates.mask_BN.numpy(),
        twin_weights(model),
        **options,
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("activation", "normalize"), [("dice", False), ("dice", True), ("sigmoid", True)]
)
def test_equals_the_twin(activation, normalize, training):
    config = DINConfig(
        attention_units=(6, 5),
        attention_activation=activation,
        normalize=normalize,
        units=(8, 6),
    )
    model = build(config)
    user, candidates = embedded.batch(DIMS, LENGTHS, valid_candidates=(3, 1, 2, 3, 2))
    expected = twin_logits(model, user, candidates, normalize=normalize, training=training)
    logits = score(model, user, candidates, training=training)
    real = candidates.mask_BN.numpy()
    tolerance = 1e-5 if training else 2e-6  # Batch statistics in float32 cost a digit.
    np.testing.assert_allclose(logits.numpy()[real], expected[real], tolerance, tolerance)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS)
    padded = embedded.pad(user, 4)

    def loss_and_gradient(user):
        with tf.GradientTape() as tape:
            tape.watch(user.history_BLJd)
            logits = score(model, user, candidates, training=training)
            loss = tf.reduce_sum(tf.square(logits))
        return logits, tape.gradient(loss, user.history_BLJd)

    logits, gradient = loss_and_gradient(user)
    padded_logits, padded_gradient = loss_and_gradient(padded)
    np.testing.assert_allclose(padded_logits, logits, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(padded_gradient[:, : DIMS.max_length], gradient, atol=1e-5)
    assert not padded_gradient[:, DIMS.max_length :].numpy().any()


def test_padded_candidates_do_not_enter_the_statistics():
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS, valid_candidates=(2,) * 5)
    other = candidates._replace(
        target_BNJd=tf.where(candidates.mask_BN[..., None, None], candidates.target_BNJd, 50.0)
    )
    real = candidates.mask_BN.numpy()
    logits = score(model, user, candidates, training=True).numpy()
    np.testing.assert_allclose(
        score(model, user, other, training=True).numpy()[real], logits[real], atol=2e-6
    )


def test_an_empty_history_is_an_empty_pool():
    model = build()
    user, candidates = embedded.batch(DIMS, [0, 0])
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        logits = score(model, user, candidates, training=True)
        loss = tf.reduce_sum(logits)
    gradients = tape.gradient(loss, weights)
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)
    inputs = np.concatenate(
        [
            np.repeat(user.fields_BFd.numpy().reshape(2, 1, -1), 3, 1),
            candidates.target_BND.numpy(),
            candidates.extra_BNEd.numpy().reshape(2, 3, -1),
            np.zeros((2, 3, DIMS.item_width)),
        ],
        -1,
    )
    np.testing.assert_allclose(logits, model.dnn(tf.constant(inputs, tf.float32))[..., 0])


def test_requests_are_independent_at_inference():
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS)
    logits = score(model, user, candidates).numpy()
    order = np.array([4, 2, 0, 1])

    def pick(rows):
        return tf.nest.map_structure(lambda value: tf.gather(value, order), rows)

    np.testing.assert_allclose(
        score(model, pick(user), pick(candidates)), logits[order], rtol=1e-6, atol=1e-6
    )


def test_many_candidates_equal_one_at_a_time_and_the_user_is_encoded_once():
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS, candidates=6)
    calls = []
    encode_events = model.attention.encode_events
    model.attention.encode_events = lambda events: calls.append(1) or encode_events(events)
    together = score(model, user, candidates).numpy()
    assert len(calls) == 1
    for n in range(6):
        single = type(candidates)(*(value[:, n : n + 1] for value in candidates))
        np.testing.assert_allclose(
            score(model, user, single)[:, 0], together[:, n], rtol=1e-5, atol=1e-5
        )


def test_the_order_of_events_does_not_matter():
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS)
    rng = np.random.default_rng(5)
    order = np.array(
        [np.r_[rng.permutation(n), np.arange(n, DIMS.max_length)] for n in LENGTHS], np.int32
    )
    shuffled = user._replace(history_BLJd=tf.gather(user.history_BLJd, order, batch_dims=1))
    np.testing.assert_allclose(
        score(model, shuffled, candidates), score(model, user, candidates), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("activation", ["dice", "sigmoid"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_gradient_reaches_every_weight(activation, normalize):
    model = build(DINConfig(attention_activation=activation, normalize=normalize), random=False)
    user, candidates = embedded.batch(DIMS, LENGTHS)
    label = tf.constant(np.arange(15).reshape(5, 3) % 2, tf.float32)
    with tf.GradientTape() as tape:
        logits = score(model, user, candidates, training=True)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=label, logits=logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.name
        assert np.any(gradient.numpy()), weight.name


def test_explains_by_attention():
    model = build(DINConfig(normalize=True))
    user, candidates = embedded.batch(DIMS, LENGTHS)
    state = model.encode_user(user)
    explanation = model.explain(state, candidates)
    np.testing.assert_array_equal(explanation["confidence_BNK"], np.ones((5, 3, 1)))
    attention = explanation["attention_BNKL"].numpy()
    assert attention.shape == (5, 3, 1, DIMS.max_length)
    sums = np.where(np.array(LENGTHS) > 0, 1.0, 0.0)
    np.testing.assert_allclose(
        attention.sum(-1), np.broadcast_to(sums[:, None, None], (5, 3, 1)), atol=1e-6
    )
    assert not attention[~np.broadcast_to(user.mask_BL[:, None, None], attention.shape)].any()


def test_defaults_are_those_of_the_paper():
    model = build(DINConfig(), Dims(1, 2, 0, 10, 50), random=False)
    kernels = [w.shape.as_list() for w in model.trainable_variables if "kernel" in w.name]
    assert kernels == [[80, 80], [80, 40], [40, 1], [50, 40], [40, 40], [40, 40], [40, 1]]
    assert DINConfig().embedding_size == 10


def test_an_unknown_activation_is_named():
    with pytest.raises(UserError, match="dice, sigmoid, found 'relu'"):
        DINConfig(attention_activation="relu")


def test_runs_in_a_graph_with_unknown_sizes():
    model = build()
    user, candidates = embedded.batch(DIMS, LENGTHS)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 2, 4]),
            tf.TensorSpec([None, None], tf.bool),
            tf.TensorSpec([None, 2, 4]),
            tf.TensorSpec([None, None, 2, 4]),
            tf.TensorSpec([None, None, 1, 4]),
        ]
    )
    def serve(history, mask, fields, target, extra):
        rows = user._replace(history_BLJd=history, mask_BL=mask, fields_BFd=fields)
        valid = tf.ones(tf.shape(target)[:2], tf.bool)
        return score(
            model, rows, candidates._replace(target_BNJd=target, extra_BNEd=extra, mask_BN=valid)
        )

    logits = serve(
        user.history_BLJd,
        user.mask_BL,
        user.fields_BFd,
        candidates.target_BNJd,
        candidates.extra_BNEd,
    )
    np.testing.assert_allclose(logits, score(model, user, candidates), rtol=1e-5, atol=1e-6)
