"""The trainable model: embeddings, a backbone, perhaps self-supervision, and its steps.

Shapes: B requests, N candidates.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from models.backbone_api import Backbone, LossTerm, SelfSupervision, require_logits
from models.config.run_config import resolve
from models.core import update_step
from models.core.embeddings import FeatureEmbedder, Features, single_variables
from models.core.keras_model import PACKAGE, KerasModel
from models.core.recipe import Recipe
from models.core.samples import SAMPLE_WEIGHT
from models.keras import keras, tf, tfrs
from models.ops import randomness, replicas
from models.ops.optimizers import sum_duplicates
from models.ops.precision import LossScale
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema

MAIN_LOSS = "log_loss"


@keras.saving.register_keras_serializable(PACKAGE)
class CTRModel(KerasModel):
    """Scores the candidates of a request; the only class that trains.

    Losses are averaged over the global batch for any number of replicas: each replica divides its
    sum by the number of valid entries on all of them, and gradients are summed.

    Args:
        schema: Schema of the data; travels with checkpoints and exports.
        embedder: Embedding tables, shared by backbone and self-supervision.
        backbone: Turns embedded requests into logits.
        ssl: Self-supervised losses, used in training only.
        seed: Seed of the random draws of a training step.
        recipe: What the model was built from, so that Keras can save it.
    """

    def __init__(
        self,
        schema: Schema,
        embedder: FeatureEmbedder,
        backbone: Backbone,
        ssl: SelfSupervision | None = None,
        seed: int = 0,
        recipe: Recipe | None = None,
    ) -> None:
        # Float features are not rounded, whatever precision policy the layers are built with.
        super().__init__(name="ctr_model", dtype="float32")
        self.schema = schema
        self.embedder = embedder
        self.backbone = backbone
        self.ssl = ssl
        self._seed, self._recipe = seed, recipe
        self.loss_scale: LossScale | None = None
        # The logs of steps are global already; Keras would sum them over replicas.
        self.distribute_reduction_method = "first"
        self.task = tfrs.tasks.Ranking(
            loss=keras.losses.BinaryCrossentropy(
                from_logits=True, reduction=keras.losses.Reduction.NONE
            )
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
        if self.joint:
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
        return self._forward(features, seed)[0]

    def _forward(
        self, features: Features, seed: tf.Tensor
    ) -> tuple[dict[str, LossTerm], tf.Tensor]:
        """The terms of `loss_terms`, and the logits [B, N] of the same forward pass."""
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
        if self.joint:
            terms |= self._ssl_terms(features, seed)
        return terms, logits_BN

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
            ssl: Whether the next step is an `ssl_step` rather than a `main_step`.
        """
        optimizer = self.ssl_optimizer if ssl else self.optimizer
        seed = self._step_seed(optimizer)
        return self._ssl_terms(features, seed) if ssl else self.loss_terms(features, seed)

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """The loss of a batch; tensorflow-recommenders requires this method.

        Args:
            inputs: Encoded features with labels.
            training: Whether to return this replica's share of all losses of a training step,
                rather than the log loss at inference.
        """
        if not training:
            mask_BN = self.embedder.candidates(inputs).mask_BN
            return self.log_loss(inputs, self(inputs), mask_BN)
        terms = self.loss_terms(inputs, self._step_seed(self.optimizer))
        return self._total(terms, self._dense_weights())[0]

    def main_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """One update of all weights from the main loss; `models.train` calls it.

        Returns:
            The total loss, each of its terms, the ratio of each other weighted term to the main
            one and the gradient norms, over the global batch.
        """
        return self.predicted_step(inputs)[0]

    def predicted_step(self, inputs: Features) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The update of `main_step`, with the logits [B, N] from before it."""
        tables, dense = self._tables(), self._dense_weights()
        with tf.GradientTape() as tape:
            terms, logits_BN = self._forward(inputs, self._step_seed(self.optimizer))
            total, logs = self._total(terms, dense)
        optimizers = self.embedding_optimizer, self.optimizer
        norms = self._update(total, tape, (tables, dense), optimizers)
        # Ratio of each other weighted term to the main loss.
        ratios = {
            f"{name}_ratio": tf.math.divide_no_nan(term.weight * logs[name], logs[MAIN_LOSS])
            for name, term in terms.items()
            if name != MAIN_LOSS
        }
        return logs | ratios | norms, logits_BN

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

    @property
    def recipe(self) -> Recipe:
        """What the model was built from.

        Raises:
            UserError: The model was built by hand.
        """
        if self._recipe is None:
            raise UserError(
                "Expected a model of models.build_model, found one without the configuration that "
                "its parts were built from.",
                "save its weights with save_weights, or build it with models.build_model.",
            )
        return self._recipe

    def get_config(self) -> dict[str, Any]:
        """What the model was built from; called by Keras when it saves."""
        return {"schema": self.schema.to_json(), **self.recipe.to_json()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "CTRModel":
        """A model with new weights, from what `get_config` returns."""
        del cls, custom_objects
        from models.core.factory import build_sized  # The factory builds models of this class.

        return build_sized(
            resolve(config["run"]),
            Schema.from_json(config["schema"]),
            config["cardinalities"],
            config["precision"],
        )

    def _tables(self) -> list[tf.Variable]:
        return [*self.embedder.table_weights(), *single_variables(self.backbone.tables)]

    def _dense_weights(self) -> list[tf.Variable]:
        """The weights that `main_step` trains, without the tables."""
        excluded = {table.ref() for table in self._tables()}
        if self.ssl is not None and not self.joint:
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
            clip_norm=self.compiled.clip_norm,
            table_clip_norm=self.compiled.embedding_clip_norm,
            loss_scale=self.loss_scale,
        )

    def _weights(self, features: Features, mask_BN: tf.Tensor) -> tf.Tensor:
        """Weight of each sample in the log loss [B, N]; 0 for padding and for a negative weight."""
        weights_BN = tf.cast(mask_BN, tf.float32)
        if self.schema.weight is not None:
            weights_BN *= features[LABEL_WEIGHT]
        if self.compiled.positive_weight != 1.0:
            weights_BN *= tf.where(features[LABEL] > 0, self.compiled.positive_weight, 1.0)
        if name := self.compiled.sample_weight:
            items = [feature.name for feature in self.schema.item_features]
            name = candidate_key(name) if name in items else name
            sample_weights = tf.cast(features[name], tf.float32)
            weights_BN *= tf.maximum(
                sample_weights if sample_weights.shape.rank == 2 else sample_weights[:, None], 0.0
            )
        if SAMPLE_WEIGHT in features:
            weights_BN *= features[SAMPLE_WEIGHT]
        return weights_BN

    def weights_of_samples(self, inputs: Features) -> tf.Tensor:
        """Weight of each sample in the log loss [B, N]; 0 for padding."""
        key_BN = inputs[candidate_key(self.schema.item_key.name)]
        return self._weights(inputs, key_BN != PAD_ID)

    def log_loss(self, inputs: Features, logits_BN: tf.Tensor, weights_BN: tf.Tensor) -> tf.Tensor:
        """The main loss of the global batch, a scalar, for weights of samples [B, N]."""
        return replicas.all_sum(share(self._main_loss(inputs[LABEL], logits_BN, weights_BN)))

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
        if self.compiled.l2:
            kernels = [weight for weight in weights if "kernel" in weight.name]
            penalty = sum(tf.reduce_sum(tf.square(kernel)) for kernel in kernels)
            total += self.compiled.l2 * penalty / replicas.count()
        logs = {"loss": total} | shares
        return total, {name: replicas.all_sum(value) for name, value in logs.items()}


def share(term: LossTerm) -> tf.Tensor:
    """This replica's share of a term's mean over the global batch; a scalar."""
    weights_Pn = tf.cast(term.weights_Pn, tf.float32)
    weighted_P = tf.reduce_sum(tf.where(weights_Pn > 0, term.values_Pn, 0.0) * weights_Pn, -1)
    counts_P = replicas.all_sum(tf.reduce_sum(weights_Pn, -1))
    return tf.reduce_mean(tf.math.divide_no_nan(weighted_P, counts_P))
