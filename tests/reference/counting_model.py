"""Logistic regression that counts how often each user was trained on, for tests of resuming."""

from models.backbones.lr import LR
from models.keras import tf


class CountingLR(LR):
    """The counts are a weight, so they travel with checkpoints as every other one."""

    def __init__(self, config, dims, name="counting_lr"):
        super().__init__(config, dims, name=name)
        self.counts = self.add_weight(
            name="counts", shape=(1000,), initializer="zeros", trainable=False
        )

    def encode_user(self, user, *, training=False, seed=None):
        if training:
            ones = tf.ones_like(user.key_B, tf.float32)
            self.counts.scatter_add(tf.IndexedSlices(ones, user.key_B))
        return super().encode_user(user, training=training, seed=seed)
