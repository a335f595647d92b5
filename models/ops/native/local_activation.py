"""The local activation unit of DIN with two layers and Dice, in training, as one operation.

Shapes: B requests, N candidates, L history length, D item width, A and C widths of the layers.
"""

from typing import Any, NamedTuple

from models.keras import tf


class Weights(NamedTuple):
    """What the unit computes with.

    Attributes:
        product_kernel: Kernel of q * k in the first layer, [D, A].
        alpha1: Slopes of the first Dice, [A].
        kernel2: Kernel of the second layer, [A, C].
        alpha2: Slopes of the second Dice, [C].
        scorer: Kernel of the scores, [C].
        bias2: Bias of the second layer, [C].
    """

    product_kernel: tf.Tensor
    alpha1: tf.Tensor
    kernel2: tf.Tensor
    alpha2: tf.Tensor
    scorer: tf.Tensor
    bias2: tf.Tensor


class Activated(NamedTuple):
    """Scores [B, N, L], 0 where no pair exists, and the statistics of both Dice, [A] and [C]."""

    scores_BNL: tf.Tensor
    mean1: tf.Tensor
    variance1: tf.Tensor
    mean2: tf.Tensor
    variance2: tf.Tensor


def activate(
    operations: Any,
    queries_BND: tf.Tensor,
    events_BLD: tf.Tensor,
    of_queries_BNA: tf.Tensor,
    of_events_BLA: tf.Tensor,
    mask_BNL: tf.Tensor,
    weights: Weights,
    epsilon: float,
) -> Activated:
    """The unit for every pair of a candidate and an event that exists; differentiable.

    The same bits for any number of threads. No gradient goes through the statistics that it
    returns, as only moving averages read them.

    Args:
        operations: The library's, from `library.load`.
        queries_BND: Candidates q.
        events_BLD: Events k.
        of_queries_BNA: What the first layer adds up for the candidate.
        of_events_BLA: What it adds up for the event, its bias among it.
        mask_BNL: Which pairs exist.
        weights: The weights.
        epsilon: Constant that Dice adds to variances.

    Raises:
        tf.errors.InvalidArgumentError: Shapes do not fit together.
    """

    @tf.custom_gradient
    def activated(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        queries_BND, events_BLD, of_queries_BNA, of_events_BLA, *common, bias2 = inputs
        read = (queries_BND, events_BLD, mask_BNL, *common)
        scores_BNL, *kept = operations.sequence_ctr_local_activation(
            *read, of_queries_BNA, of_events_BLA, bias2, epsilon=epsilon
        )

        def gradient(of_scores_BNL: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor]:
            return operations.sequence_ctr_local_activation_grad(
                *read, *kept, of_scores_BNL, epsilon=epsilon
            )

        return [scores_BNL, *kept[2:]], gradient

    inputs = (queries_BND, events_BLD, of_queries_BNA, of_events_BLA, *weights)
    return Activated(*activated(*map(tf.convert_to_tensor, inputs)))
