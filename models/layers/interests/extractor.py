"""Several interests of a user with respect to a candidate (DemiNet, arXiv 2109.12512, eq. 13).

Shapes: B requests, N candidates, L history length, D item width, K interests, A hidden units of the
attention of one interest.
"""

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.masking import masked_softmax
from models.layers.normalization import unit_scale
from models.ops.weight_layouts import Layout, Layouts, hidden, of_dense


class InterestExtractor(keras.layers.Layer):
    """K attentions over the history, each a two-layer network on [h*_i || e_t].

    The first layers of the K networks are one matrix, split into a half for the history and a half
    for the candidate: `project` applies the former once per request, for any number of candidates.
    The interests of an empty history are zeros.

    A selective extractor (not in the paper) reads events and candidate scaled to a root mean square
    of 1, adds (U h) * (W e), the product of two further projections, to the hidden units, and
    scales the interests likewise. In eq. 13 a candidate only adds a summand that is nearly the same
    for all events, which a softmax over events cancels.

    Args:
        width: Item width D.
        interests: Number K of interests.
        units: Number A of hidden units of each attention.
        slope: Slope of LeakyReLU for negative inputs.
        normalise: Whether the weights of the events in an interest sum to 1 (masked softmax) or are
            the raw scores.
        selective: Whether scales are 1 and hidden units have the product, as above.

    Example:
        >>> extractor = InterestExtractor(width=8, interests=4, units=16)
        >>> nodes_BLD, mask_BL = tf.ones([2, 5, 8]), tf.ones([2, 5], tf.bool)
        >>> projected_BLT = extractor.project(nodes_BLD)
        >>> interests, weights = extractor(nodes_BLD, projected_BLT, mask_BL, tf.ones([2, 3, 8]))
        >>> interests.shape, weights.shape
        (TensorShape([2, 3, 4, 8]), TensorShape([2, 3, 4, 5]))
    """

    def __init__(
        self,
        width: int,
        interests: int,
        units: int,
        *,
        slope: float = 0.2,
        normalise: bool = True,
        selective: bool = False,
        name: str = "interest_extractor",
    ) -> None:
        super().__init__(name=name, autocast=False)  # Only the hidden layer is cast.
        self.interests, self.slope = interests, slope
        self.normalise, self.selective = normalise, selective
        self.history_half = keras.layers.Dense(
            interests * units,
            use_bias=False,
            kernel_initializer=glorot_uniform(2 * width, units),
            name="history_half",
        )
        self.target_half = keras.layers.Dense(
            interests * units,
            kernel_initializer=glorot_uniform(2 * width, units),
            name="target_half",
        )
        if selective:
            self.history_factor, self.target_factor = (
                keras.layers.Dense(
                    interests * units,
                    use_bias=False,
                    kernel_initializer=glorot_uniform(width, units),
                    name=factor,
                )
                for factor in ("history_factor", "target_factor")
            )
        self._units = units

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the last layers of the attentions."""
        del shape
        self.last_KA = self.add_weight(
            "last_kernel",
            [self.interests, self._units],
            initializer=glorot_uniform(self._units, 1),
        )

    def layouts(self, nodes: Layout, target: Layout) -> Layouts:
        """Layouts of the weights, for nodes and candidates with the given layouts."""
        units = hidden(self._units, self.interests)
        yield from of_dense(self.history_half, nodes, units)
        yield from of_dense(self.target_half, target, units)
        if self.selective:
            yield from of_dense(self.history_factor, nodes, units)
            yield from of_dense(self.target_factor, target, units)
        yield self.last_KA, (None, hidden(self._units))

    def project(self, nodes: tf.Tensor) -> tf.Tensor:
        """The part of the first layer that does not depend on the candidate.

        Args:
            nodes: Nodes h*, [..., L, D].

        Returns:
            Projected nodes [..., L, K A]; [..., L, 2 K A] with the factor of a selective extractor.
        """
        if not self.selective:
            return self.history_half(nodes)
        nodes = unit_scale(nodes)
        return tf.concat([self.history_half(nodes), self.history_factor(nodes)], -1)

    def call(
        self,
        nodes_BLD: tf.Tensor,
        projected_BLT: tf.Tensor,
        mask_BL: tf.Tensor,
        target_BND: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Extracts the interests of each request for each candidate.

        Args:
            nodes_BLD: Nodes h*, which the interests are weighted sums of.
            projected_BLT: Result of `project(nodes_BLD)`.
            mask_BL: True for events.
            target_BND: Candidates.

        Returns:
            Interests v_k, [B, N, K, D], and the weights of the events in them, [B, N, K, L], 0 at
            padding.
        """
        hidden_BNLT = tf.nn.leaky_relu(self._first_layer(projected_BLT, target_BND), self.slope)
        # Block diagonal, so that the K last layers are one product without a transposition.
        own_KK = tf.eye(self.interests, dtype=self.compute_dtype)
        last_TK = tf.reshape(self.last_KA[:, :, None] * own_KK[:, None], [-1, self.interests])
        scores_BNLK = tf.cast(tf.tensordot(hidden_BNLT, last_TK, axes=1), tf.float32)
        scores_BNKL = tf.transpose(scores_BNLK, [0, 1, 3, 2])
        mask_BNKL = mask_BL[:, None, None]
        weights_BNKL = (
            masked_softmax(scores_BNKL, mask_BNKL)
            if self.normalise
            else tf.where(mask_BNKL, scores_BNKL, 0.0)
        )
        batch, count, length = (tf.shape(scores_BNKL)[axis] for axis in (0, 1, 3))
        flat = tf.reshape(weights_BNKL, [batch, count * self.interests, length])
        interests_BNKD = tf.reshape(
            tf.matmul(flat, nodes_BLD), [batch, count, self.interests, nodes_BLD.shape[2]]
        )
        if self.selective:
            interests_BNKD = unit_scale(interests_BNKD)
        return interests_BNKD, weights_BNKL

    def _first_layer(self, projected_BLT: tf.Tensor, target_BND: tf.Tensor) -> tf.Tensor:
        """Hidden units of each event and candidate before the activation, [B, N, L, K A]."""
        # The gradient of [:, None] would be a copy into zeros.
        if not self.selective:
            target_BN1T = tf.expand_dims(self.target_half(target_BND), 2)
            return tf.expand_dims(projected_BLT, 1) + target_BN1T
        target_BND = unit_scale(target_BND)
        half_B1LT, factor_B1LT = tf.split(tf.expand_dims(projected_BLT, 1), 2, axis=-1)
        half_BN1T = tf.expand_dims(self.target_half(target_BND), 2)
        factor_BN1T = tf.expand_dims(self.target_factor(target_BND), 2)
        return half_B1LT + half_BN1T + factor_B1LT * factor_BN1T
