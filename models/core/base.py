"""The trainable model: embeddings, a backbone, perhaps self-supervision, and the one train_step.

Shapes: B requests, N candidates.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from models.backbone_api import Backbone, LossTerm, SelfSupervision, require_logits
from models.core import update_step
from models.core.embeddings import FeatureEmbedder, Features, single_variables
from models.keras import keras, tf, tfrs
from models.ops import randomness, replicas
from models.ops.optimizers import sum_duplicates
from models.ops.precision import LossScale
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key
from preprocessing.schema import Schema

MAIN_LOSS = "log_loss"


class CTRModel(tfrs.Model):
    """Scores the candidates of a request; the only class that trains.

    Losses are averaged over the global batch for any number of replicas: each replica divides its
    sum by the number of valid entries on all of them, and gradients are summed.

    Args:
        schema: Schema of the data; travels with checkpoints and exports.
        embedder: Embedding tables, shared by backbone and self-supervision.
        backbone: Turns embedded requests into logits.
        ssl: Self-supervised losses, used in training only.
        seed: Seed of the random draws of a training step.
    """

    def __init__(
        self,
        schema: Schema,
        embedder: FeatureEmbedder,
        backbone: Backbone,
        ssl: SelfSupervision | None = None,
        seed: int = 0,
    ) -> None:
        # Float features are not rounded, whatever precision policy the layers are built with.
        super().__init__(name="ctr_model", dtype="float32")
        self.schema = schema
        self.embedder = embedder
        self.backbone = backbone
        self.ssl = ssl
        self._seed = seed
        self.loss_scale: LossScale | None = None
        # The logs of train_step are global already; Keras would sum them over replicas.
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
        ssl_optimizer: keras.optimizers.Optimizer | None = None,
        ssl_embedding_optimizer: keras.optimizers.Optimizer | None = None,
        joint: bool = False,
        l2: float = 0.0,
        clip_norm: float = 0.0,
        embedding_clip_norm: float = 0.0,
        positive_weight: float = 1.0,
        sample_weight: str = "",
        **kwargs: Any,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: Optimiser of all dense weights in `train_step`.
            embedding_optimizer: Optimiser of the embedding tables in `train_step`.
            ssl_optimizer: Optimiser of the dense weights that `ssl_step` trains; needed only if
                `ssl_step` is called.
            ssl_embedding_optimizer: Optimiser of the tables that `ssl_step` trains; needed only
                if `ssl_step` is called.
            joint: Whether `train_step` minimises the sum of the main loss and the self-supervised
                one (MISS, eq. 17).
            l2: Factor of the squared norm of the dense kernels in the loss.
            clip_norm: Bound on the global norm of all gradients; 0 for none.
            embedding_clip_norm: Bound on the global norm of the tables' gradients; `clip_norm` then
                bounds those of the dense weights alone. 0 for one bound on all gradients.
            positive_weight: Weight of samples with label 1 in the log loss; label 0 has weight 1.
            sample_weight: Numeric feature that weighs the samples in the log loss; "" for none.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.embedding_optimizer = embedding_optimizer
        self.ssl_optimizer = ssl_optimizer
        self.ssl_embedding_optimizer = ssl_embedding_optimizer
        self._joint = joint and self.ssl is not None
        self._l2 = l2
        self._clip_norm, self._embedding_clip_norm = clip_norm, embedding_clip_norm
        self._positive_weight = positive_weight
        items = [feature.name for feature in self.schema.item_features]
        self._sample_weight = (
            candidate_key(sample_weight) if sample_weight in items else sample_weight
        )

    def build_optimizers(self) -> None:
        """Creates the optimisers' slots before the first step, so that they can be restored."""
        of_tables = (self.embedding_optimizer, self.ssl_embedding_optimizer)
        for optimizer, weights in self.optimizers():
            with self.embedder.placed() if optimizer in of_tables else contextlib.nullcontext():
                optimizer.build(weights)

    def optimizers(self) -> list[tuple[keras.optimizers.Optimizer, list[tf.Variable]]]:
        """The optimisers with the weights that each of them trains."""
        pairs = [
            (self.embedding_optimizer, self._tables()),
            (self.optimizer, self._dense_weights()),
        ]
        if self.ssl_optimizer is not None and self.ssl_embedding_optimizer is not None:
            tables, dense = self._ssl_weights()
            pairs += [(self.ssl_embedding_optimizer, tables), (self.ssl_optimizer, dense)]
        return pairs

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Logits [B, N] of encoded features (see `preprocessing.dataset.parse`)."""
        state = self.backbone.encode_user(self.embedder.user_side(features), training=training)
        candidates = self.embedder.candidates(features)
        logits_BN = self.backbone.score(state, candidates, training=training)
        require_logits(logits_BN, type(self.backbone))
        return tf.cast(logits_BN, tf.float32)

    def explain(self, features: Features) -> dict[str, tf.Tensor]:
        """Explanations of the scores by `Backbone.explain`, for encoded features."""
        state = self.backbone.encode_user(self.embedder.user_side(features))
        return self.backbone.explain(state, self.embedder.candidates(features))

    def inspect(self, features: Features) -> dict[str, tf.Tensor]:
        """Intermediate values from `Backbone.inspect`, for encoded features."""
        return self.backbone.inspect(
            self.embedder.user_side(features), self.embedder.candidates(features)
        )

    def diagnostics(self, features: Features) -> dict[str, tf.Tensor]:
        """Diagnostics of backbone and self-supervision on a batch of encoded features."""
        user, candidates = self.embedder.user_side(features), self.embedder.candidates(features)
        seed = tf.stack([self._seed, 0])
        values = self.backbone.diagnostics(user, candidates, seed=seed)
        if self.ssl is not None:
            user = self.embedder.user_side(features, items_only=True)
            values |= self.ssl.diagnostics(user, candidates, seed=seed)
        if self._joint:
            values |= self._gradient_norms(features, seed)
        return values

    def _gradient_norms(self, features: Features, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gradient norms of both losses with respect to the tables they share, and their ratio.

        Of tables that do not change, the gradient is that of their projections.

        The main loss is computed in inference mode, so that no moving average changes.
        """
        with tf.GradientTape(persistent=True) as tape:
            user, candidates = self.embedder.user_side(features), self.embedder.candidates(features)
            logits_BN = self.backbone.score(self.backbone.encode_user(user), candidates)
            main = share(self._main_loss(features[LABEL], logits_BN, candidates.mask_BN))
            terms = self._ssl_terms(features, seed).values()
            ssl = tf.add_n([term.weight * share(term) for term in terms])
        names = [feature.name for feature in self.schema.history_features]
        projections = self.embedder.projections
        tables = self.embedder.table_weights(names)
        tables += [projections[name] for name in names if name in projections]
        norms = {
            name: tf.linalg.global_norm([sum_duplicates(g) for g in tape.gradient(loss, tables)])
            for name, loss in (("log_loss", main), ("ssl", ssl))
        }
        norms["ssl_to_log_loss"] = tf.math.divide_no_nan(norms["ssl"], norms["log_loss"])
        return {f"embedding_gradient/{name}": norm for name, norm in norms.items()}

    def loss_terms(self, features: Features, seed: tf.Tensor) -> dict[str, LossTerm]:
        """The terms of the training loss, from one forward pass.

        Args:
            features: Encoded features with labels.
            seed: int32 [2]; the same seed gives the same draws.
        """
        user = self.embedder.user_side(features, seed=seed)
        candidates = self.embedder.candidates(features, seed=seed)
        state = self.backbone.encode_user(user, training=True, seed=seed)
        logits_BN = self.backbone.score(state, candidates, training=True)
        weights_BN = self._weights(features, candidates.mask_BN)
        terms = {MAIN_LOSS: self._main_loss(features[LABEL], logits_BN, weights_BN)}
        terms |= self.backbone.auxiliary_losses(state, candidates, seed=seed)
        for name, auxiliary in self.backbone.auxiliary_logits(state, candidates).items():
            term = self._main_loss(features[LABEL], auxiliary.logits_BN, weights_BN)
            terms[name] = term._replace(weight=auxiliary.weight)
        if self._joint:
            terms |= self._ssl_terms(features, seed)
        return terms

    def ssl_loss(
        self, features: Features, seed: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The self-supervised loss by itself; labels are not read.

        Args:
            features: Encoded features.
            seed: int32 [2]; the same seed gives the same draws.

        Returns:
            This replica's share of the loss, and the global value of the loss and its terms.
        """
        return self._total(self._ssl_terms(features, seed), self._ssl_weights()[1])

    def next_terms(self, features: Features, ssl: bool) -> dict[str, LossTerm]:
        """The loss terms of the next step, computed with its random draws.

        Args:
            features: Encoded features with labels.
            ssl: Whether the next step is an `ssl_step` rather than a `train_step`.
        """
        optimizer = self.ssl_optimizer if ssl else self.optimizer
        seed = self._step_seed(optimizer)
        return self._ssl_terms(features, seed) if ssl else self.loss_terms(features, seed)

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """The total training loss of a batch; tensorflow-recommenders requires this method."""
        del training
        terms = self.loss_terms(inputs, self._step_seed(self.optimizer))
        return self._total(terms, self._dense_weights())[0]

    def train_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """One update of all weights.

        Returns:
            The total loss, each of its terms, the ratio of each other weighted term to the main
            one and the gradient norms, over the global batch.
        """
        tables, dense = self._tables(), self._dense_weights()
        with tf.GradientTape() as tape:
            terms = self.loss_terms(inputs, self._step_seed(self.optimizer))
            total, logs = self._total(terms, dense)
        optimizers = self.embedding_optimizer, self.optimizer
        norms = self._update(total, tape, (tables, dense), optimizers)
        # Ratio of each other weighted term to the main loss.
        ratios = {
            f"{name}_ratio": tf.math.divide_no_nan(term.weight * logs[name], logs[MAIN_LOSS])
            for name, term in terms.items()
            if name != MAIN_LOSS
        }
        return logs | ratios | norms

    def ssl_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """One update from the self-supervised loss alone, for pre-training or alternating training.

        The update trains the self-supervision and the tables of the history's features, with
        separate optimisers; the other weights of the model do not change.

        Returns:
            The loss, each of its terms and the gradient norms, over the global batch.
        """
        assert self.ssl_optimizer is not None
        assert self.ssl_embedding_optimizer is not None
        with tf.GradientTape() as tape:
            total, logs = self.ssl_loss(inputs, self._step_seed(self.ssl_optimizer))
        optimizers = self.ssl_embedding_optimizer, self.ssl_optimizer
        return logs | self._update(total, tape, self._ssl_weights(), optimizers)

    def test_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """The main loss of a batch. Rankings are measured on dumped scores (models.evaluate)."""
        candidates = self.embedder.candidates(inputs)
        term = self._main_loss(inputs[LABEL], self(inputs), candidates.mask_BN)
        return {MAIN_LOSS: replicas.all_sum(share(term))}

    def _tables(self) -> list[tf.Variable]:
        return [*self.embedder.table_weights(), *single_variables(self.backbone.tables)]

    def _dense_weights(self) -> list[tf.Variable]:
        """The weights that `train_step` trains, without the tables."""
        excluded = {table.ref() for table in self._tables()}
        if self.ssl is not None and not self._joint:
            excluded |= {weight.ref() for weight in self.ssl.trainable_variables}
        return [weight for weight in self.trainable_variables if weight.ref() not in excluded]

    def _ssl_weights(self) -> tuple[list[tf.Variable], list[tf.Variable]]:
        """The tables and the dense weights that `ssl_step` trains."""
        assert self.ssl is not None
        names = [feature.name for feature in self.schema.history_features]
        dense = self.embedder.dense_weights(names)
        return self.embedder.table_weights(names), dense + self.ssl.trainable_variables

    def _ssl_terms(self, features: Features, seed: tf.Tensor) -> dict[str, LossTerm]:
        """The self-supervised losses: of items alone, without out-of-vocabulary dropout.

        What events have and candidates lack is left out: fields of an item, its views and its
        neighbours are those of the papers.

        A step of the main loss replaces some values by out-of-vocabulary ids. Here this would let
        users who share no item share the row of such an id, and so count as similar.
        """
        assert self.ssl is not None
        user = self.embedder.user_side(features, items_only=True)
        candidates = self.embedder.candidates(features)
        return self.ssl.losses(user, candidates, seed=randomness.for_place(seed, "ssl"))

    def _step_seed(self, optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
        """Seed of this step's draws: a function of the run's seed and the step number."""
        return tf.stack([self._seed, tf.cast(optimizer.iterations, tf.int32)])

    def _update(
        self,
        total: tf.Tensor,
        tape: tf.GradientTape,
        weights: tuple[list[tf.Variable], list[tf.Variable]],
        optimizers: tuple[keras.optimizers.Optimizer, keras.optimizers.Optimizer],
    ) -> dict[str, tf.Tensor]:
        """Updates tables and dense weights, see `update_step.update`."""
        return update_step.update(
            total,
            tape,
            weights,
            optimizers,
            clip_norm=self._clip_norm,
            table_clip_norm=self._embedding_clip_norm,
            loss_scale=self.loss_scale,
        )

    def _weights(self, features: Features, mask_BN: tf.Tensor) -> tf.Tensor:
        """Weight of each sample in the log loss [B, N]; 0 for padding and for a negative weight."""
        weights_BN = tf.cast(mask_BN, tf.float32)
        if self.schema.weight is not None:
            weights_BN *= features[LABEL_WEIGHT]
        if self._positive_weight != 1.0:
            weights_BN *= tf.where(features[LABEL] > 0, self._positive_weight, 1.0)
        if self._sample_weight:
            sample_weights = tf.cast(features[self._sample_weight], tf.float32)
            weights_BN *= tf.maximum(
                sample_weights if sample_weights.shape.rank == 2 else sample_weights[:, None], 0.0
            )
        return weights_BN

    def _main_loss(
        self, label_BN: tf.Tensor, logits_BN: tf.Tensor, weights_BN: tf.Tensor
    ) -> LossTerm:
        """Binary cross-entropy of every candidate, from logits, with its weight or mask."""
        values = self.task(
            tf.reshape(label_BN, [-1, 1]),
            tf.reshape(tf.cast(logits_BN, tf.float32), [-1, 1]),
            compute_metrics=False,
        )
        weights = tf.reshape(tf.cast(weights_BN, tf.float32), [1, -1])
        return LossTerm(tf.reshape(values, [1, -1]), weights, 1.0)

    def _total(
        self, terms: Mapping[str, LossTerm], weights: Sequence[tf.Variable]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """This replica's share of the loss, and the global value of the loss and its terms.

        Args:
            terms: Terms of the loss.
            weights: Dense weights that the loss trains; L2 regularisation applies to their kernels.
        """
        shares = {name: share(term) for name, term in terms.items()}
        total = tf.add_n([terms[name].weight * value for name, value in shares.items()])
        if self._l2:
            kernels = [weight for weight in weights if "kernel" in weight.name]
            penalty = sum(tf.reduce_sum(tf.square(kernel)) for kernel in kernels)
            total += self._l2 * penalty / replicas.count()
        logs = {"loss": total} | shares
        return total, {name: replicas.all_sum(value) for name, value in logs.items()}


def share(term: LossTerm) -> tf.Tensor:
    """This replica's share of a term's mean over the global batch; a scalar."""
    weights_Pn = tf.cast(term.weights_Pn, tf.float32)
    weighted_P = tf.reduce_sum(tf.where(weights_Pn > 0, term.values_Pn, 0.0) * weights_Pn, -1)
    counts_P = replicas.all_sum(tf.reduce_sum(weights_Pn, -1))
    return tf.reduce_mean(tf.math.divide_no_nan(weighted_P, counts_P))
