"""xDeepFM: linear weights, a compressed interaction network and a network (Lian et al., KDD 2018).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields
from models.keras import keras, tf
from models.layers.fields.interactions import CompressedInteraction
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, featureless
from preprocessing.errors import UserError
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class XDeepFMConfig(ModelConfig):
    """Settings of xDeepFM.

    Attributes:
        interaction_units: Number of rows of each feature map of the compressed interaction network.
            Half of the rows of each map but the last are passed to the next one.
        units: Hidden widths of the network.
    """

    interaction_units: tuple[int, ...] = limited((40, 40), at_least=1)
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)

    def __post_init__(self) -> None:
        """Raises `UserError` on feature maps that cannot be halved."""
        maps = self.interaction_units
        if not maps or any(rows % 2 for rows in maps[:-1]):
            raise UserError(
                "Expected model.interaction_units to hold numbers, all but the last even, "
                f"found {list(maps)}."
            )


class XDeepFM(FieldwiseModel):
    """z = sum_i w_i + w . CIN(E) + DNN(E); the global bias is that of the network.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = XDeepFM(XDeepFMConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = XDeepFMConfig
    linear_weights = True

    def __init__(self, config: XDeepFMConfig, dims: Dims, name: str = "xdeepfm") -> None:
        super().__init__(name=name)
        del dims
        self.interaction = CompressedInteraction(config.interaction_units)
        self.last = keras.layers.Dense(1, use_bias=False, name="last")
        self.dnn = MLP((*config.units, 1), name="dnn")

    def layouts(self, fields: Fields) -> Layouts:
        """Both networks read the fields. See the base class."""
        inputs = field_layout(fields)
        yield from self.interaction.layouts(inputs)
        yield from featureless(self.last)
        yield from self.dnn.layouts(inputs)

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """The compressed interaction network and the network. See the base class."""
        explicit = self.last(self.interaction(fields_BNMd))
        return (explicit + self.dnn(flatten_fields(fields_BNMd)))[..., 0]
