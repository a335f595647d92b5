"""The data-adaptive activation of DIN.

Shapes: M entries, C channels.
"""

from typing import Any

from models.keras import keras, tf
from models.layers.normalization import MaskedBatchNormalization
from models.ops import replicas


class Dice(keras.layers.Layer):
    """A PReLU whose rectification point adapts to the data (Dice of DIN: Zhou et al., 2018).

    f(x) = p x + (1 - p) alpha x with p = sigmoid((x - E[x]) / sqrt(Var[x] + eps)). The statistics
    cover the valid entries only, so padding has no effect.

    Example:
        >>> values = tf.constant([[2.0], [2.0], [900.0]])
        >>> mask = tf.constant([True, True, False])
        >>> Dice()(values, mask, training=True).numpy().tolist()  # Half of the mean, all of 900.
        [[1.0], [1.0], [900.0]]
    """

    def __init__(self, name: str = "dice") -> None:
        super().__init__(name=name)
        self.normalization = MaskedBatchNormalization()

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the slope alpha of the suppressed side, [C], initially 0."""
        self.alpha = self.add_weight(name="alpha", shape=(shape[-1],), initializer="zeros")
        with tf.name_scope(self.normalization.name):
            self.normalization.build(shape)

    def call(self, values: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Activates `values`.

        Args:
            values: Values [..., C].
            mask: Boolean mask [...] of the entries that count in the statistics.
            training: Whether to use the statistics of this batch and update the moving averages.

        Returns:
            Activated values, of the shape of `values`.
        """
        if not training:
            gate = tf.cast(tf.sigmoid(self.normalization(values, mask)), values.dtype)
            return values * (self.alpha + (1.0 - self.alpha) * gate)
        activated_MC, mean_C, variance_C = _activate_batch(
            tf.reshape(tf.cast(values, tf.float32), [-1, values.shape[-1]]),
            tf.reshape(tf.cast(mask, tf.float32), [1, -1]),
            tf.cast(self.alpha, tf.float32),
            self.normalization.epsilon,
        )
        self.normalization.remember(mean_C, variance_C)
        return tf.cast(tf.reshape(activated_MC, tf.shape(values)), values.dtype)


def _activate_batch(
    values_MC: tf.Tensor, weights_1M: tf.Tensor, alpha_C: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Dice with the statistics of the global batch, their mean and their variance.

    The attention of DIN spends more time on this than on its matrix products, all of it on passes
    over [M, C] in memory. So sums over entries are products with a vector, which need no weighted
    copy, and the gradient is explicit:

        df/dx_m = slope_m + h_m r - w_m r / W (sum_i h_i + z_m sum_i h_i z_i)

    with r = 1 / sqrt(Var + eps), z = r (x - E), p = sigmoid(z), slope = alpha + (1 - alpha) p,
    h = (1 - alpha) x p (1 - p) and the weights w, of sum W, for one unit of the gradient of f.

    Args:
        values_MC: Values x.
        weights_1M: Weights w, 1 for valid entries and 0 for the others.
        alpha_C: Slopes alpha.
        epsilon: Constant eps added to the variance.
    """
    count = tf.maximum(replicas.all_sum(tf.reduce_sum(weights_1M)), 1.0)

    @tf.custom_gradient
    def activate(x_MC: tf.Tensor, alpha_C: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Any]:
        mean_C = replicas.all_sum(tf.matmul(weights_1M, x_MC)[0]) / count
        squares_MC = tf.math.squared_difference(x_MC, mean_C)
        variance_C = replicas.all_sum(tf.matmul(weights_1M, squares_MC)[0]) / count
        scale_C = tf.math.rsqrt(variance_C + epsilon)
        gate_MC = tf.sigmoid(x_MC * scale_C - mean_C * scale_C)
        slope_MC = gate_MC * (1.0 - alpha_C) + alpha_C

        def gradient(upstream_MC: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Factors of a channel are applied to sums over its entries, not to the entries.
            open_MC = upstream_MC * x_MC
            gated_MC = open_MC * gate_MC
            of_alpha_C = _sums(open_MC - gated_MC)
            bend_MC = gated_MC - gated_MC * gate_MC  # h / (1 - alpha)
            factor_C = scale_C * (1.0 - alpha_C)
            bends_C, moments_C = _sums(bend_MC), _sums(bend_MC * x_MC)
            of_mean_C = replicas.all_sum(bends_C * factor_C) / count
            centred_C = (moments_C - mean_C * bends_C) * factor_C
            of_variance_C = replicas.all_sum(centred_C) * tf.square(scale_C) / count
            of_statistics_MC = x_MC * of_variance_C + (of_mean_C - mean_C * of_variance_C)
            weights_M1 = tf.transpose(weights_1M)
            of_x_MC = upstream_MC * slope_MC + (bend_MC * factor_C - weights_M1 * of_statistics_MC)
            return of_x_MC, of_alpha_C

        return (x_MC * slope_MC, mean_C, variance_C), gradient

    return activate(values_MC, alpha_C)


def _sums(values_MC: tf.Tensor) -> tf.Tensor:
    """The sum of each channel, [C]."""
    return tf.matmul(tf.ones([1, tf.shape(values_MC)[0]]), values_MC)[0]
