"""A stack of dense layers."""

from collections.abc import Sequence

from models.keras import keras, tf
from models.layers.normalization import MaskedBatchNormalization
from models.ops.weight_layouts import Layout, Layouts, hidden, of_dense


class MLP(keras.layers.Layer):
    """Dense layers with an activation after each hidden layer.

    Args:
        units: Widths of the layers, e.g. (40, 40, 1).
        activation: Activation after every hidden layer.
        last_activation: Activation after the last layer; linear by default.
        last_bias: Whether the last layer has a bias; False for scores in a softmax, where a bias
            has no effect.
        batch_norm: Whether to standardise the input over its valid entries first.

    Example:
        >>> MLP((40, 40, 1))(tf.ones([2, 3, 8])).shape
        TensorShape([2, 3, 1])
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: str = "relu",
        last_activation: str | None = None,
        last_bias: bool = True,
        batch_norm: bool = False,
        name: str = "mlp",
    ) -> None:
        # Normalises before the cast to lower precision.
        super().__init__(name=name, autocast=not batch_norm)
        self.normalize = MaskedBatchNormalization() if batch_norm else None
        hidden = [
            keras.layers.Dense(width, activation, name=f"dense_{i}")
            for i, width in enumerate(units[:-1])
        ]
        last = keras.layers.Dense(units[-1], last_activation, use_bias=last_bias, name="last")
        self.stack = [*hidden, last]

    def layouts(self, reads: Layout, writes: Layout | None = None) -> Layouts:
        """Layouts of the weights.

        Args:
            reads: Layout of the input.
            writes: Layout of the output; None for hidden units.
        """
        if self.normalize is not None:
            yield from self.normalize.layouts(reads)
        for layer in self.stack:
            is_last = layer is self.stack[-1]
            output = writes if is_last and writes is not None else hidden(layer.units)
            yield from of_dense(layer, reads, output)
            reads = output

    def call(
        self, values: tf.Tensor, mask: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Maps [..., width] to [..., units[-1]].

        Args:
            values: Input of the first layer.
            mask: Mask of the entries that count in the statistics of the normalisation, of the
                shape of `values` without its last axis; used only if there is one.
            training: Whether the normalisation uses the statistics of the batch and updates its
                moving averages.
        """
        if self.normalize is not None:
            values = self.normalize(values, mask, training=training)
        for layer in self.stack:
            values = layer(values)
        return values
