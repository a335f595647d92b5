"""Several interests of a user in view of a candidate (DemiNet, arXiv 2109.12512, eq. 13).

Shapes: B requests, V views of the same history, N candidates, L history length, D item width,
K interests, A hidden units of the attention of one interest.
"""

from models.keras import keras, tf
from models.layers.initializers import glorot_uniform
from models.layers.masking import masked_softmax


class InterestExtractor(keras.layers.Layer):
    """K attentions over the history, each a two-layer network on [h*_i || e_t].

    The first layers of the K networks are one matrix, split into the half that reads the history
    and the half that reads the candidate: `project` applies the former once per request, whatever
    the number of candidates. The weights of an interest are normalised over the events; an empty
    history has no interests and gives zeros.

    Args:
        width: D.
        interests: K.
        units: A.
        slope: Of LeakyReLU on its negative side.
    """

    def __init__(
        self,
        width: int,
        interests: int,
        units: int,
        *,
        slope: float = 0.2,
        name: str = "interest_extractor",
    ) -> None:
        super().__init__(name=name)
        self.interests, self.slope = interests, slope
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
        self.last_KA = self.add_weight(
            "last_kernel", [interests, units], initializer=glorot_uniform(units, 1)
        )

    def project(self, nodes: tf.Tensor) -> tf.Tensor:
        """The part of the first layer that does not depend on the candidate.

        Args:
            nodes: h*, [..., L, D].

        Returns:
            [..., L, K A].
        """
        return self.history_half(nodes)

    def call(
        self,
        nodes_BVLD: tf.Tensor,
        projected_BVLT: tf.Tensor,
        mask_BL: tf.Tensor,
        target_BND: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Extracts the interests of each request and view for each candidate.

        Args:
            nodes_BVLD: h*, what the interests are made of.
            projected_BVLT: Its `project`ion, T = K A.
            mask_BL: True for events.
            target_BND: Candidates.

        Returns:
            Interests v_k, [B, V, N, K, D], and the weights of the events in them, [B, V, N, K, L],
            which sum to 1, or to 0 for an empty history.
        """
        shape, count = tf.shape(nodes_BVLD), tf.shape(target_BND)[1]
        batch, views, length = shape[0], shape[1], shape[2]
        hidden_BVNLT = tf.nn.leaky_relu(
            tf.expand_dims(projected_BVLT, 2) + self.target_half(target_BND)[:, None, :, None],
            self.slope,
        )
        # Block diagonal, so that the K last layers are one product without transposing the above.
        own_KK = tf.eye(self.interests, dtype=self.last_KA.dtype)
        last_TK = tf.reshape(self.last_KA[:, :, None] * own_KK[:, None], [-1, self.interests])
        scores_BVNLK = tf.tensordot(hidden_BVNLT, last_TK, axes=1)
        scores_BVNKL = tf.transpose(scores_BVNLK, [0, 1, 2, 4, 3])
        weights_BVNKL = masked_softmax(scores_BVNKL, mask_BL[:, None, None, None])
        flat = tf.reshape(weights_BVNKL, [batch, views, count * self.interests, length])
        interests = tf.matmul(flat, nodes_BVLD)
        interests_BVNKD = tf.reshape(
            interests, [batch, views, count, self.interests, nodes_BVLD.shape[3]]
        )
        return interests_BVNKD, weights_BVNKL
