"""The trainable model: embeddings, a backbone, perhaps self-supervision, and the one train_step.

Shapes: B requests, N candidates.
"""

from collections.abc import Mapping
from typing import Any

from models import randomness, replicas
from models.embeddings import FeatureEmbedder, Features
from models.interfaces import Backbone, LossTerm, SelfSupervision
from models.keras import keras, tf, tfrs
from models.optimizers import sum_duplicates
from preprocessing.schema import LABEL, Schema

MAIN_LOSS = "log_loss"


class CTRModel(tfrs.Model):
    """Scores the candidates of a request; the only class that trains.

    Losses are averaged over the global batch whatever the number of replicas: each replica divides
    its sum by the number of valid entries on all of them, and gradients are summed.

    Args:
        schema: Of the data; travels with checkpoints and exports.
        embedder: The tables, shared by backbone and self-supervision.
        backbone: Turns embedded requests into logits.
        ssl: Self-supervised losses, in training only.
        seed: Of the random draws of a training step.
    """

    def __init__(
        self,
        schema: Schema,
        embedder: FeatureEmbedder,
        backbone: Backbone,
        ssl: SelfSupervision | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name="ctr_model")
        self.schema = schema
        self.embedder = embedder
        self.backbone = backbone
        self.ssl = ssl
        self._seed = seed
        # What train_step returns is global already; Keras would add it up over replicas.
        self.distribute_reduction_method = "first"
        self.task = tfrs.tasks.Ranking(
            loss=keras.losses.BinaryCrossentropy(
                from_logits=True, reduction=keras.losses.Reduction.NONE
            )
        )

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        embedding_optimizer: keras.optimizers.Optimizer,
        l2: float = 0.0,
        clip_norm: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: Of all dense weights.
            embedding_optimizer: Of the embedding tables.
            l2: Factor of the squared norm of the dense kernels in the loss.
            clip_norm: Bound on the global norm of all gradients; 0 for none.
            **kwargs: For `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.embedding_optimizer = embedding_optimizer
        self._l2 = l2
        self._clip_norm = clip_norm

    def build_optimizers(self) -> None:
        """Creates the optimisers' slots ahead of the first step, to restore them."""
        self.embedding_optimizer.build(self._tables())
        self.optimizer.build(self._dense_weights())

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Logits [B, N] of encoded features (see `preprocessing.dataset.parse`)."""
        state = self.backbone.encode_user(self.embedder.user_side(features), training=training)
        return self.backbone.score(state, self.embedder.candidates(features), training=training)

    def explain(self, features: Features) -> dict[str, tf.Tensor]:
        """What `Backbone.explain` says of encoded features."""
        state = self.backbone.encode_user(self.embedder.user_side(features))
        return self.backbone.explain(state, self.embedder.candidates(features))

    def loss_terms(self, features: Features, seed: tf.Tensor) -> dict[str, LossTerm]:
        """Every summand of the training loss, from one forward pass.

        Args:
            features: Encoded features with labels.
            seed: int32 [2]; the same seed gives the same draws.
        """
        user = self.embedder.user_side(features)
        candidates = self.embedder.candidates(features)
        state = self.backbone.encode_user(user, training=True, seed=seed)
        logits_BN = self.backbone.score(state, candidates, training=True)
        terms = {MAIN_LOSS: self._main_loss(features[LABEL], logits_BN, candidates.mask_BN)}
        terms |= self.backbone.auxiliary_losses(state, candidates, seed=seed)
        if self.ssl is not None:
            terms |= self.ssl.losses(user, candidates, seed=randomness.for_place(seed, "ssl"))
        return terms

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """The total training loss of a batch; what tensorflow-recommenders asks of a model."""
        del training
        return self._total(self.loss_terms(inputs, self._step_seed()))[0]

    def train_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """One update of all weights.

        Returns:
            The total loss, each of its terms and the gradient's norm, over the global batch.
        """
        with tf.GradientTape() as tape:
            total, logs = self._total(self.loss_terms(inputs, self._step_seed()))
        tf.debugging.assert_all_finite(total, "The training loss is not finite.")

        tables, dense = self._tables(), self._dense_weights()
        gradients = tape.gradient(total, tables + dense)
        # Summed over replicas before clipping, so that the norm is that of the global batch.
        pairs = self.optimizer.aggregate_gradients(
            list(zip(gradients, tables + dense, strict=True))
        )
        gradients = [sum_duplicates(gradient) for gradient, _ in pairs]
        norm = tf.linalg.global_norm([g for g in gradients if g is not None])
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
        cut = len(tables)
        self.embedding_optimizer.apply_gradients(
            zip(gradients[:cut], tables, strict=True), skip_gradients_aggregation=True
        )
        self.optimizer.apply_gradients(
            zip(gradients[cut:], dense, strict=True), skip_gradients_aggregation=True
        )
        return logs | {"gradient_norm": norm}

    def test_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """The main loss of a batch. Rankings are measured on dumped scores (models.evaluate)."""
        candidates = self.embedder.candidates(inputs)
        term = self._main_loss(inputs[LABEL], self(inputs), candidates.mask_BN)
        return {MAIN_LOSS: replicas.all_sum(_share(term))}

    def _tables(self) -> list[tf.Variable]:
        return list(self.embedder.tables.values())

    def _dense_weights(self) -> list[tf.Variable]:
        tables = {table.ref() for table in self._tables()}
        return [weight for weight in self.trainable_variables if weight.ref() not in tables]

    def _step_seed(self) -> tf.Tensor:
        """Seed of this step's draws: a function of the run's seed and the step number."""
        return tf.stack([self._seed, tf.cast(self.optimizer.iterations, tf.int32)])

    def _main_loss(self, label_BN: tf.Tensor, logits_BN: tf.Tensor, mask_BN: tf.Tensor) -> LossTerm:
        """Binary cross-entropy of every candidate, from logits."""
        values = self.task(
            tf.reshape(label_BN, [-1, 1]),
            tf.reshape(logits_BN, [-1, 1]),
            compute_metrics=False,
        )
        weights = tf.reshape(tf.cast(mask_BN, tf.float32), [1, -1])
        return LossTerm(tf.reshape(values, [1, -1]), weights, 1.0)

    def _total(self, terms: Mapping[str, LossTerm]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """This replica's share of the loss, and the global value of the loss and its terms."""
        shares = {name: _share(term) for name, term in terms.items()}
        total = tf.add_n([terms[name].weight * share for name, share in shares.items()])
        if self._l2:
            kernels = [w for w in self.trainable_variables if "kernel" in w.name]
            penalty = sum(tf.reduce_sum(tf.square(kernel)) for kernel in kernels)
            total += self._l2 * penalty / replicas.count()
        logs = {"loss": total} | shares
        return total, {name: replicas.all_sum(value) for name, value in logs.items()}


def _share(term: LossTerm) -> tf.Tensor:
    """This replica's summand of a term's mean over the global batch."""
    weights_Pn = tf.cast(term.weights_Pn, tf.float32)
    weighted_P = tf.reduce_sum(tf.where(weights_Pn > 0, term.values_Pn, 0.0) * weights_Pn, -1)
    counts_P = replicas.all_sum(tf.reduce_sum(weights_Pn, -1))
    return tf.reduce_mean(tf.math.divide_no_nan(weighted_P, counts_P))
