"""LR: logistic regression on the values of all features.

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel
from models.keras import tf
from models.ops.weight_layouts import Fields, Layouts


@dataclasses.dataclass(frozen=True, kw_only=True)
class LRConfig(ModelConfig):
    """Settings of LR.

    Attributes:
        embedding_size: Width of embeddings; 0, as the score uses linear weights only.
    """

    embedding_size: int = 0


class LR(FieldwiseModel):
    """z = sum_i w_i + b, with a weight per value of a field; a history has its mean weight.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = LR(LRConfig(), Dims(1, 1, 0, embedding_size=0, max_length=50))
        >>> model.interact(tf.ones([1, 2, 3, 0])).numpy()  # The bias; `score` adds the weights.
        array([[0., 0.]], dtype=float32)
    """

    Config = LRConfig
    linear_weights = True

    def __init__(self, config: LRConfig, dims: Dims, name: str = "lr") -> None:
        super().__init__(name=name)
        del config, dims
        self.bias = self.add_weight(
            name="bias", shape=(), initializer="zeros", experimental_autocast=False
        )

    def layouts(self, fields: Fields) -> Layouts:
        """The bias depends on no feature. See the base class."""
        del fields
        yield self.bias, ()

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Returns the bias: there are no interactions."""
        return tf.fill(tf.shape(fields_BNMd)[:2], self.bias)
