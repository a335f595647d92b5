"""The interfaces between models, self-supervision and the training step.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, E further item features, d embedding width per field, D = J d, P independent slots
(such as the pairs of a contrastive loss).
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from models.keras import keras, tf
from models.ops import choices
from models.ops.weight_layouts import Fields, Layouts
from preprocessing.errors import UserError
from preprocessing.values.limits import limited

State = Any
"""What `encode_user` of a model returns, of any type: only the model's other methods read it."""


class Dims(NamedTuple):
    """Static sizes that a model is built for.

    Attributes:
        user_fields: Number F of user and context fields.
        history_features: Number J of item features of the history.
        extra_fields: Number E of further item features.
        embedding_size: Embedding width d per field.
        max_length: Largest history length L.
        num_items: Number of rows of the item key's table, padding included.
    """

    user_fields: int
    history_features: int
    extra_fields: int
    embedding_size: int
    max_length: int
    num_items: int = 0

    @property
    def item_width(self) -> int:
        """Width D of an item: its history features, concatenated."""
        return self.history_features * self.embedding_size

    def require_divisor(self, setting: str, count: int) -> None:
        """Raises `UserError` unless the value `count` of a setting divides the item width."""
        if self.item_width % count:
            raise UserError(
                f"Expected {setting} to divide the item width, found {count} {setting} for "
                f"{self.history_features} item features of {self.embedding_size} = "
                f"{self.item_width}.",
                f"change model.{setting} or model.embedding_size.",
            )


class UserSide(NamedTuple):
    """The embedded part of a request that all its candidates share.

    Attributes:
        fields_BFd: User and context features.
        history_BLJd: The history, oldest event first; exactly zero at padding.
        mask_BL: True for events, false for padding; a contiguous prefix.
        key_B: Encoded user key, to tell whether two requests are of the same user.
        items_BL: Encoded item key of each event; 0 at padding.
        linear_B: Sum of the linear weights of the user side, those of a history averaged over its
            events; 0 unless the model uses them (`Backbone.linear_weights`).
        history_ids: Encoded values [B, L] of each of the J history features; of a feature of many
            values the most frequent value of each event, 0 if it has none; None of vectors.
    """

    fields_BFd: tf.Tensor
    history_BLJd: tf.Tensor
    mask_BL: tf.Tensor
    key_B: tf.Tensor
    items_BL: tf.Tensor
    linear_B: tf.Tensor
    history_ids: tuple[tf.Tensor | None, ...] = ()

    @property
    def history_BLD(self) -> tf.Tensor:
        """The history, with the features of an item concatenated.

        A model that reads it in `encode_user` and in `score` keeps it in its state: two tensors of
        the same history would add up their gradients in another order.
        """
        shape = tf.shape(self.history_BLJd)
        width = self.history_BLJd.shape[2] * self.history_BLJd.shape[3]
        return tf.reshape(self.history_BLJd, [shape[0], shape[1], width])


class Candidates(NamedTuple):
    """The embedded candidates of a request.

    Attributes:
        target_BNJd: The features that history events also have, from the same tables.
        extra_BNEd: Item features that the history lacks; E may be 0.
        mask_BN: True for candidates, false for padding.
        key_BN: Encoded item key, to tell whether two candidates are the same item.
        linear_BN: Sum of the linear weights of each candidate; 0 unless the model uses them.
    """

    target_BNJd: tf.Tensor
    extra_BNEd: tf.Tensor
    mask_BN: tf.Tensor
    key_BN: tf.Tensor
    linear_BN: tf.Tensor

    @property
    def target_BND(self) -> tf.Tensor:
        """The target features of a candidate, concatenated."""
        shape = tf.shape(self.target_BNJd)
        width = self.target_BNJd.shape[2] * self.target_BNJd.shape[3]
        return tf.reshape(self.target_BNJd, [shape[0], shape[1], width])


class LossTerm(NamedTuple):
    """A term of the training loss: weight * mean over P of the weighted means over entries.

    Attributes:
        values_Pn: Loss of each entry (a request, a candidate) in each slot.
        weights_Pn: 1 for valid entries and 0 for padding, or sample weights.
        weight: Factor of this term in the total loss.
    """

    values_Pn: tf.Tensor
    weights_Pn: tf.Tensor
    weight: float


class AuxiliaryLogits(NamedTuple):
    """Logits of an auxiliary scorer, which is trained with the labels of the main scorer.

    Attributes:
        logits_BN: Logits of the candidates.
        weight: Factor of the scorer's log loss in the total loss.
    """

    logits_BN: tf.Tensor
    weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings that every model has.

    Attributes:
        embedding_size: Width d of each field's embedding.
        compressed_features: Categorical features whose tables are compressed: the embedding of id i
            is the product of row i mod m of one table of m rows and row i div m of another (Shi et
            al., 2020, quotient-remainder trick).
        compression: Number of ids that share a row of the first table: its compression factor.
    """

    embedding_size: int = 10
    compressed_features: tuple[str, ...] = ()
    compression: int = limited(8, at_least=2)


class Backbone(keras.layers.Layer):
    """A model without its embeddings and its losses.

    Candidate-independent work belongs into `encode_user`, which runs once per request for any
    number of candidates.

    AutoGraph is off, because it makes every start slower: write loops and conditions on tensors as
    `tf.while_loop` and `tf.cond`, or in a separate `tf.function`.

    Attributes:
        Config: Class of the settings.
        linear_weights: Whether each value also gets a scalar weight (as in logistic regression),
            kept in a further column of its embedding table.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig

    mixed_precision: ClassVar[bool] = False
    """Whether its large layers may compute in half precision; see `models.ops.precision`."""
    linear_weights: ClassVar[bool] = False

    @property
    def tables(self) -> list[tf.Variable]:
        """Weights of which a step reads only a few rows; the embedding optimiser trains them."""
        return []

    def layouts(self, fields: Fields) -> Layouts:
        """Layouts of the weights' axes, for warm starts from runs with other features.

        The method is called once the weights exist. Weights that it does not yield can be
        warm-started only if features and their order are the same.

        Args:
            fields: Blocks of the features in the order in which they enter the model.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement layouts")

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """Computes the part of the model that does not depend on the candidates: the state.

        Args:
            user: The user side of the batch.
            training: Whether this is a training step.
            seed: Seed int32 [2] of stateless random draws; None outside of training.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement encode_user")

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request against its state.

        Returns:
            Logits [B, N]; those of padded candidates are finite but meaningless.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement score")

    def auxiliary_losses(
        self, state: State, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """Auxiliary losses beside the main one, from the state of a training step."""
        del state, candidates, seed
        return {}

    def auxiliary_logits(self, state: State, candidates: Candidates) -> dict[str, AuxiliaryLogits]:
        """Logits of auxiliary scorers that train parts of the model, in training only."""
        del state, candidates
        return {}

    def explain(self, state: State, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Explains the scores by interests and history events.

        Returns:
            `confidence_BNK`: weight of each of the K interests in the score, summing to 1.
            `attention_BNKL`: weight of each history event in each interest, 0 at padding.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement explain")

    def inspect(self, user: UserSide, candidates: Candidates) -> dict[str, tf.Tensor]:
        """Inner values for figures (models.reporting.interest_figures); {} for no figures.

        Returns:
            The values of `explain`; `interests_BNKD`: the interest vectors, if they depend on the
            candidate; `relation_attention_BRLL`: how much event i receives from event j in each of
            R relations; `relation_weight_BQL`: the weights of the relations and of event i itself.
        """
        del user, candidates
        return {}

    def diagnostics(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Diagnostics of the parts of the model, at every evaluation of a training run.

        The method must change neither weights nor moving averages.

        Args:
            user: The user side of a validation batch.
            candidates: The candidates of the batch.
            seed: Seed int32 [2] of random draws, the same at every call.

        Returns:
            Scalars by name, e.g. how evenly the experts of a mixture are used.
        """
        del user, candidates, seed
        return {}


class SelfSupervision(keras.layers.Layer):
    """A loss on the history embeddings that can be combined with any model.

    It shares only the embedding tables with the model, does not affect the score directly, and is
    not part of the exported graph.
    """

    mixed_precision: ClassVar[bool] = False
    """Whether its large layers may compute in half precision, as in `Backbone`."""

    schedule: ClassVar[Mapping[str, Any]] = choices.SSL_SCHEDULE
    """Defaults of the section "train" with this loss where labels are scarce."""

    schedule_of_many_labels: ClassVar[Mapping[str, Any]] = choices.SSL_SCHEDULE_OF_MANY_LABELS
    """Defaults of the section "train" from `choices.MANY_LABELS` training requests per user on."""

    def losses(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, LossTerm]:
        """The self-supervised losses of a batch.

        Args:
            user: The user side, from the tables that are being trained.
            candidates: The candidates, from the same tables.
            seed: Seed int32 [2] of stateless random draws, different at each step.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement losses")

    def diagnostics(
        self, user: UserSide, candidates: Candidates, *, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Diagnostics of the self-supervision; see `Backbone.diagnostics`."""
        del user, candidates, seed
        return {}


def require_logits(logits_BN: Any, backbone: type[Backbone]) -> None:
    """Raises `UserError` for scores that are no logits [B, N]; at graph construction only.

    Args:
        logits_BN: Result of the model's `score`.
        backbone: Class of the model.

    Raises:
        UserError: The scores have another shape or type.
    """
    code = inspect.unwrap(backbone.score).__code__
    where = f"{backbone.__name__}.score ({code.co_filename}:{code.co_firstlineno})"
    if not tf.is_tensor(logits_BN):
        raise UserError(
            f"Expected logits [B, N] from {where}, found {type(logits_BN).__name__}.",
            "return a tensor.",
        )
    if logits_BN.shape.rank != 2:
        fix = "drop its last axis, as in logits[..., 0]." if logits_BN.shape.rank == 3 else ""
        raise UserError(
            f"Expected logits [B, N] from {where}, found a tensor of rank {logits_BN.shape.rank}.",
            fix or "return a number for each candidate of each request.",
        )
    if not logits_BN.dtype.is_floating:
        raise UserError(
            f"Expected logits of type float32 from {where}, found {logits_BN.dtype.name}, which "
            "cannot be trained.",
            "return what layers compute, neither classes nor ranks.",
        )


def equal_interests(attention_BNKL: tf.Tensor) -> dict[str, tf.Tensor]:
    """What `Backbone.explain` returns for a network that treats its K interests equally."""
    confidence_BNK = tf.ones_like(attention_BNKL[..., 0]) / attention_BNKL.shape[2]
    return {"confidence_BNK": confidence_BNK, "attention_BNKL": attention_BNKL}


def pair_fields(user_fields_BFd: tf.Tensor, candidates: Candidates) -> tf.Tensor:
    """Concatenates user fields, target features and extra features for each candidate.

    Returns:
        Features [B, N, (F + J + E) d], with the layout `Fields.pair`.
    """
    shape = tf.shape(candidates.target_BNJd)
    batch, count = shape[0], shape[1]
    width = user_fields_BFd.shape[1] * user_fields_BFd.shape[2]
    user = tf.reshape(user_fields_BFd, [batch, 1, width])
    user = tf.broadcast_to(user, [batch, count, width])
    extra_width = candidates.extra_BNEd.shape[2] * candidates.extra_BNEd.shape[3]
    extra = tf.reshape(candidates.extra_BNEd, [batch, count, extra_width])
    return tf.concat([user, candidates.target_BND, extra], -1)
