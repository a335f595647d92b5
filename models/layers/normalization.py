"""Batch normalisation that counts neither padding nor the number of replicas.

Shapes: C channels.
"""

from models.keras import keras, tf
from models.ops import replicas
from models.ops.weight_layouts import Layout, Layouts


class MaskedBatchNormalization(keras.layers.Layer):
    """Standardises channels over the valid entries of the global batch (Ioffe and Szegedy, 2015).

    Stock batch normalisation would count padded steps and candidates, and each replica its own
    share of the batch. Here the statistics are those of the valid entries on all replicas, so
    padding changes nothing and one replica equals many. There is no scale and no offset: layers
    that want them add their own (the experts of DemiNet add K of each to one normalisation).

    Args:
        momentum: Of the moving averages used at inference.
        epsilon: Added to the variance.
    """

    def __init__(
        self, momentum: float = 0.99, epsilon: float = 1e-3, name: str = "batch_normalization"
    ) -> None:
        super().__init__(name=name, dtype="float32")  # Statistics, whatever the policy.
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the moving averages, [C] each."""
        # Every replica computes the same global statistics, so any replica's copy will do.
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
        # Counted anew where a channel is new: its initial statistics must not linger.
        yield self.seen_batches, (reads,)

    def call(self, values: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Standardises `values`.

        Args:
            values: [..., C].
            mask: Boolean, shape of `values` without its last axis; only these entries count.
            training: Use and remember the statistics of this batch.

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
        """Takes the statistics of a training batch into the moving averages.

        Args:
            mean_C: Over the valid entries of all replicas.
            variance_C: Likewise.
        """
        # A plain mean of the first batches, then a moving one: the initial values, which are far
        # from the variance of fresh embeddings, leave no trace.
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
