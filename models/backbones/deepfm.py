"""DeepFM: a factorisation machine and a network on shared embeddings (Guo et al., IJCAI 2017).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields
from models.keras import tf
from models.layers.fields.interactions import fm_second_order
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepFMConfig(ModelConfig):
    """Settings of DeepFM.

    Attributes:
        units: Hidden widths of the network.
    """

    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class DeepFM(FieldwiseModel):
    """z = y_FM + y_DNN (eq. 1, before the sigmoid); the global bias is that of the network.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = DeepFM(DeepFMConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = DeepFMConfig
    linear_weights = True

    def __init__(self, config: DeepFMConfig, dims: Dims, name: str = "deepfm") -> None:
        super().__init__(name=name)
        del dims
        self.dnn = MLP((*config.units, 1), name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """The network reads the fields. See the base class."""
        yield from self.dnn.layouts(field_layout(fields))

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Inner products of all pairs of fields, and the network. See the base class."""
        return fm_second_order(fields_BNMd) + self.dnn(flatten_fields(fields_BNMd))[..., 0]
