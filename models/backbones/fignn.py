"""Fi-GNN: a graph neural network on the fields of a request (Li et al., CIKM 2019).

Shapes: B requests, N candidates, M fields (see `models.backbones.fieldwise`), d embedding width.
"""

import dataclasses

from models.backbone_api import Dims, ModelConfig
from models.backbones.fieldwise import FieldwiseModel, field_layout, flatten_fields, num_fields
from models.keras import keras, tf
from models.layers.fields.field_graph import FieldGraph
from models.ops.weight_layouts import Fields, Layouts, featureless, of_dense
from preprocessing.values.limits import limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiGNNConfig(ModelConfig):
    """Settings of Fi-GNN.

    Attributes:
        steps: Number of rounds of messages between the fields.
    """

    steps: int = limited(3, at_least=1)


class FiGNN(FieldwiseModel):
    """z = sum_i sigmoid(W2 h)_i (w1 . h_i), of the last states h of the fields.

    Each field has a score, weighted by attention to the states of all fields (attentional scoring
    layer of the paper).

    Args:
        config: Settings.
        dims: Static sizes.

    Example:
        >>> model = FiGNN(FiGNNConfig(), Dims(1, 1, 0, embedding_size=4, max_length=50))
        >>> model.interact(tf.ones([2, 7, 3, 4])).shape
        TensorShape([2, 7])
    """

    Config = FiGNNConfig

    def __init__(self, config: FiGNNConfig, dims: Dims, name: str = "fignn") -> None:
        super().__init__(name=name)
        fields = num_fields(dims)
        self.graph = FieldGraph(fields, dims.embedding_size, config.steps)
        self.opinion = keras.layers.Dense(1, use_bias=False, name="opinion")
        self.attention = keras.layers.Dense(fields, "sigmoid", use_bias=False, name="attention")

    def layouts(self, fields: Fields) -> Layouts:
        """Each field has separate matrices and an attention weight. See the base class."""
        inputs = field_layout(fields)
        yield from self.graph.layouts(inputs)
        yield from featureless(self.opinion)
        yield from of_dense(self.attention, inputs, inputs.each(1))

    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Sum of the fields' scores, weighted by attention. See the base class."""
        states_BNMd = self.graph(fields_BNMd)
        opinions_BNM = self.opinion(states_BNMd)[..., 0]
        return tf.reduce_sum(self.attention(flatten_fields(states_BNMd)) * opinions_BNM, -1)
