"""MISS: golden values, the NumPy twin, where it draws, and that it leaves the model alone."""

import itertools

import numpy as np
import pytest

from models.backbone_api import Dims
from models.backbones.din import DIN, DINConfig
from models.keras import keras, tf
from models.ops import replicas
from models.ssl.extractors import EXTRACTORS
from models.ssl.miss import MISS, MISSConfig, Pairs
from preprocessing.errors import UserError
from tests.reference import embedded
from tests.reference import miss as reference

DIMS = Dims(user_fields=1, history_features=2, extra_fields=0, embedding_size=4, max_length=9)
LENGTHS = (9, 4, 0, 1, 2, 3, 7, 5)
SEED = tf.constant([3, 8])


def build(config=None, dims=DIMS, *, random=True):
    ssl = MISS(config or MISSConfig(), dims)
    ssl.losses(*embedded.batch(dims, [3, 5]), seed=SEED)
    if random:
        embedded.randomize(ssl, seed=1)
        # Positive, so that the rectifiers stay alive.
        for weight in ssl.trainable_variables:
            if weight.name.startswith(("horizontal", "vertical")):
                weight.assign(tf.abs(weight) + 0.1)
    return ssl


def total(terms):
    """The summands of the training loss (see LossTerm)."""
    return tf.add_n(
        [
            term.weight
            * tf.reduce_mean(
                tf.math.divide_no_nan(
                    tf.reduce_sum(term.values_Pn * term.weights_Pn, -1),
                    tf.reduce_sum(term.weights_Pn, -1),
                )
            )
            for term in terms.values()
        ]
    )


def slots(config, features):
    """(m, n, rows) of each slot; n and rows are None in a slot of interests."""
    sizes = range(1, 2 if config.extractor != "cnn" else config.widths + 1)
    interests = [(m, None, None) for m in sizes for _ in range(config.pairs_per_filter)]
    heights = range(1, min(config.heights, features) + 1)
    return interests + [
        (m, n, features - n + 1)
        for m, n in itertools.product(sizes, heights)
        for _ in range(config.feature_pairs_per_filter)
    ]


def _pick(flat, size):
    """The filter of `size` scalars among those of 1, 2, ... end to end."""
    start = size * (size - 1) // 2
    return flat[start : start + size]


def horizontal_kernel(ssl, m):
    return _pick(ssl.extractor.horizontal.numpy(), m)


def vertical_kernel(ssl, m, n):
    return _pick(ssl.vertical.numpy()[m - 1], n)


def draw(ssl, lengths, seed=SEED):
    mask = np.arange(DIMS.max_length) < np.array(lengths)[:, None]
    return Pairs(*(value.numpy() for value in ssl.draw(tf.constant(mask), seed)))


# --- golden values ---


def test_golden_convolutions():
    ssl = build(MISSConfig(heights=2, pairs_per_filter=1), Dims(1, 2, 0, 1, 4), random=False)
    ssl.extractor.horizontal.assign([1.0, 0.5, 1.0, 1.0, 1.0, -1.0])
    ssl.vertical.assign([[1.0, 1.0, 0.5]] * 3)
    user, _ = embedded.batch(Dims(1, 2, 0, 1, 4), [4] * 3)
    row = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
    user = user._replace(history_BLJd=tf.constant(np.tile(row[None, :, None, None], (3, 1, 2, 1))))
    starts_SVB = np.tile(np.arange(3), (len(ssl._horizontal_S), 2, 1))
    starts_SVB = tf.constant(starts_SVB, tf.int32)
    merged = ssl.extractor.interests(user, starts_SVB, ssl._horizontal_S).numpy()
    np.testing.assert_allclose(merged[1, 0, :, 0, 0], [0.0, 2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(merged[2, 0, :2, 0, 0], [0.0, 0.5], atol=1e-6)

    windows = np.zeros((6, 2, 2, 2, 1), np.float32)  # Q, V, B, J, d
    windows[..., 0, 0], windows[..., 1, 0] = [1.0, 2.0], [3.0, 4.0]
    features = ssl._merge_features(tf.constant(windows), tf.zeros([6, 2, 2], tf.int32))
    np.testing.assert_allclose(features[1, 0, :, 0], [2.5, 4.0], atol=1e-6)


def test_golden_number_of_parameters():
    ssl = build(MISSConfig(), Dims(1, 2, 0, 10, 50), random=False)
    assert sum(int(np.prod(w.shape)) for w in ssl.trainable_variables) == 1075
    assert ssl.extractor.horizontal.shape == (6,)
    assert ssl.vertical.shape == (3, 3)


def test_filters_start_as_averages():
    ssl = build(random=False)
    np.testing.assert_allclose(ssl.extractor.horizontal, [1.0] + [1 / 2] * 2 + [1 / 3] * 3)
    np.testing.assert_allclose(ssl.vertical, [[1.0, 0.5, 0.5]] * 3)


# --- the twin ---


def drawn_interests(ssl, config, user, pairs, slot, m):
    """The interests [J, d] of each view of a slot, None where the history is too short."""
    found = []
    for v in range(2):
        row = []
        for b, length in enumerate(LENGTHS):
            history = user.history_BLJd.numpy()[b, :length].astype(np.float64)
            place = pairs.events.numpy()[slot, v, b]
            if config.extractor == "sample":
                kept = place[:length]
                row.append(history[kept].mean(0) if kept.any() else None)
                continue
            if place + m > length:
                row.append(None)
            elif config.extractor == "cnn":
                row.append(reference.window(history, horizontal_kernel(ssl, m), place))
            else:
                flat, weights = history.reshape(length, -1), ssl.extractor.get_weights()
                twin = {"sa": reference.self_attention, "lstm": reference.lstm}[config.extractor]
                row.append(twin(flat, *weights)[place].reshape(history.shape[1:]))
        found.append(row)
    return found


@pytest.mark.parametrize(
    ("config", "features"),
    [
        (MISSConfig(), 2),
        (MISSConfig(pairs_per_filter=2, feature_pairs_per_filter=2, temperature=0.3), 3),
        (MISSConfig(widths=4, heights=3, distances=1), 1),
        (MISSConfig(widths=1, heights=1, encoder_units=(5,), feature_encoder_units=(4, 3, 2)), 2),
        (MISSConfig(distance_distribution="gaussian", distances=4), 2),
        (MISSConfig(heights=0, widths=2), 2),
        (MISSConfig(extractor="sa", heights=3), 3),
        (MISSConfig(extractor="lstm"), 2),
        (MISSConfig(extractor="sample", pairs_per_filter=2), 2),
    ],
    ids=["default", "repeated", "one_feature", "smallest", "gaussian", "F", "sa", "lstm", "M"],
)
def test_equals_the_twin(config, features):
    dims = DIMS._replace(history_features=features)
    ssl = build(config, dims)
    user, candidates = embedded.batch(dims, LENGTHS)
    key = tf.constant([1, 2, 3, 4, 5, 6, 1, 7])
    user = user._replace(key_B=key)
    pairs = ssl.draw(user.mask_BL, SEED)
    terms = ssl.losses(user, candidates, seed=SEED)
    assert list(terms) == ["miss_interest", "miss_feature"][: 1 + bool(config.heights)]
    values = np.concatenate([term.values_Pn for term in terms.values()])
    weights = np.concatenate([term.weights_Pn for term in terms.values()])
    shapes = slots(config, features)
    assert len(shapes) == len(values)
    for s, (m, n, rows) in enumerate(shapes):
        q = s - sum(shape[1] is None for shape in shapes)
        interests = drawn_interests(ssl, config, user, pairs, s, m)
        over_time = n is None or rows == 1
        valid = [length - m + 1 >= (2 if over_time else 1) for length in LENGTHS]
        encoder = ssl.encoder if n is None else ssl.feature_encoder
        expected = reference.slot_loss(
            interests,
            None if n is None else pairs.rows_QVB.numpy()[q],
            None if n is None else vertical_kernel(ssl, m, n),
            [[w.numpy() for w in layer.weights] for layer in encoder.stack],
            valid,
            key.numpy(),
            config.temperature,
        )
        np.testing.assert_array_equal(weights[s] > 0, valid)
        np.testing.assert_allclose(values[s], expected, rtol=1e-6, atol=4e-6)
        np.testing.assert_allclose(np.mean(values[s]), np.mean(expected), rtol=1e-6, atol=1e-6)


def test_symmetric_contrast_swaps_the_views():
    user, candidates = embedded.batch(DIMS, LENGTHS)
    one_sided, symmetric = build(), build(MISSConfig(symmetric=True))
    symmetric.set_weights(one_sided.get_weights())
    views = one_sided.views(user, candidates, SEED)
    both = symmetric.losses(user, candidates, seed=SEED)
    for name, term in both.items():
        forward = views[name]
        backward = forward._replace(first_PBw=forward.second_PBw, second_PBw=forward.first_PBw)
        mean = (one_sided.contrast(forward) + one_sided.contrast(backward)) / 2
        np.testing.assert_allclose(term.values_Pn, mean, rtol=1e-5, atol=1e-6)


# --- where it draws ---


def test_draws_stay_inside_the_history():
    config = MISSConfig(pairs_per_filter=5, feature_pairs_per_filter=5)
    ssl = build(config, DIMS._replace(history_features=3))
    lengths = np.arange(DIMS.max_length + 1)
    for step in range(20):
        pairs = draw(ssl, lengths, tf.constant([0, step]))
        for s, (m, n, rows) in enumerate(slots(config, 3)):
            windows = lengths - m + 1
            over_time = n is None or rows == 1
            np.testing.assert_array_equal(pairs.valid_SB[s], windows >= (2 if over_time else 1))
            valid = pairs.valid_SB[s]
            first, second = pairs.events[s, :, valid].T
            assert np.all(first >= 0)
            assert np.all(second + m <= lengths[valid])
            if over_time:
                assert np.all((second - first >= 1) & (second - first <= config.distances))
            else:
                np.testing.assert_array_equal(first, second)
            if n is not None:
                row, other = pairs.rows_QVB[s - config.widths * 5, :, valid].T
                assert np.all((np.minimum(row, other) >= 0) & (np.maximum(row, other) < rows))
                assert np.all((row != other) == (rows > 1))


def test_draws_of_the_shortest_histories():
    ssl = build(MISSConfig(pairs_per_filter=1))
    alone = draw(ssl, [1] * 50)
    interests = alone.valid_SB[:3]
    assert not interests.any()
    three = draw(ssl, [3] * 50)
    # Filter 2 has two windows and so one pair; filter 3 has one window and none.
    np.testing.assert_array_equal(three.events[1], [[0] * 50, [1] * 50])
    assert three.valid_SB[1].all()
    assert not three.valid_SB[2].any()


@pytest.mark.parametrize("length", [9, 4, 3])
def test_distances_and_starts_are_uniform(length):
    ssl = build(MISSConfig(pairs_per_filter=1))
    size = 30_000
    pairs = draw(ssl, [length] * size)
    for s, m in enumerate((1, 2, 3)):
        windows = length - m + 1
        if windows < 2:
            continue
        first, second = pairs.events[s]
        furthest = min(3, windows - 1)
        counts = np.bincount(second - first, minlength=furthest + 1)[1:]
        # Six standard deviations of a binomial count.
        tolerance = 6 * np.sqrt(size / furthest)
        np.testing.assert_allclose(counts, size / furthest, atol=tolerance)
        near = first[second - first == 1]
        counts = np.bincount(near, minlength=windows - 1)
        expected = len(near) / (windows - 1)
        np.testing.assert_allclose(counts, expected, atol=6 * np.sqrt(expected))


def test_features_of_a_window_are_uniform():
    ssl = build(dims=DIMS._replace(history_features=3))
    pairs = draw(ssl, [9] * 30_000)
    first, second = pairs.rows_QVB[0]
    counts = np.bincount(first * 3 + second, minlength=9).reshape(3, 3)
    assert not np.diag(counts).any()
    np.testing.assert_allclose(counts[~np.eye(3, dtype=bool)], 5000, atol=6 * np.sqrt(5000))


def test_slots_and_steps_draw_their_own():
    ssl = build(MISSConfig(pairs_per_filter=2))
    lengths = [9] * 200
    first = draw(ssl, lengths)
    again = draw(ssl, lengths)
    later = draw(ssl, lengths, SEED + 1)
    np.testing.assert_array_equal(first.events, again.events)
    assert (first.events != later.events).mean() > 0.5
    assert (first.events[0] != first.events[1]).mean() > 0.5


@pytest.mark.parametrize("extractor", ["cnn", "sample"])
def test_replicas_draw_what_one_would_have_drawn(monkeypatch, extractor):
    ssl = build(MISSConfig(extractor=extractor))
    lengths = [9, 4, 0, 7, 2, 9, 3, 1]
    whole = draw(ssl, lengths)
    monkeypatch.setattr(replicas, "rows", lambda batch: (tf.constant(5), tf.constant(8)))
    share = draw(ssl, lengths[5:])
    np.testing.assert_array_equal(share.events, whole.events[:, :, 5:])
    np.testing.assert_array_equal(share.rows_QVB, whole.rows_QVB[:, :, 5:])


def test_gaussian_distances_follow_their_density():
    ssl = build(MISSConfig(distance_distribution="gaussian", distances=4, distance_scale=2.0))
    size = 40_000
    for length, furthest in ((9, 4), (4, 3), (2, 1)):
        first, second = draw(ssl, [length] * size).events[0]
        counts = np.bincount(second - first, minlength=furthest + 1)[1:]
        density = np.exp(-(np.arange(1, furthest + 1) ** 2) / 8)
        expected = size * density / density.sum()
        assert len(counts) == furthest
        # Six standard deviations of a binomial count.
        np.testing.assert_array_less(abs(counts - expected), 6 * np.sqrt(expected) + 1)


def test_sample_views_keep_half_and_never_nothing():
    config = MISSConfig(extractor="sample", pairs_per_filter=1)
    ssl = build(config, DIMS._replace(history_features=3))
    lengths = np.tile([1, 3, 9], 4000)
    pairs = draw(ssl, lengths)
    size_SVB = pairs.events.sum(-1)
    assert size_SVB.min() == 1
    np.testing.assert_array_equal(pairs.valid_SB[0], lengths >= 2)
    # The smallest of the draws stays anyway: 4.5 of 9 on average, and once in 2^9 one more.
    np.testing.assert_allclose(size_SVB[0, 0, 2::3].mean(), 4.5 + 2**-9, atol=0.1)
    # Copies of the whole are drawn apart; two features are of the same copy.
    assert (pairs.events[0, 0] != pairs.events[0, 1]).any()
    np.testing.assert_array_equal(pairs.events[1, 0], pairs.events[1, 1])


# --- invariants ---


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_padding_changes_nothing(extractor):
    ssl = build(MISSConfig(extractor=extractor))
    user, candidates = embedded.batch(DIMS, LENGTHS)
    padded = embedded.pad(user, 6, 1e3)

    def loss_and_gradient(user):
        with tf.GradientTape() as tape:
            tape.watch(user.history_BLJd)
            value = total(ssl.losses(user, candidates, seed=SEED))
        gradient = tf.convert_to_tensor(tape.gradient(value, user.history_BLJd))
        return value, gradient.numpy()

    value, gradient = loss_and_gradient(user)
    padded_value, padded_gradient = loss_and_gradient(padded)
    np.testing.assert_allclose(padded_value, value, rtol=1e-6)
    np.testing.assert_allclose(padded_gradient[:, : DIMS.max_length], gradient, atol=1e-6)
    assert not padded_gradient[:, DIMS.max_length :].any()
    assert not gradient[~user.mask_BL.numpy()].any()


@pytest.mark.parametrize("lengths", [[0, 0, 0], [1, 1, 1], [0, 1, 0]])
def test_nothing_to_pair_is_no_loss(lengths):
    ssl = build(dims=DIMS._replace(history_features=1))
    user, candidates = embedded.batch(DIMS._replace(history_features=1), lengths, length=1)
    with tf.GradientTape() as tape:
        tape.watch(user.history_BLJd)
        value = total(ssl.losses(user, candidates, seed=SEED))
    assert value == 0.0
    for gradient in tape.gradient(value, [user.history_BLJd, *ssl.trainable_variables]):
        np.testing.assert_array_equal(tf.convert_to_tensor(gradient), 0.0)


def test_a_gradient_reaches_every_weight_and_every_event():
    ssl = build(MISSConfig(pairs_per_filter=8))
    user, candidates = embedded.batch(DIMS, [9] * 6)
    with tf.GradientTape() as tape:
        tape.watch(user.history_BLJd)
        value = total(ssl.losses(user, candidates, seed=SEED))
    history, *gradients = tape.gradient(value, [user.history_BLJd, *ssl.trainable_variables])
    for weight, gradient in zip(ssl.trainable_variables, gradients, strict=True):
        assert np.any(gradient.numpy()), weight.name
    assert np.all(gradients[0].numpy())  # Every scalar of every horizontal filter,
    assert np.all(gradients[1].numpy())  # and of every vertical one.
    assert np.any(tf.convert_to_tensor(history).numpy(), axis=(2, 3)).all()


def test_alpha_scales_and_switches_off():
    user, candidates = embedded.batch(DIMS, LENGTHS)

    def gradient(**alphas):
        ssl = build(MISSConfig(**alphas))
        with tf.GradientTape() as tape:
            tape.watch(user.history_BLJd)
            value = total(ssl.losses(user, candidates, seed=SEED))
        return tf.convert_to_tensor(tape.gradient(value, user.history_BLJd)).numpy()

    assert not gradient(alpha=0.0).any()
    interest = gradient(alpha=1.0, alpha_feature=0.0)
    feature = gradient(alpha=0.0, alpha_feature=1.0)
    assert interest.any()
    assert feature.any()
    np.testing.assert_allclose(gradient(alpha=0.5), 0.5 * (interest + feature), atol=1e-6)


def test_without_features_is_alpha_feature_zero():
    """MISS/F of table VI, under the same draws."""
    user, candidates = embedded.batch(DIMS, LENGTHS)
    whole, reduced = build(MISSConfig(alpha_feature=0.0)), build(MISSConfig(heights=0))
    reduced.extractor.set_weights(whole.extractor.get_weights())
    reduced.encoder.set_weights(whole.encoder.get_weights())
    assert len(whole.losses(user, candidates, seed=SEED)) == 2
    assert len(reduced.losses(user, candidates, seed=SEED)) == 1
    gradients = []
    for ssl in (whole, reduced):
        with tf.GradientTape() as tape:
            tape.watch(user.history_BLJd)
            value = total(ssl.losses(user, candidates, seed=SEED))
        gradients.append(tf.convert_to_tensor(tape.gradient(value, user.history_BLJd)).numpy())
    assert gradients[0].any()
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-6, atol=1e-7)


def test_leaves_the_model_alone():
    """Same initial weights, logits and (with alpha 0) gradients as the model without it."""
    user, candidates = embedded.batch(DIMS, LENGTHS)

    def run(with_ssl):
        keras.utils.set_random_seed(5)
        model = DIN(DINConfig(), DIMS)
        ssl = MISS(MISSConfig(alpha=0.0), DIMS) if with_ssl else None
        with tf.GradientTape() as tape:
            state = model.encode_user(user, training=True, seed=SEED)
            logits = model.score(state, candidates, training=True)
            value = tf.reduce_mean(tf.square(logits))
            if ssl is not None:
                value += total(ssl.losses(user, candidates, seed=SEED))
        gradients = tape.gradient(value, model.trainable_variables)
        return [logits, *model.get_weights(), *gradients]

    for plain, joint in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(plain, joint)


def test_fewer_features_than_heights():
    ssl = build(MISSConfig(heights=3), DIMS._replace(history_features=2))
    assert ssl.vertical.shape == (3, 3)
    assert len(ssl._vertical_Q) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder_units": ()},
        {"feature_encoder_units": ()},
        {"distance_distribution": "cauchy"},
        {"extractor": "rnn"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_cannot_work_are_named(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        MISSConfig(**settings)
