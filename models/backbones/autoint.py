"""AutoInt+: self-attention among fields beside a network (Song et al., CIKM 2019).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields
from models.keras import keras, tf
from models.layers.fields.field_attention import FieldAttention
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, featureless, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoIntConfig(ModelConfig):
    """Settings of AutoInt+.

    Attributes:
        attention_layers: Number of layers of self-attention.
        heads: Number of heads of each layer.
        head_width: Width of each head.
        units: Hidden widths of the network.
    """

    attention_layers: int = limited(3, at_least=1)
    heads: int = limited(2, at_least=1)
    head_width: int = limited(16, at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)


class AutoInt(FieldwiseModel):
    """z = w . attention(E) + b + DNN(E) (eq. 9, and the network that makes AutoInt AutoInt+).

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = AutoInt(AutoIntConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = AutoIntConfig

    def __init__(self, config: AutoIntConfig, dims: Dims, name: str = "autoint") -> None:
        super().__init__(name=name)
        widths = [dims.embedding_size] + [
            config.heads * config.head_width
        ] * config.attention_layers
        self.attentions = [
            FieldAttention(width, config.heads, config.head_width, name=f"attention_{i}")
            for i, width in enumerate(widths[:-1])
        ]
        self._attended_width = widths[-1]
        self.last = keras.layers.Dense(1, use_bias=False, name="last")
        self.dnn = MLP((*config.units, 1), name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """Attention weights are shared by all fields; the others are not. See the base class."""
        inputs = field_layout(fields)
        yield from featureless(*self.attentions)
        yield from of_dense(self.last, inputs.each(self._attended_width), None)
        yield from self.dnn.layouts(inputs)

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """The sum of attention and network, whose bias is b. See the base class."""
        attended = fields_BNMd
        for layer in self.attentions:
            attended = layer(attended)
        explicit = self.last(flatten_fields(attended))
        return (explicit + self.dnn(flatten_fields(fields_BNMd)))[..., 0]
