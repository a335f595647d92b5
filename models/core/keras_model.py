"""The face that the model shows to Keras: compile, fit, evaluate, predict, save, load.

What is trained and how stands in `models.core.base`.

Shapes: B requests, N candidates.
"""

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from models.core import optimizer_pairs, samples, saved_weights
from models.core.compiled import ClassWeight, Compiled, Means, require_probabilities
from models.core.optimizer_pairs import SharedRate
from models.keras import keras, tf, tfrs
from models.ops import replicas
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, candidate_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema

PACKAGE = "sequence_ctr"
"""Name under which classes are registered with Keras."""
LOSS = "binary_crossentropy"
_OPTIMIZERS = ("optimizer", "embedding_optimizer", "ssl_optimizer", "ssl_embedding_optimizer")

_HAS_SLOTS, _FACTORS = "has_slots", "learning_rate_factors"

_as_it_is = tf.autograph.experimental.do_not_convert


class KerasModel(tfrs.Model, abc.ABC):
    """A model that Keras compiles, trains, evaluates, saves and loads.

    Attributes:
        schema: Schema of the features.
    """

    schema: Schema

    @abc.abstractmethod
    def predicted_step(self, inputs: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One update from the main loss: its logs, and the logits [B, N] of the forward pass."""

    @abc.abstractmethod
    def ssl_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """One update from the self-supervised loss alone."""

    @abc.abstractmethod
    def log_loss(self, inputs: Any, logits_BN: tf.Tensor, weights_BN: tf.Tensor) -> tf.Tensor:
        """The main loss of the global batch, a scalar."""

    @abc.abstractmethod
    def weights_of_samples(self, inputs: Any) -> tf.Tensor:
        """Weight of each sample in the training loss [B, N]; 0 for padding."""

    @abc.abstractmethod
    def optimizers(self) -> list[tuple[keras.optimizers.Optimizer, list[tf.Variable]]]:
        """The optimisers with the weights that each of them trains."""

    @abc.abstractmethod
    def build_optimizers(self) -> None:
        """Creates the optimisers' slots."""

    # Compile.

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: str | None = None,
        metrics: Any = None,
        *,
        embedding_optimizer: str | keras.optimizers.Optimizer | None = None,
        ssl_optimizer: str | keras.optimizers.Optimizer | None = None,
        ssl_embedding_optimizer: str | keras.optimizers.Optimizer | None = None,
        weighted_metrics: Any = None,
        loss_weights: None = None,
        joint: bool = False,
        l2: float = 0.0,
        clip_norm: float = 0.0,
        embedding_clip_norm: float = 0.0,
        positive_weight: float = 1.0,
        sample_weight: str = "",
        **kwargs: Any,
    ) -> None:
        """Prepares for training.

        Optimisers that are left out follow from `optimizer`: the tables get the same rule with the
        same settings, Adam in the form whose cost depends on the rows of a batch (`LazyAdam`). So
        `compile("adam")` trains as `models.train` does with its defaults.

        Args:
            optimizer: Optimiser of all dense weights, or its name.
            loss: None or "binary_crossentropy", which is the loss of the model in any case.
            metrics: Metrics of Keras. They are given the probabilities of candidates, without
                padding and without weights.
            embedding_optimizer: Optimiser of the embedding tables.
            ssl_optimizer: Optimiser of the dense weights that `ssl_step` trains.
            ssl_embedding_optimizer: Optimiser of the tables that `ssl_step` trains.
            weighted_metrics: Metrics that count each candidate with its weight in the loss.
            loss_weights: Not used: the model's own settings weigh its losses.
            joint: Whether a step minimises the sum of the main loss and the self-supervised one
                (MISS, eq. 17); otherwise `fit` takes a step of self-supervision ahead of each.
            l2: Factor of the squared norm of the dense kernels in the loss.
            clip_norm: Bound on the global norm of all gradients; 0 for none.
            embedding_clip_norm: Bound on the global norm of the tables' gradients; `clip_norm` then
                bounds those of the dense weights alone. 0 for one bound on all gradients.
            positive_weight: Weight of samples with label 1 in the log loss; label 0 has weight 1.
            sample_weight: Numeric feature that weighs the samples in the log loss; "" for none.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            UserError: There is another loss, an optimiser of another Keras, or a metric of logits.
        """
        if (loss not in (None, LOSS)) or loss_weights is not None:
            refused = loss_weights if loss in (None, LOSS) else loss
            raise UserError(
                "Expected no loss and no loss_weights, since the model has losses of its own (log "
                f"loss and auxiliary ones), found {refused!r}.",
                "leave them out; the settings of the model weigh its losses.",
            )
        for metric in tf.nest.flatten([metrics, weighted_metrics]):
            require_probabilities(metric)
        optimizer = optimizer_pairs.resolved(optimizer)
        self._means, self._class_weight = Means(), ClassWeight(None)
        super().compile(
            optimizer=optimizer, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs
        )
        self.embedding_optimizer = (
            optimizer_pairs.for_tables(optimizer)
            if embedding_optimizer is None
            else optimizer_pairs.resolved(embedding_optimizer)
        )
        self.joint = joint and self.ssl is not None
        self.ssl_optimizer = self.ssl_embedding_optimizer = None
        if ssl_optimizer is not None or (self.ssl is not None and not joint):
            self.ssl_optimizer = (
                optimizer_pairs.copy_of(optimizer)
                if ssl_optimizer is None
                else optimizer_pairs.resolved(ssl_optimizer)
            )
            self.ssl_embedding_optimizer = (
                optimizer_pairs.for_tables(self.ssl_optimizer)
                if ssl_embedding_optimizer is None
                else optimizer_pairs.resolved(ssl_embedding_optimizer)
            )
        self.compiled = Compiled(
            joint=joint,
            l2=l2,
            clip_norm=clip_norm,
            embedding_clip_norm=embedding_clip_norm,
            positive_weight=positive_weight,
            sample_weight=sample_weight,
        )
        others = [each for each, _ in self.optimizers() if each is not self.optimizer]
        self._shared_rate = SharedRate(self.optimizer, others)

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile_from_config` needs; called by Keras when it saves. None if not compiled."""
        if not self._is_compiled:
            return None
        content: dict[str, Any] = dataclasses.asdict(self.compiled)
        optimizers = {name: getattr(self, name) for name in _OPTIMIZERS}
        base = super().get_compile_config() or {}
        metrics = {name: base.get(name) for name in ("metrics", "weighted_metrics")}
        content[_FACTORS] = [
            optimizer.factors(weights) if hasattr(optimizer, "factors") else []
            for optimizer, weights in self.optimizers()
        ]
        content |= {
            _HAS_SLOTS: all(
                getattr(optimizer, "_built", False) for optimizer, _ in self.optimizers()
            )
        }
        return content | metrics | keras.saving.serialize_keras_object(optimizers)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says, with slots whose content Keras then loads."""
        settings = keras.saving.deserialize_keras_object(config)
        has_slots, factors = settings.pop(_HAS_SLOTS), settings.pop(_FACTORS)
        self.compile(**settings)
        for (optimizer, weights), of_weights in zip(self.optimizers(), factors, strict=True):
            for weight, factor in zip(weights, of_weights, strict=bool(of_weights)):
                if factor != 1.0:
                    optimizer.set_factor([weight], factor)
        if has_slots:
            self.build_optimizers()

    # Train and evaluate.

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics that Keras resets at each epoch: means of losses first, then compiled ones."""
        means = list(self._means.by_name.values()) if self._is_compiled else []
        return means + super().metrics

    @_as_it_is
    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update of all weights by `fit`.

        With self-supervision that has optimisers of its own, a step of it on the histories of the
        same batch comes first.

        Returns:
            Means since the begin of the epoch, weighted by samples, of what the steps report.
        """
        features = samples.unpacked(data)
        if self._class_weight.values is not None:
            features = samples.weighted(features, self._class_weight.values)
        samples.require_features(self.schema, features, labelled=True)
        self._shared_rate.follow()
        has_steps = not self.joint and self.ssl_optimizer is not None
        ssl_logs = self.ssl_step(features) if has_steps else {}
        logs, logits_BN = self.predicted_step(features)
        logs |= {f"ssl_{name}" if name in logs else name: v for name, v in ssl_logs.items()}
        weights_BN = self.weights_of_samples(features)
        return self._report(features, logs, logits_BN, weights_BN, weights_BN)

    @_as_it_is
    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The main loss of a batch; weighted only by weights that are given beside the features.

        Returns:
            Means since the begin of the evaluation.
        """
        features = samples.unpacked(data)
        samples.require_features(self.schema, features, labelled=True)
        logits_BN = self(features)
        weights_BN = tf.cast(self._mask(features), tf.float32)
        weights_BN *= features.get(samples.SAMPLE_WEIGHT, 1.0)
        loss = self.log_loss(features, logits_BN, weights_BN)
        return self._report(
            features,
            {"loss": loss, "log_loss": loss},
            logits_BN,
            weights_BN,
            self.weights_of_samples(features),
        )

    @_as_it_is
    def predict_step(self, data: Any) -> tf.Tensor:
        """Probabilities [B, N] of a batch; NaN at padding."""
        features = samples.unpacked(data)
        samples.require_features(self.schema, features, labelled=False)
        return tf.where(self._mask(features), tf.sigmoid(self(features)), np.nan)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        class_weight: Mapping[int, float] | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; see there for the arguments.

        Args:
            x: Batches of requests, or features by name.
            y: Labels [requests, N] beside features that lack them.
            *args: Further arguments of `keras.Model.fit`.
            class_weight: Weights of the labels 0 and 1 in the log loss.
            **kwargs: Further arguments of `keras.Model.fit`.

        Raises:
            UserError: Features or labels are missing, or a weight is of no label.
        """
        self._require(x, labelled=y is None)
        self._weigh_classes(class_weight)
        return super().fit(x, y, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        *args: Any,
        class_weight: Mapping[int, float] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Trains on one batch as `keras.Model.train_on_batch` does; see `fit`."""
        self._require(x, labelled=y is None)
        self._weigh_classes(class_weight)
        return super().train_on_batch(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The log loss over all candidates and the compiled metrics, as `keras.Model.evaluate`."""
        self._require(x, labelled=y is None)
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Probabilities [requests, N] as a served model gives them, uncalibrated.

        N is the largest number of candidates; what is padding is NaN.
        """
        self._require(x, labelled=False)
        predicted = super().predict(x, *args, **kwargs)
        if isinstance(predicted, tf.RaggedTensor):  # Batches have different N.
            predicted = predicted.to_tensor(np.nan).numpy()
        return predicted

    # Save and load.

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Writes configuration, weights and optimisers to a file that `load_model` of Keras reads.

        Args:
            filepath: Path that ends in ".keras".
            *args: Further arguments of `keras.Model.save`.
            **kwargs: Further arguments of `keras.Model.save`.

        Raises:
            UserError: The path has another ending.
        """
        if not str(filepath).endswith(".keras"):
            raise UserError(
                f"Expected a path that ends in .keras, found {filepath}.",
                f"save to {filepath}.keras; ctr-export writes a SavedModel of raw values.",
            )
        super().save(filepath, *args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Adds to a file of Keras the weights that it would leave out."""
        for number, weight in enumerate(self._unreached()):
            store[str(number)] = weight.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote."""
        for number, weight in enumerate(self._unreached()):
            weight.assign(store[str(number)])

    def _unreached(self) -> list[tf.Variable]:
        scale = self.loss_scale
        return saved_weights.unreached(self, () if scale is None else tuple(scale.variables))

    def get_build_config(self) -> None:
        """Nothing: weights exist once the model does."""

    # Parts of the above.

    def _require(self, x: Any, labelled: bool) -> None:
        content = x.element_spec if isinstance(x, tf.data.Dataset) else x
        if isinstance(content, tuple) and content:
            content, labelled = content[0], labelled and len(content) < 2
        if isinstance(content, Mapping):
            samples.require_features(self.schema, content, labelled)

    def _weigh_classes(self, class_weight: Mapping[int, float] | None) -> None:
        weights = samples.class_weights(class_weight)
        self._assert_compile_was_called()
        if weights != self._class_weight.values:
            self._class_weight = ClassWeight(weights)
            self.train_function = None  # Traced with other weights.

    def _mask(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """True for candidates, False for padding [B, N]."""
        return features[candidate_key(self.schema.item_key.name)] != PAD_ID

    def _report(
        self,
        features: Mapping[str, tf.Tensor],
        logs: Mapping[str, tf.Tensor],
        logits_BN: tf.Tensor,
        weights_BN: tf.Tensor,
        metric_weights_BN: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Updates means and compiled metrics; returns their values."""
        mask_BN = self._mask(features)
        self.compiled_metrics.update_state(
            tf.boolean_mask(features[LABEL], mask_BN)[:, None],
            tf.sigmoid(tf.boolean_mask(logits_BN, mask_BN))[:, None],
            tf.boolean_mask(metric_weights_BN, mask_BN),
        )
        means = self._means.update(logs, replicas.all_sum(tf.reduce_sum(weights_BN)))
        return means | _results(self.compiled_metrics.metrics)


def _results(metrics: Iterable[keras.metrics.Metric]) -> dict[str, tf.Tensor]:
    return {metric.name: metric.result() for metric in metrics}
