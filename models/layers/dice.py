"""The data-adaptive activation of DIN.

Shapes: C channels.
"""

from models.keras import keras, tf
from models.layers.normalization import MaskedBatchNormalization


class Dice(keras.layers.Layer):
    """A PReLU whose rectified point moves with the data (Dice of DIN: Zhou et al., 2018).

    f(x) = p x + (1 - p) alpha x with p = sigmoid((x - E[x]) / sqrt(Var[x] + eps)). The statistics
    are those of the valid entries only, so padding shifts no rectified point.
    """

    def __init__(self, name: str = "dice") -> None:
        super().__init__(name=name)
        self.normalization = MaskedBatchNormalization()

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the slope of the suppressed side, [C], which starts at 0."""
        self.alpha = self.add_weight(name="alpha", shape=(shape[-1],), initializer="zeros")

    def call(self, values: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Activates `values`.

        Args:
            values: [..., C].
            mask: Boolean [...]; only these entries count in the statistics.
            training: Use and remember the statistics of this batch.

        Returns:
            Shape of `values`.
        """
        gate = tf.sigmoid(self.normalization(values, mask, training=training))
        gate = tf.cast(gate, values.dtype)
        return values * (self.alpha + (1.0 - self.alpha) * gate)
