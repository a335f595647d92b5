"""The local activation unit of DIN (Zhou et al., 2018): weights of events for a candidate.

Shapes: B requests, N candidates, L history length, D width of an item, A width of a layer.
"""

from collections.abc import Sequence
from typing import Any

from models.keras import keras, tf
from models.layers.dice import Dice
from models.layers.masking import masked_softmax
from models.ops.native import local_activation as native
from models.ops.weight_layouts import Layout, Layouts, featureless


class LocalActivation(keras.layers.Layer):
    """Weighs history events by a small network on (candidate, event) pairs (a of DIN, eq. 3).

    With candidate q and event k, the network reads [q, k, q - k, q * k]. Its first layer is folded,

        W [q, k, q - k, q * k] = (W1 + W3) q + (W2 - W3) k + W4 (q * k),

    where W1..W4 are the quarters of W: the term in k is computed once per request for any number of
    candidates, which halves the work per pair. The parameters are those of the unfolded layer, so
    initialisation and training are unchanged.

    Args:
        width: Item width D.
        units: Widths of the hidden layers.
        activation: Activation after each hidden layer, "dice" or "sigmoid".
        normalize: Whether to apply a softmax over the valid events; otherwise the raw scores are
            the weights, which keeps the intensity of an interest, as in the paper.

    Example:
        >>> attention = LocalActivation(width=8, normalize=True)
        >>> events_BLD, mask_BNL = tf.ones([2, 4, 8]), tf.ones([2, 3, 4], tf.bool)
        >>> encoded_BLA = attention.encode_events(events_BLD)
        >>> weights_BNL = attention(tf.ones([2, 3, 8]), events_BLD, encoded_BLA, mask_BNL)
        >>> weights_BNL[0, 0].numpy()  # Equal events have equal weights.
        array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """

    def __init__(
        self,
        width: int,
        units: Sequence[int] = (80, 40),
        activation: str = "dice",
        normalize: bool = False,
        name: str = "local_activation",
    ) -> None:
        super().__init__(name=name)
        self.normalize = normalize
        self.kernel = self.add_weight(
            name="kernel", shape=(4 * width, units[0]), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(units[0],), initializer="zeros")
        self.hidden = [
            keras.layers.Dense(size, name=f"dense_{i}") for i, size in enumerate(units[1:], 1)
        ]
        self.dice = (
            [Dice(name=f"dice_{i}") for i in range(len(units))] if activation == "dice" else []
        )
        # A softmax would cancel the bias.
        self.scorer = keras.layers.Dense(1, use_bias=not normalize, name="scorer")
        self._operations: Any = None

    @property
    def has_native_form(self) -> bool:
        """Whether a compiled operation does the same: for two hidden layers with Dice."""
        return len(self.dice) == 2

    def use_native(self, operations: Any) -> None:
        """Lets training steps use a compiled operation; the layer is then for one CPU, in float32.

        Nothing else does: evaluation and exported models have plain operations.

        Args:
            operations: What `models.ops.native.library.load` returns.
        """
        assert self.has_native_form
        self._operations = operations

    def layouts(self, item: Layout) -> Layouts:
        """Layouts of the weights, for candidates and events laid out as `item`."""
        yield self.kernel, (item * 4, None)
        yield self.bias, ()
        yield from featureless(*self.hidden, *self.dice, self.scorer)

    def encode_events(self, events_BLD: tf.Tensor, query_BLD: tf.Tensor | None = None) -> tf.Tensor:
        """The part of the first layer that does not depend on the candidate, [B, L, A].

        Args:
            events_BLD: History, finite at padding.
            query_BLD: Term added to every candidate's query at each event, such as a position;
                None for no term.
        """
        of_query, of_event, of_difference, of_product = self._quarters(events_BLD.dtype)
        encoded_BLA = tf.tensordot(events_BLD, of_event - of_difference, 1)
        if query_BLD is not None:
            encoded_BLA += tf.tensordot(query_BLD, of_query + of_difference, 1)
            encoded_BLA += tf.tensordot(query_BLD * events_BLD, of_product, 1)
        return encoded_BLA + tf.cast(self.bias, events_BLD.dtype)

    def call(
        self,
        queries: tf.Tensor,
        events_BLD: tf.Tensor,
        encoded_BLA: tf.Tensor,
        mask_BNL: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Weighs every event for every candidate.

        Args:
            queries: Candidates, [B, N, D], or separate queries for each event, [B, N, L, D].
            events_BLD: History, finite at padding.
            encoded_BLA: Result of `encode_events(events_BLD)`.
            mask_BNL: Boolean mask, true where both the candidate and the event exist.
            training: Whether Dice uses the statistics of this batch and updates its averages.

        Returns:
            Weights [B, N, L], 0 at padding.
        """
        scores_BNL = self.scores(queries, events_BLD, encoded_BLA, mask_BNL, training)
        if self.normalize:
            return masked_softmax(scores_BNL, mask_BNL)
        return tf.where(mask_BNL, scores_BNL, 0.0)

    def scores(
        self,
        queries: tf.Tensor,
        events_BLD: tf.Tensor,
        encoded_BLA: tf.Tensor,
        mask_BNL: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """The scores of the weights, [B, N, L], meaningless at padding; see `call`."""
        if training and self._operations is not None and queries.shape.rank == 3:
            return self._native_scores(queries, events_BLD, encoded_BLA, mask_BNL)
        queries, events_BLD, encoded_BLA = (
            tf.cast(values, self.compute_dtype) for values in (queries, events_BLD, encoded_BLA)
        )
        of_target, _, of_difference, of_product = self._quarters(events_BLD.dtype)
        if queries.shape.rank == 3:
            queries = queries[:, :, None]
        values = tf.tensordot(queries * events_BLD[:, None], of_product, 1)
        values += tf.tensordot(queries, of_target + of_difference, 1) + encoded_BLA[:, None]
        values = self._activate(0, values, mask_BNL, training)
        for i, layer in enumerate(self.hidden, 1):
            values = self._activate(i, layer(values), mask_BNL, training)
        return tf.cast(self.scorer(values)[..., 0], tf.float32)

    def _native_scores(
        self,
        queries_BND: tf.Tensor,
        events_BLD: tf.Tensor,
        encoded_BLA: tf.Tensor,
        mask_BNL: tf.Tensor,
    ) -> tf.Tensor:
        """The scores in training, of the compiled operation."""
        of_target, _, of_difference, of_product = self._quarters(events_BLD.dtype)
        first, second = self.dice
        activated = native.activate(
            self._operations,
            queries_BND,
            events_BLD,
            tf.tensordot(queries_BND, of_target + of_difference, 1),
            encoded_BLA,
            mask_BNL,
            native.Weights(
                product_kernel=of_product,
                alpha1=first.alpha,
                kernel2=self.hidden[0].kernel,
                alpha2=second.alpha,
                scorer=self.scorer.kernel[:, 0],
                bias2=self.hidden[0].bias,
            ),
            first.normalization.epsilon,
        )
        first.normalization.remember(activated.mean1, activated.variance1)
        second.normalization.remember(activated.mean2, activated.variance2)
        bias = self.scorer.bias
        return activated.scores_BNL if bias is None else activated.scores_BNL + bias

    def _quarters(self, dtype: tf.DType) -> list[tf.Tensor]:
        """The quarters W1..W4 of the kernel, [D, A] each."""
        return tf.split(tf.cast(self.kernel, dtype), 4)

    def _activate(self, i: int, values: tf.Tensor, mask: tf.Tensor, training: bool) -> tf.Tensor:
        if self.dice:
            return self.dice[i](values, mask, training=training)
        return tf.sigmoid(values)
