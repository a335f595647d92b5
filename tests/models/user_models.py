"""Models and losses as users write them, each with one mistake; for test_user_models.py."""

import keras as keras3  # noqa: TID251  As users do by mistake.

from models.backbone_api import Backbone, LossTerm, ModelConfig, SelfSupervision
from models.keras import keras, tf


class Good(Backbone):
    """A layer on the sum of the history and the candidate."""

    def __init__(self, config, dims, name="good"):
        super().__init__(name=name)
        self.dense = keras.layers.Dense(1)
        self.prepare()

    def prepare(self):
        """For what derives from this one."""

    def encode_user(self, user, *, training=False, seed=None):
        return {"sum_BD": tf.reduce_sum(user.history_BLD, 1)}

    def inputs(self, state, candidates):
        count = tf.shape(candidates.mask_BN)[1]
        sum_BND = tf.repeat(state["sum_BD"][:, None], count, 1)
        return tf.concat([sum_BND, candidates.target_BND], -1)

    def score(self, state, candidates, *, training=False):
        return self.dense(self.inputs(state, candidates))[..., 0]


class WithoutWeights(Good):
    """Legitimate: the embeddings learn."""

    def __init__(self, config, dims, name="without"):
        Backbone.__init__(self, name=name)

    def score(self, state, candidates, *, training=False):
        return tf.reduce_sum(state["sum_BD"][:, None] * candidates.target_BND, -1)


class Cosine(WithoutWeights):
    """Legitimate: logits within [-1, 1]."""

    def score(self, state, candidates, *, training=False):
        history_BD = tf.nn.l2_normalize(state["sum_BD"], -1)
        target_BND = tf.nn.l2_normalize(candidates.target_BND, -1)
        return tf.reduce_sum(history_BD[:, None] * target_BND, -1)


class Small(Good):
    """Legitimate: logits that begin above 0 and near it."""

    def score(self, state, candidates, *, training=False):
        return 1e-3 * tf.nn.softplus(super().score(state, candidates))


class Frozen(Good):
    """Legitimate: weights that are not to be trained."""

    def prepare(self):
        self.fixed = keras.layers.Dense(1, trainable=False)

    def score(self, state, candidates, *, training=False):
        fixed_BN = self.fixed(self.inputs(state, candidates))[..., 0]
        return super().score(state, candidates) + fixed_BN


class Rank3(Good):
    def score(self, state, candidates, *, training=False):
        return self.dense(self.inputs(state, candidates))


class Transposed(Good):
    def score(self, state, candidates, *, training=False):
        return tf.transpose(super().score(state, candidates))


class Nothing(Good):
    def score(self, state, candidates, *, training=False):
        pass


class Classes(Good):
    def score(self, state, candidates, *, training=False):
        return tf.cast(super().score(state, candidates) > 0, tf.int64)


class Sigmoid(Good):
    def prepare(self):
        self.dense = keras.layers.Dense(1, activation="sigmoid")


class Softmax(Good):
    def prepare(self):
        self.dense = keras.layers.Dense(2)

    def score(self, state, candidates, *, training=False):
        return tf.nn.softmax(self.dense(self.inputs(state, candidates)))[..., 1]


class HandMade(Good):
    """A sigmoid out of other operations."""

    def score(self, state, candidates, *, training=False):
        return tf.clip_by_value((tf.tanh(super().score(state, candidates)) + 1) / 2, 1e-6, 1 - 1e-6)


class Keras3(Good):
    def prepare(self):
        self.dense = keras3.layers.Dense(1)


class Keras3Nested(Good):
    def prepare(self):
        self.towers = [{"first": (keras3.layers.Dense(1),)}]

    def score(self, state, candidates, *, training=False):
        return self.towers[0]["first"][0](self.inputs(state, candidates))[..., 0]


class Keras3Hidden(Good):
    def prepare(self):
        layer = keras3.layers.Dense(1)
        self.compute = lambda inputs: layer(inputs)

    def score(self, state, candidates, *, training=False):
        return self.compute(self.inputs(state, candidates))[..., 0]


class NewInCall(Good):
    def score(self, state, candidates, *, training=False):
        return keras.layers.Dense(1)(self.inputs(state, candidates))[..., 0]


class AddedInCall(Good):
    def score(self, state, candidates, *, training=False):
        self.dense = keras.layers.Dense(1)
        return super().score(state, candidates)


class AddedInTraining(Good):
    def score(self, state, candidates, *, training=False):
        logits_BN = super().score(state, candidates)
        if training and not hasattr(self, "late"):
            self.late = keras.layers.Dense(1)
        if training:
            logits_BN += self.late(self.inputs(state, candidates))[..., 0]
        return logits_BN


class Forgotten(Good):
    def prepare(self):
        self.forgotten = self.add_weight(name="forgotten", shape=[3])


class Rounded(Good):
    def score(self, state, candidates, *, training=False):
        return tf.round(super().score(state, candidates))


class Constant(WithoutWeights):
    def score(self, state, candidates, *, training=False):
        return tf.zeros_like(candidates.mask_BN, tf.float32)


class EmptyMean(Good):
    def encode_user(self, user, *, training=False, seed=None):
        count_B1 = tf.reduce_sum(tf.cast(user.mask_BL, tf.float32), 1, keepdims=True)
        return {"sum_BD": tf.reduce_sum(user.history_BLD, 1) / count_B1}


class WrongProduct(Good):
    def score(self, state, candidates, *, training=False):
        return tf.matmul(state["sum_BD"], candidates.target_BND)


class WrongInit(Good):
    def prepare(self):
        raise KeyError("widths")


class WrongSignature(Good):
    def score(self, state, candidates):
        return super().score(state, candidates)


class PythonCondition(Good):
    def score(self, state, candidates, *, training=False):
        logits_BN = super().score(state, candidates)
        return logits_BN if tf.reduce_sum(logits_BN) > 0 else -logits_BN


class GoodLoss(SelfSupervision):
    """A penalty on a layer of its own."""

    Config = ModelConfig

    def __init__(self, config, dims, name="loss"):
        super().__init__(name=name)
        self.dense = keras.layers.Dense(1)

    def losses(self, user, candidates, *, seed):
        values_1B = tf.square(self.dense(tf.reduce_sum(user.history_BLD, 1)))[:, 0][None]
        return {"penalty": LossTerm(values_1B, tf.ones_like(values_1B), 0.1)}


class NoTerms(GoodLoss):
    def losses(self, user, candidates, *, seed):
        return {"penalty": super().losses(user, candidates, seed=seed)["penalty"].values_Pn}
