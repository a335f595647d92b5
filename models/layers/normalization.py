"""Normalisation of channels over a batch, and of a vector by its own scale.

Shapes: C channels.
"""

from models.keras import keras, tf
from models.ops import replicas
from models.ops.weight_layouts import Layout, Layouts

_TINY = 1e-8


class MaskedBatchNormalization(keras.layers.Layer):
    """Standardises channels over the valid entries of the global batch (Ioffe and Szegedy, 2015).

    Keras' batch normalisation would include padded steps and candidates, and only each replica's
    share of the batch. Here the statistics cover the valid entries on all replicas, so neither
    padding nor the number of replicas has an effect. There is no scale and no offset: layers that
    need them add their own (the experts of DemiNet add K of each to one normalisation).

    Args:
        momentum: Momentum of the moving averages used at inference.
        epsilon: Constant added to the variance.

    Example:
        >>> values, mask = tf.constant([[1.0], [3.0], [9.0]]), tf.constant([True, True, False])
        >>> normalize = MaskedBatchNormalization(epsilon=0.0)
        >>> tf.round(normalize(values, mask, training=True)).numpy().tolist()
        [[-1.0], [1.0], [7.0]]
    """

    def __init__(
        self, momentum: float = 0.99, epsilon: float = 1e-3, name: str = "batch_normalization"
    ) -> None:
        super().__init__(name=name, dtype="float32")  # Statistics need float32 under any policy.
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the moving averages, [C] each."""
        # Every replica computes the same global statistics, so the copy of any replica is right.
        shared = {
            "shape": (shape[-1],),
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **shared)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **shared)
        self.seen_batches = self.add_weight(
            name="seen_batches", initializer="zeros", **shared | {"shape": ()}
        )
        super().build(shape)

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights, for channels laid out as `reads`."""
        yield self.moving_mean, (reads,)
        yield self.moving_variance, (reads,)
        # Restarts for new channels, so that their initial statistics have no lasting effect.
        yield self.seen_batches, (reads,)

    def call(self, values: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Standardises `values`.

        Args:
            values: Values [..., C].
            mask: Boolean mask of the entries that count, of the shape of `values` without its last
                axis.
            training: Whether to use the statistics of this batch and update the moving averages.

        Returns:
            Standardised values, shape of `values`. Masked entries are standardised like the rest.
        """
        if training:
            mean_C, variance_C = self._batch_statistics(values, mask)
            self.remember(mean_C, variance_C)
        else:
            mean_C, variance_C = self.moving_mean, self.moving_variance
        return (values - mean_C) * tf.math.rsqrt(variance_C + self.epsilon)

    def remember(self, mean_C: tf.Tensor, variance_C: tf.Tensor) -> None:
        """Updates the moving averages with the statistics of a training batch.

        Args:
            mean_C: Mean over the valid entries of all replicas.
            variance_C: Variance over the valid entries of all replicas.
        """
        # A plain mean over the first batches, then a moving average: the initial values, which are
        # far from the variance of new embeddings, have no effect.
        momentum = tf.minimum(self.momentum, self.seen_batches / (self.seen_batches + 1.0))
        for average, value in ((self.moving_mean, mean_C), (self.moving_variance, variance_C)):
            average.assign(average * momentum + tf.stop_gradient(value) * (1.0 - momentum))
        self.seen_batches.assign_add(1.0)

    def _batch_statistics(self, values: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance of each channel over the valid entries of all replicas."""
        axes = list(range(values.shape.rank - 1))
        weights = tf.cast(mask, values.dtype)
        count = tf.maximum(replicas.all_sum(tf.reduce_sum(weights)), 1.0)
        mean_C = replicas.all_sum(tf.reduce_sum(values * weights[..., None], axes)) / count
        squares = tf.square(values - mean_C) * weights[..., None]
        variance_C = replicas.all_sum(tf.reduce_sum(squares, axes)) / count
        return mean_C, variance_C


def unit_scale(values: tf.Tensor) -> tf.Tensor:
    """Scales vectors in the last axis to a root mean square of 1; zeros stay zeros.

    Example:
        >>> tf.round(unit_scale(tf.constant([[5.0, -5.0], [0.0, 0.0]]))).numpy().tolist()
        [[1.0, -1.0], [0.0, 0.0]]
    """
    mean_square = tf.reduce_mean(tf.square(values), -1, keepdims=True)
    return values * tf.math.rsqrt(mean_square + _TINY)
