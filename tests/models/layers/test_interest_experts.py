import numpy as np
import pytest

from models.keras import tf
from models.layers.interest_experts import ConfidenceNetwork, InterestExperts
from reference import deminet as reference

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(loc=2.0, size=(4, 3, 10)).astype(np.float32)
MASK = np.arange(3) < np.array([3, 2, 1, 3])[:, None]
INTERESTS = RANDOM.normal(size=(4, 3, 5, 6)).astype(np.float32)


def _experts() -> InterestExperts:
    layer = InterestExperts(10, 3, (8, 7))
    layer(INPUTS, MASK)
    for weight in layer.weights:
        weight.assign(RANDOM.uniform(0.2, 1, weight.shape) * RANDOM.choice([-1, 1], weight.shape))
    layer.normalize.moving_variance.assign(RANDOM.uniform(0.5, 2, 10))
    return layer


def expert_weights(
    layer: InterestExperts, k: int, mean: np.ndarray, variance: np.ndarray
) -> reference.ExpertWeights:
    kernels = [layer.kernels[0][:, k], *(kernel[k] for kernel in layer.kernels[1:])]
    return reference.ExpertWeights(
        mean=mean,
        variance=variance,
        epsilon=layer.normalize.epsilon,
        scale=layer.scale_IK.numpy()[:, k],
        offset=layer.offset_IK.numpy()[:, k],
        layers=[
            (kernel.numpy(), bias[k].numpy())
            for kernel, bias in zip(kernels, layer.biases, strict=True)
        ],
    )


@pytest.mark.parametrize("training", [True, False])
def test_each_expert_is_a_normalisation_and_a_network(training: bool) -> None:
    layer = _experts()
    mean, variance = INPUTS[MASK].mean(0), INPUTS[MASK].var(0)
    if not training:
        mean = layer.normalize.moving_mean.numpy()
        variance = layer.normalize.moving_variance.numpy()
    scores = layer(INPUTS, MASK, training=training).numpy()
    for b, n, k in np.ndindex(4, 3, 3):
        weights = expert_weights(layer, k, mean, variance)
        expected = reference.expert(INPUTS[b, n], weights)
        np.testing.assert_allclose(scores[b, n, k], expected, rtol=1e-4, atol=1e-5)


def test_no_weight_is_shared_by_experts() -> None:
    layer = _experts()
    with tf.GradientTape() as tape:
        second = tf.reduce_sum(layer(INPUTS, MASK, training=True)[..., 1] ** 2)
    for weight, gradient in zip(
        layer.trainable_weights, tape.gradient(second, layer.trainable_weights), strict=True
    ):
        axis = weight.shape.as_list().index(3)
        others = tuple(i for i in range(weight.shape.rank) if i != axis)
        moved = np.abs(gradient).max(others) > 0
        np.testing.assert_array_equal(moved, [False, True, False], weight.name)


def test_experts_start_different_and_with_their_own_fans() -> None:
    layer = InterestExperts(100, 4, (100, 50))
    limit = np.sqrt(6 / 200)
    assert 0.98 * limit < np.abs(layer.kernels[0]).max() <= limit
    assert np.abs(layer.kernels[0][:, 0] - layer.kernels[0][:, 1]).max() > 0.5 * limit


def _confidence() -> ConfidenceNetwork:
    layer = ConfidenceNetwork(6, 10, 5, (8, 7))
    layer(INTERESTS, INPUTS)
    for weight in layer.trainable_weights:
        weight.assign(RANDOM.normal(size=weight.shape))
    return layer


def confidence_layers(layer: ConfidenceNetwork) -> list[tuple[np.ndarray, np.ndarray]]:
    first = np.concatenate([layer.interest_half.kernel, layer.context_half.kernel])
    rest = [(dense.kernel.numpy(), dense.bias.numpy()) for dense in layer.rest.stack]
    return [(first, layer.context_half.bias.numpy()), *rest]


def test_confidence_equals_equation_14() -> None:
    layer = _confidence()
    confidence = layer(INTERESTS, INPUTS).numpy()
    for b, n in np.ndindex(4, 3):
        expected = reference.confidences(
            list(INTERESTS[b, n]),
            INPUTS[b, n],
            confidence_layers(layer),
            layer.prototypes_KD.numpy(),
        )
        np.testing.assert_allclose(confidence[b, n], expected, atol=1e-5)
    np.testing.assert_allclose(confidence.sum(-1), 1, atol=1e-6)  # Invariant 12.
