"""ComiRec: Controllable Multi-Interest framework (Cen et al., KDD 2020), adapted to ranking.

ComiRec's aggregation over interests trades accuracy for diversity of a retrieved list. It does not
apply to the score of a single candidate and is left out.

Shapes: B requests, L history length, D item width, K interests.
"""

import dataclasses
import math

from models.backbone_api import Dims
from models.backbones.multi_interest import (
    Interests,
    MultiInterestBackbone,
    MultiInterestConfig,
)
from models.keras import keras, tf
from models.layers.attention.recency import reverse_history
from models.layers.attention.recency_positions import RecencyPositions
from models.layers.interests.capsule import capsules, dynamic_routing
from models.layers.masking import masked_softmax
from models.ops.weight_layouts import Fields, Layouts, hidden, of_dense
from preprocessing.values.limits import limited


class ComiRecSA(MultiInterestBackbone):
    """Interests by self-attention: softmax_l(W2 tanh(W1 (x + p))) x, with a row of W2 per interest.

    Positions affect the weights only; interests are weighted sums of the events without positions.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = ComiRecSA(MultiInterestConfig(), Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> model.extract(tf.ones([2, 5, 8]), tf.ones([2, 5], tf.bool)).vectors_BKD.shape
        TensorShape([2, 4, 8])
    """

    Config = MultiInterestConfig

    def __init__(self, config: MultiInterestConfig, dims: Dims, name: str = "comirec_sa") -> None:
        super().__init__(config, name)
        width = dims.item_width
        self.positions = RecencyPositions(dims.max_length, width)
        self.hidden = keras.layers.Dense(4 * width, "tanh", use_bias=False, name="hidden")
        self.scorer = keras.layers.Dense(config.interests, use_bias=False, name="scorer")

    def layouts(self, fields: Fields) -> Layouts:
        """Positions are added to events. See the base class."""
        yield from super().layouts(fields)
        units = hidden(self.hidden.units)
        yield from self.positions.layouts(fields.history)
        yield from of_dense(self.hidden, fields.history, units)
        yield from of_dense(self.scorer, units, None)

    def extract(self, history_BLD: tf.Tensor, mask_BL: tf.Tensor) -> Interests:
        """Self-attentive extraction. See the base class."""
        scores_BLK = self.scorer(self.hidden(history_BLD + self.positions(mask_BL)))
        attention_BKL = masked_softmax(tf.linalg.matrix_transpose(scores_BLK), mask_BL[:, None])
        return Interests(
            tf.matmul(attention_BKL, history_BLD), attention_BKL, _all_interests(attention_BKL)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComiRecDRConfig(MultiInterestConfig):
    """Settings of ComiRec-DR.

    Attributes:
        routing_iterations: Number of iterations of dynamic routing.
    """

    routing_iterations: int = limited(3, at_least=1)


class ComiRecDR(MultiInterestBackbone):
    """Interests by dynamic routing, with a separate matrix for each (position, interest).

    Positions count from the most recent event, so that a matrix keeps its meaning when histories
    grow or are truncated. Matrices are initialised at a scale that preserves lengths; a standard
    deviation of 1, as in the authors' code, would saturate every capsule.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = ComiRecDR(ComiRecDRConfig(), Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> model.extract(tf.ones([2, 5, 8]), tf.ones([2, 5], tf.bool)).vectors_BKD.shape
        TensorShape([2, 4, 8])
    """

    Config = ComiRecDRConfig

    def __init__(self, config: ComiRecDRConfig, dims: Dims, name: str = "comirec_dr") -> None:
        super().__init__(config, name)
        width = dims.item_width
        self.routing_iterations = config.routing_iterations
        self.kernel_LDKD = self.add_weight(
            name="vote_kernel",
            shape=(dims.max_length, width, config.interests, width),
            initializer=keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(width)),
        )

    def layouts(self, fields: Fields) -> Layouts:
        """Matrices map events to interests. See the base class."""
        yield from super().layouts(fields)
        yield self.kernel_LDKD, (None, fields.history, None, fields.history)

    def extract(self, history_BLD: tf.Tensor, mask_BL: tf.Tensor) -> Interests:
        """Dynamic routing from initial logits of 0. See the base class."""
        votes_BKLD = tf.einsum(
            "bli,liko->bklo",
            reverse_history(history_BLD, mask_BL),
            self.kernel_LDKD[: tf.shape(mask_BL)[1]],
        )
        logits_BKL = tf.zeros_like(votes_BKLD[..., 0])
        shares_BKL = dynamic_routing(
            votes_BKLD, logits_BKL, mask_BL[:, None], self.routing_iterations
        )
        return Interests(
            capsules(shares_BKL, votes_BKLD),
            reverse_history(shares_BKL, mask_BL, axis=2),
            _all_interests(shares_BKL),
        )


def _all_interests(attention_BKL: tf.Tensor) -> tf.Tensor:
    """Mask of the interests: every user has all K, [B, K]."""
    return tf.ones(tf.shape(attention_BKL)[:2], tf.bool)
