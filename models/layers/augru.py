"""AUGRU: a recurrent unit whose update gate is scaled by a candidate's attention.

Shapes: B requests, N candidates, L history length, D width of the input, U width of the state.
"""

from models.keras import keras, tf
from models.ops.weight_layouts import Layout, Layouts, hidden, of_dense


def augru_step(
    state: tf.Tensor, update: tf.Tensor, proposal: tf.Tensor, attention: tf.Tensor
) -> tf.Tensor:
    """The new state (1 - a u) h + a u c (AUGRU of DIEN: Zhou et al., 2019).

    Attention 0 keeps the state, and attention 1 gives a plain GRU. The authors' code uses (1 - a) u
    as the share of the *old* state instead, which overwrites the state where attention is 0.

    Args:
        state: Old state h.
        update: Update gate u in [0, 1].
        proposal: Proposed state c.
        attention: Attention a, broadcastable to the other arguments.

    Example:
        >>> state, update, proposal = tf.constant(1.0), tf.constant(0.5), tf.constant(3.0)
        >>> [float(augru_step(state, update, proposal, tf.constant(a))) for a in (0.0, 0.5, 1.0)]
        [1.0, 1.5, 2.0]
    """
    share = attention * update
    return (1.0 - share) * state + share * proposal


class AUGRU(keras.layers.Layer):
    """Evolves a state over the history, weighted by a candidate's attention (Zhou et al., 2019).

    u = sigmoid(Wu x + Uu h + bu), r = sigmoid(Wr x + Ur h + br), c = tanh(Wc x + r (Uc h) + bc).

    Args:
        units: Width U of the state.

    Example:
        >>> inputs_BLD, mask_BL = tf.ones([2, 5, 8]), tf.ones([2, 5], tf.bool)
        >>> AUGRU(units=4)(inputs_BLD, tf.ones([2, 3, 5]), mask_BL).shape
        TensorShape([2, 3, 4])
    """

    def __init__(self, units: int, name: str = "augru") -> None:
        super().__init__(name=name)
        self.units = units
        self.of_input = keras.layers.Dense(3 * units, name="of_input")

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the kernel of the state, [U, 3 U]."""
        del shape
        self.of_state = self.add_weight(
            name="state_kernel", shape=(self.units, 3 * self.units), initializer="orthogonal"
        )

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights, for an input laid out as `reads`."""
        gates = hidden(self.units, groups=3)
        yield from of_dense(self.of_input, reads, gates)
        yield self.of_state, (hidden(self.units), gates)

    def call(
        self, inputs_BLD: tf.Tensor, attention_BNL: tf.Tensor, mask_BL: tf.Tensor
    ) -> tf.Tensor:
        """Runs over the history once, for all candidates at the same time.

        Args:
            inputs_BLD: Candidate-independent inputs, finite at padding.
            attention_BNL: Weight of each step for each candidate.
            mask_BL: Mask of the events; padding does not change the state.

        Returns:
            State after the last valid step [B, N, U]; 0 for an empty history.
        """
        inputs_LBU = tf.transpose(self.of_input(inputs_BLD), [1, 0, 2])
        attention_BNL = tf.where(mask_BL[:, None], attention_BNL, 0.0)
        attention_LBN1 = tf.transpose(attention_BNL, [2, 0, 1])[..., None]

        def step(state_BNU: tf.Tensor, elements: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            inputs_BU, attention_BN1 = elements
            update, reset, proposal = tf.split(inputs_BU[:, None], 3, -1)
            update_of, reset_of, proposal_of = tf.split(
                tf.tensordot(state_BNU, self.of_state, 1), 3, -1
            )
            reset = tf.sigmoid(reset + reset_of)
            return augru_step(
                state_BNU,
                tf.sigmoid(update + update_of),
                tf.tanh(proposal + reset * proposal_of),
                attention_BN1,
            )

        shape = tf.shape(attention_BNL)
        initial = tf.zeros([shape[0], shape[1], self.units], inputs_BLD.dtype)
        return tf.foldl(step, (inputs_LBU, attention_LBN1), initial)
