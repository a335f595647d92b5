"""FM: factorisation machine (Rendle, ICDM 2010).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel
from models.keras import tf
from models.layers.fields.interactions import fm_second_order
from models.ops.weight_layouts import Fields, Layouts


class FM(FieldwiseModel):
    """z = sum_i w_i + sum_{i<j} <e_i, e_j> + b (eq. 1).

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = FM(ModelConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([1, 2, 3, 4])).numpy()  # Three pairs of fields, <e_i, e_j> = 4.
        array([[12., 12.]], dtype=float32)
    """

    linear_weights = True

    def __init__(self, config: ModelConfig, dims: Dims, name: str = "fm") -> None:
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
        """Inner products of all pairs of fields. See the base class."""
        return tf.cast(fm_second_order(fields_BNMd), tf.float32) + self.bias
