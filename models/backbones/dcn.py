"""DCN and DCN-M: deep and cross networks (Wang et al., ADKDD 2017; Wang et al., WWW 2021).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width,
C = M d.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields
from models.keras import keras, tf, tfrs
from models.layers.fields.interactions import VectorCross
from models.layers.mlp import MLP
from models.ops.weight_layouts import Fields, Layouts, hidden, of_dense
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

_CROSSES = {"vector": VectorCross, "matrix": tfrs.layers.dcn.Cross}
_STRUCTURES = ("parallel", "stacked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCNConfig(ModelConfig):
    """Settings of DCN and DCN-M.

    Attributes:
        cross: Kind of cross layer: "vector": x' = x0 (w . x) + b + x (DCN, eq. 3); "matrix":
            x' = x0 * (W x + b) + x (DCN-M, eq. 1).
        cross_layers: Number of cross layers.
        structure: "parallel": the score is linear in the outputs of the cross network and of the
            deep network, which have the same input; "stacked": the deep network reads the output of
            the cross network.
        units: Hidden widths of the deep network.
    """

    cross: str = "vector"
    cross_layers: int = limited(3, at_least=1)
    structure: str = "parallel"
    units: tuple[int, ...] = limited((40, 40, 40), at_least=1)

    def __post_init__(self) -> None:
        """Raises `UserError` on an unknown cross or structure, and without a deep network."""
        for key, options in (("cross", tuple(_CROSSES)), ("structure", _STRUCTURES)):
            if getattr(self, key) not in options:
                raise UserError(
                    f"Expected model.{key} to be one of {', '.join(options)}, "
                    f"found {getattr(self, key)!r}."
                )
        if not self.units:
            raise UserError("Expected at least one layer in model.units, found none.")


class DCN(FieldwiseModel):
    """Explicit feature crosses of bounded degree, parallel to or below a deep network.

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = DCN(DCNConfig(cross="matrix"), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = DCNConfig

    def __init__(self, config: DCNConfig, dims: Dims, name: str = "dcn") -> None:
        super().__init__(name=name)
        del dims
        layer = _CROSSES[config.cross]
        self.crosses = [layer(name=f"cross_{i}") for i in range(config.cross_layers)]
        self.dnn = MLP(config.units, last_activation="relu", name="dnn")
        self.last = keras.layers.Dense(1, name="last")
        self._is_parallel = config.structure == "parallel"
        self._has_matrices = config.cross == "matrix"

    def layouts(self, fields: Fields) -> Layouts:
        """Input and output of the cross network are laid out as the fields. See the base class."""
        crossed = field_layout(fields)
        for cross in self.crosses:
            kernel, bias = cross.weights
            yield kernel, (crossed, crossed if self._has_matrices else None)
            yield bias, (crossed,)
        yield from self.dnn.layouts(crossed)
        units = hidden(self.dnn.stack[-1].units)
        yield from of_dense(self.last, crossed + units if self._is_parallel else units, None)

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Scores from the cross network and the deep network. See the base class."""
        x0_BNC = flatten_fields(fields_BNMd)
        x_BNC = x0_BNC
        for cross in self.crosses:
            x_BNC = cross(x0_BNC, x_BNC)
        if self._is_parallel:
            outputs = tf.concat([x_BNC, self.dnn(x0_BNC)], -1)
        else:
            outputs = self.dnn(x_BNC)
        return self.last(outputs)[..., 0]
