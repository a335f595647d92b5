"""Base of the models that treat a request as a set of fields, without a sequence module.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, E further item features, d embedding width per field, S = F + J fields of the user
side, M = F + 2 J + E fields of a candidate's request.
"""

import abc
from typing import NamedTuple

from models.backbone_api import Backbone, Candidates, Dims, UserSide
from models.keras import tf
from models.layers.masking import masked_mean
from models.ops.weight_layouts import Fields, Layout


def num_fields(dims: Dims) -> int:
    """Number M of fields of a model with these sizes."""
    return dims.user_fields + 2 * dims.history_features + dims.extra_fields


def flatten_fields(fields_BNMd: tf.Tensor) -> tf.Tensor:
    """Concatenates all fields of a candidate, [B, N, M d]."""
    shape = tf.shape(fields_BNMd)
    width = fields_BNMd.shape[2] * fields_BNMd.shape[3]
    return tf.reshape(fields_BNMd, [shape[0], shape[1], width])


def field_layout(fields: Fields) -> Layout:
    """Layout of the result of `flatten_fields`, in the order of the fields of `FieldwiseModel`."""
    return fields.user + fields.history + fields.target + fields.extra


class State(NamedTuple):
    """The fields of the user side, and the sum of their linear weights."""

    fields_BSd: tf.Tensor
    linear_B: tf.Tensor


class FieldwiseModel(Backbone, abc.ABC):
    """A model of the fields of a request, where a history feature is one field: its mean.

    The fields are those of user and context, the mean of each history feature over its events (zero
    for an empty history), and those of the candidate, in this order, as MISS counts them in table
    II.
    The history is embedded and averaged once per request.
    """

    @abc.abstractmethod
    def interact(self, fields_BNMd: tf.Tensor) -> tf.Tensor:
        """Scores the fields of every candidate.

        Returns:
            Logits [B, N], without the linear weights.
        """

    def encode_user(
        self, user: UserSide, *, training: bool = False, seed: tf.Tensor | None = None
    ) -> State:
        """Averages the history. See the base class."""
        del training, seed
        mean_BJd = masked_mean(user.history_BLJd, user.mask_BL)
        return State(tf.concat([user.fields_BFd, mean_BJd], 1), user.linear_B)

    def score(self, state: State, candidates: Candidates, *, training: bool = False) -> tf.Tensor:
        """Scores N candidates of each request. See the base class."""
        del training
        fields_BNMd = _candidate_fields(state.fields_BSd, candidates)
        logits_BN = tf.cast(self.interact(fields_BNMd), tf.float32)
        if self.linear_weights:
            logits_BN += state.linear_B[:, None] + candidates.linear_BN
        return logits_BN


def _candidate_fields(user_BSd: tf.Tensor, candidates: Candidates) -> tf.Tensor:
    """The fields of the user side and of each candidate, [B, N, M, d]."""
    shape = tf.shape(candidates.target_BNJd)
    count, width = user_BSd.shape[1:]
    user_BNSd = tf.broadcast_to(user_BSd[:, None], [shape[0], shape[1], count, width])
    return tf.concat([user_BNSd, candidates.target_BNJd, candidates.extra_BNEd], 2)
