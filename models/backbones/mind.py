"""MIND: Multi-Interest Network with Dynamic routing (Li et al., CIKM 2019), for ranking.

Shapes: B requests, L history length, D item width, K interests.
"""

import dataclasses

import numpy as np

from models.backbone_api import Dims
from models.backbones.multi_interest import (
    Interests,
    MultiInterestBackbone,
    MultiInterestConfig,
)
from models.keras import keras, tf
from models.layers.attention.recency import reverse_history
from models.layers.interests.capsule import capsules, dynamic_routing
from models.ops.weight_layouts import Fields, Layouts, hidden, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class MINDConfig(MultiInterestConfig):
    """Settings of MIND.

    Attributes:
        routing_iterations: Number of iterations of dynamic routing.
        adaptive: Whether a user with n events has only max(1, min(K, log2 n)) interests, as in the
            paper; otherwise K, as in public code.
    """

    routing_iterations: int = limited(3, at_least=1)
    adaptive: bool = False


class MIND(MultiInterestBackbone):
    """Routes events to capsules through one matrix that all capsules share (B2I dynamic routing).

    With a shared matrix, only the initial logits distinguish the capsules. The logits are drawn
    once, by capsule and recency, and stored as a weight that is not trained, so that an exported
    model gives the same scores. The authors draw them again in every call.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> config = MINDConfig(interests=4, adaptive=True)
        >>> model = MIND(config, Dims(1, 2, 0, embedding_size=4, max_length=50))
        >>> interests = model.extract(tf.ones([2, 5, 8]), tf.ones([2, 5], tf.bool))
        >>> interests.vectors_BKD.shape
        TensorShape([2, 4, 8])
        >>> interests.mask_BK[0].numpy()  # Five events have log2 5 = 2.3 interests.
        array([ True,  True, False, False])
    """

    Config = MINDConfig

    def __init__(self, config: MINDConfig, dims: Dims, name: str = "mind") -> None:
        super().__init__(config, name)
        width = dims.item_width
        self.routing_iterations = config.routing_iterations
        self.to_vote = keras.layers.Dense(width, use_bias=False, name="to_vote")
        self.logits_KL = self.add_weight(
            name="routing_logits",
            shape=(config.interests, dims.max_length),
            initializer=keras.initializers.TruncatedNormal(stddev=1.0),
            trainable=False,
        )
        # Without a bias, so that an empty history has no interest.
        self.projection = keras.layers.Dense(width, "relu", use_bias=False, name="projection")
        # Interest k exists for at least 2^(k + 1) events; the first one always exists.
        powers_K = 2 ** np.arange(1, config.interests + 1) * (np.arange(config.interests) > 0)
        self._min_events_K = powers_K if config.adaptive else np.zeros_like(powers_K)

    def layouts(self, fields: Fields) -> Layouts:
        """Capsules are hidden units; the projection maps them to interests. See the base class."""
        yield from super().layouts(fields)
        capsule = hidden(fields.history.size)
        yield self.logits_KL, ()
        yield from of_dense(self.to_vote, fields.history, capsule)
        yield from of_dense(self.projection, capsule, fields.history)

    def extract(self, history_BLD: tf.Tensor, mask_BL: tf.Tensor) -> Interests:
        """Behaviour-to-interest routing. See the base class."""
        votes_B1LD = self.to_vote(reverse_history(history_BLD, mask_BL))[:, None]
        lengths_B1 = tf.reduce_sum(tf.cast(mask_BL, tf.int32), 1, keepdims=True)
        mask_BK = lengths_B1 >= tf.constant(self._min_events_K, tf.int32)
        shares_BKL = dynamic_routing(
            votes_B1LD,
            tf.cast(self.logits_KL[None, :, : tf.shape(mask_BL)[1]], votes_B1LD.dtype),
            mask_BK[:, :, None] & mask_BL[:, None],
            self.routing_iterations,
        )
        return Interests(
            self.projection(capsules(shares_BKL, votes_B1LD)),
            reverse_history(shares_BKL, mask_BL, axis=2),
            mask_BK,
        )
