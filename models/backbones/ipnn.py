"""IPNN: product-based network with inner products (Qu et al., ICDM 2016).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width,
P = M (M - 1) / 2 pairs of fields.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields
from models.keras import tf
from models.layers.fields.interactions import pairwise_inner_products
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, distinct_pairs
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class IPNNConfig(ModelConfig):
    """Settings of IPNN.

    Attributes:
        units: Hidden widths of the network.
    """

    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class IPNN(FieldwiseModel):
    """A network on [fields, <e_i, e_j> of all pairs i < j].

    The first layer of the network is the paper's product layer: its weights on the fields give the
    linear signal l_z, and those on the products the quadratic signal l_p, here with a separate
    weight for each pair instead of the paper's weights of rank 1.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = IPNN(IPNNConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = IPNNConfig

    def __init__(self, config: IPNNConfig, dims: Dims, name: str = "ipnn") -> None:
        super().__init__(name=name)
        del dims
        self.dnn = MLP((*config.units, 1), name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """The network reads the fields, then their products. See the base class."""
        inputs = field_layout(fields)
        yield from self.dnn.layouts(inputs + distinct_pairs(inputs))

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """The network on fields and products. See the base class."""
        products_BNP = pairwise_inner_products(fields_BNMd)
        return self.dnn(tf.concat([flatten_fields(fields_BNMd), products_BNP], -1))[..., 0]
