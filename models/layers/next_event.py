"""Prediction of the next event from each state of a history (auxiliary loss of DIEN and DMIN).

Shapes: B requests, L history length, D item width.
"""

from collections.abc import Sequence

from models.keras import keras, tf
from models.layers.mlp import MLP
from models.ops import randomness
from models.ops.weight_layouts import Layout, Layouts


class NextEvent(keras.layers.Layer):
    """A network that separates the next event of a state from another one (Zhou et al., 2019).

    The papers use items that were displayed and not clicked as negatives. Logs of clicks have none,
    so here negatives are events of another request of the batch, at a distance in the batch that is
    drawn at each step for all requests. Requests of the same user are not negatives of each other.
    With several replicas, each draws from its own share of the batch.

    Args:
        units: Hidden widths of the network.

    Example:
        >>> events_BLD, mask_BL = tf.ones([4, 5, 8]), tf.ones([4, 5], tf.bool)
        >>> seed = tf.constant([1, 2])
        >>> losses, weights = NextEvent()(events_BLD, events_BLD, mask_BL, tf.range(4), seed)
        >>> losses.shape, weights[0].numpy()
        (TensorShape([4, 4]), array([1., 1., 1., 1.], dtype=float32))
    """

    def __init__(self, units: Sequence[int] = (100, 50), name: str = "next_event") -> None:
        super().__init__(name=name)
        self.network = MLP((*units, 1), "sigmoid", name="network")

    def layouts(self, item: Layout) -> Layouts:
        """Layouts of the weights, for states and events laid out as `item`."""
        yield from self.network.layouts(item * 2)

    def call(
        self,
        states_BLD: tf.Tensor,
        events_BLD: tf.Tensor,
        mask_BL: tf.Tensor,
        key_B: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sum of the binary cross-entropies of the next event and the negative.

        Args:
            states_BLD: State after each event.
            events_BLD: The events.
            mask_BL: True for events, a prefix.
            key_B: Encoded user key.
            seed: Seed of the draw, int32 [2].

        Returns:
            Losses [B, L - 1] of the states that have a successor, and weights: 1 for states whose
            request has a negative, else 0.
        """
        shift = 1 + randomness.integers(seed, tf.shape(key_B)[0] - 1)
        negatives_BLD, has_events_B = _borrow(events_BLD, mask_BL, shift)
        is_negative_B = has_events_B & (tf.roll(key_B, -shift, 0) != key_B)
        states = states_BLD[:, :-1]
        loss = tf.nn.softplus(-self._logits(states, events_BLD[:, 1:]))
        loss += tf.nn.softplus(self._logits(states, negatives_BLD[:, 1:]))
        return loss, tf.cast(mask_BL[:, 1:] & is_negative_B[:, None], loss.dtype)

    def _logits(self, states: tf.Tensor, events: tf.Tensor) -> tf.Tensor:
        """Logit that the event follows the state; without the last axis."""
        return self.network(tf.concat([states, events], -1))[..., 0]


def _borrow(
    events_BLD: tf.Tensor, mask_BL: tf.Tensor, shift: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The events of the request `shift` rows later, repeated up to L, and whether it has any."""
    lengths_B = tf.roll(tf.reduce_sum(tf.cast(mask_BL, tf.int32), 1), -shift, 0)
    steps_BL = tf.range(tf.shape(mask_BL)[1]) % tf.maximum(lengths_B, 1)[:, None]
    return tf.gather(tf.roll(events_BLD, -shift, 0), steps_BL, batch_dims=1), lengths_B > 0
