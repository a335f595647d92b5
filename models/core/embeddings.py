"""Embedding tables, and the lookup that turns encoded features into model inputs.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, E further item features, V features of events, M values of a set, d embedding width
per field.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from models.backbone_api import Candidates, Dims, UserSide
from models.config.pretrained import Pretrained
from models.core.table_shapes import projected_widths, table_shapes
from models.core.value_bags import combine
from models.keras import keras, tf
from models.layers.masking import masked_mean
from models.ops import randomness, spread_rows
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.schema import Schema

Features = Mapping[str, tf.Tensor]

_BOUND = 0.05
_QUOTIENT_BOUND = math.sqrt(3.0)
"""Bounds of initial embeddings, and of rows that multiply them."""


class FeatureEmbedder(keras.layers.Layer):
    """One table per categorical feature, one vector per number, one projection per vector.

    A feature of many values is one field like any other: the vectors of its values are combined.

    Candidates and history share the tables of their features: so self-supervision on histories
    trains the rows that candidates read (MISS, section III).

    What events have and candidates lack (role `event`) is added to the item features of each event
    through a projection that is zero at first: training begins with the model without it. Tables of
    these features draw from a seed of their own, so that the other weights begin as without them.

    The vocabulary is fitted on the training data, so without further measures no training request
    has an out-of-vocabulary id, and the rows of these ids would keep their random initial values.
    Training therefore replaces a few known values by out-of-vocabulary ids.

    Args:
        schema: Schema of the features.
        cardinalities: Number of rows of each categorical feature's table, padding included.
        embedding_size: Embedding width d.
        linear_weights: Whether each value also has a scalar weight. It is one more column of the
            table, so that one lookup and one sparse update serve both, and starts at 0.
        oov_rate: Share of the known values that training replaces by out-of-vocabulary ids.
        compressed: Features whose ids share rows, and how many ids share one; see `ModelConfig`.
        device: Device of the tables; None for the device of the other weights.
        pretrained: Features whose tables hold vectors from a file, perhaps of another width. The
            vectors are filled in by `models.training.pretrained_tables`.
        seed: Seed of the tables of event features.

    Attributes:
        width: Number of columns of a table.
        tables: Table of each categorical feature; for a compressed one, the remainder table.
        quotients: Quotient table of each compressed feature.
        projections: Projection [W, width] of each feature of vectors of W numbers, and of each
            table of them that needs one.
        scales: Factor of the vectors of such a table ahead of their projection, a scalar.
        pretrained: Names of the features whose tables begin with vectors from a file.
        fixed: Names of those whose tables training does not change.
        vectors: Vector of each numeric feature, [1, d].
        spreads: Whether rows of tables stand as on parameter servers, see `core.spread_tables`.
        event_projections: Projection of each event feature to the item features of an event,
            [d, J d]; none if d is 0.
    """

    def __init__(
        self,
        schema: Schema,
        cardinalities: Mapping[str, int],
        embedding_size: int,
        linear_weights: bool = False,
        oov_rate: float = 0.0,
        compressed: Mapping[str, int] | None = None,
        device: str | None = None,
        pretrained: Mapping[str, Pretrained] | None = None,
        seed: int = 0,
        name: str = "embedder",
    ) -> None:
        super().__init__(name=name)
        pretrained = pretrained or {}
        self._schema = schema
        self._linear_weights = linear_weights
        self._oov_rate = oov_rate
        self._device = device
        self._seed = seed
        self.spreads = False
        self.width = embedding_size + linear_weights
        self.tables: dict[str, tf.Variable] = {}
        self.quotients: dict[str, tf.Variable] = {}
        self.vectors: dict[str, tf.Variable] = {}
        self.projections: dict[str, tf.Variable] = {}
        self.event_projections: dict[str, tf.Variable] = {}
        self.scales: dict[str, tf.Variable] = {}
        self.pretrained = frozenset(pretrained)
        self.fixed = frozenset(name for name, p in pretrained.items() if not p.trainable)
        widths = projected_widths(pretrained, embedding_size)
        shapes = table_shapes(cardinalities, self.width, compressed or {}, widths)
        for feature in schema.encoded_features:
            name = feature.name
            initial_rows: Any = self._initial_rows
            initial_quotients: Any = self._initial_quotients
            if feature in schema.event_features:
                initial_rows = functools.partial(self._seeded_rows, name, _BOUND, 0.0)
                initial_quotients = functools.partial(
                    self._seeded_rows, f"{name}_quotient", _QUOTIENT_BOUND, 1.0
                )
            if not feature.is_categorical:
                if feature.is_vector:
                    self._add_projection(name, feature.shape[0])
                    continue
                self.vectors[name] = self.add_weight(
                    name=f"{name}_embedding", shape=(1, self.width), initializer=initial_rows
                )
                continue
            table, *quotients = shapes[name]
            for shape in quotients:
                self.quotients[name] = self._add_table(f"{name}_quotient", shape, initial_quotients)
            self.tables[name] = self._add_table(
                f"{name}_embedding", table, initial_rows, name not in self.fixed
            )
            if name in widths:
                self._add_projection(name, widths[name])
                self.scales[name] = self.add_weight(
                    name=f"{name}_scale", shape=(), initializer="ones", trainable=False
                )
        for feature in schema.event_features if embedding_size else ():
            self.event_projections[feature.name] = self.add_weight(
                name=f"{feature.name}_projection/kernel",
                shape=(embedding_size, len(schema.history_features) * embedding_size),
                initializer="zeros",
            )
        self.dims = Dims(
            user_fields=len(schema.user_features),
            history_features=len(schema.history_features),
            extra_fields=len(schema.extra_features),
            embedding_size=embedding_size,
            max_length=schema.history.max_length,
            num_items=cardinalities[schema.item_key.name],
        )

    def table_weights(self, names: Iterable[str] | None = None) -> list[tf.Variable]:
        """The tables of some features that training changes, as single variables.

        Args:
            names: Names of features, categorical or not; None for all.
        """
        chosen = [
            name
            for name in (self.tables if names is None else names)
            if name in self.tables and name not in self.fixed
        ]
        tables = [self.tables[name] for name in chosen]
        tables += [self.quotients[name] for name in chosen if name in self.quotients]
        return single_variables(tables)

    def dense_weights(self, names: Iterable[str]) -> list[tf.Variable]:
        """The weights of some features that are no tables: vectors of numbers, projections."""
        of_features = (self.vectors, self.projections)
        return [weights[name] for name in names for weights in of_features if name in weights]

    def placed(self) -> contextlib.AbstractContextManager[Any]:
        """A context manager that creates tensors and variables on the device of the tables."""
        return tf.device(self._device) if self._device else contextlib.nullcontext()

    def user_side(
        self, features: Features, *, seed: tf.Tensor | None = None, items_only: bool = False
    ) -> UserSide:
        """Embeds the user features and the history, which all candidates of a request share.

        Args:
            features: Encoded features as `preprocessing.dataset.parse` returns them.
            seed: Seed int32 [2] of the out-of-vocabulary replacements of a training step; None
                for no replacements. `key_B` and `items_BL` hold the original ids either way.
            items_only: Whether to leave out what events have and candidates lack.
        """
        key = self._schema.item_key.name
        items_BL = features[history_key(key)]
        mask_BL = items_BL != PAD_ID
        fields_BFd, linear_BF = self._stack(self._schema.user_features, features, str, seed)
        history_BLJd, linear_BLJ = self._stack(
            self._schema.history_features, features, history_key, seed
        )
        linear_BJ = masked_mean(linear_BLJ, mask_BL)
        with_events = bool(self._schema.event_features) and not items_only
        if with_events:
            events_BLJd, event_linear_BLV = self._events(features, seed)
            history_BLJd += events_BLJd
        side = UserSide(
            fields_BFd=fields_BFd,
            history_BLJd=tf.where(mask_BL[..., None, None], history_BLJd, 0.0),
            mask_BL=mask_BL,
            key_B=features[self._schema.user_key.name],
            items_BL=items_BL,
            linear_B=tf.reduce_sum(linear_BF, -1) + tf.reduce_sum(linear_BJ, -1),
            history_ids=tuple(
                # The first id of a set is that of its most frequent value.
                None
                if f.is_vector
                else features[history_key(f.name)]
                if f.many is None
                else features[history_key(f.name)][..., 0]
                for f in self._schema.history_features
            ),
        )
        if with_events:
            linear_BV = masked_mean(event_linear_BLV, mask_BL)
            side = side._replace(linear_B=side.linear_B + tf.reduce_sum(linear_BV, -1))
        return side

    def candidates(self, features: Features, *, seed: tf.Tensor | None = None) -> Candidates:
        """Embeds the candidates of each request; see `user_side`."""
        key_BN = features[candidate_key(self._schema.item_key.name)]
        targets, extra = self._schema.history_features, self._schema.extra_features
        fields, linear = self._stack((*targets, *extra), features, candidate_key, seed)
        target_BNJd, extra_BNEd = tf.split(fields, [len(targets), len(extra)], axis=2)
        return Candidates(
            target_BNJd=target_BNJd,
            extra_BNEd=extra_BNEd,
            mask_BN=key_BN != PAD_ID,
            key_BN=key_BN,
            linear_BN=tf.reduce_sum(linear, -1),
        )

    def _events(self, features: Features, seed: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """What event features add to the fields of each event [B, L, J, d]; linear weights."""
        event_features = self._schema.event_features
        vectors_BLVd, linear_BLV = self._stack(event_features, features, history_key, seed)
        size, fields = self.dims.embedding_size, self.dims.history_features
        kernels = [
            self.event_projections[f.name]
            for f in event_features
            if f.name in self.event_projections
        ]
        shape = tf.shape(vectors_BLVd)
        flat = tf.reshape(vectors_BLVd, [shape[0] * shape[1], len(event_features) * size])
        added = tf.matmul(flat, tf.concat(kernels, axis=0)) if kernels else flat
        return tf.reshape(added, [shape[0], shape[1], fields, size]), linear_BLV

    def _stack(
        self,
        chosen: tuple[Feature, ...],
        features: Features,
        key: Callable[[str], str],
        seed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Embeddings [..., chosen, d] and float32 linear weights [..., chosen] of the features."""
        rows = []
        for feature in chosen:
            values = features[key(feature.name)]
            if seed is not None and self._oov_rate and isinstance(feature.encoder, Vocabulary):
                place = randomness.for_place(seed, f"oov/{key(feature.name)}")
                values = self._hide(feature, values, feature.encoder.oov_buckets, place)
            rows.append(self._embed(feature, values))
        stacked = tf.stack(rows, axis=-2)
        if not self._linear_weights:
            weights = tf.zeros(tf.shape(stacked)[:-1])
            return stacked, weights
        vectors, weights = tf.split(stacked, [self.dims.embedding_size, 1], axis=-1)
        return vectors, tf.squeeze(weights, -1)

    def _hide(self, feature: Feature, ids: tf.Tensor, buckets: int, seed: tf.Tensor) -> tf.Tensor:
        """Replaces `oov_rate` of the known values by out-of-vocabulary ids 1..buckets."""
        row_seed = randomness.of_rows(seed)
        if feature.many is None:
            draws = randomness.uniform_rows(row_seed, tf.shape(ids))
        else:
            # The first value of a set has the draws of a feature of one value.
            first, others = ids[..., :1], ids[..., 1:]
            other_seed = randomness.for_place(row_seed, "others")
            draws = tf.concat(
                [
                    randomness.uniform_rows(row_seed, tf.shape(first)),
                    randomness.uniform_rows(other_seed, tf.shape(others)),
                ],
                axis=-1,
            )
        hidden = (draws < self._oov_rate) & (ids > buckets)
        # Draws below the rate are uniform in [0, rate).
        unknown = 1 + tf.cast(draws * (buckets / self._oov_rate), ids.dtype)
        return tf.where(hidden, tf.minimum(unknown, buckets), ids)

    def _add_table(
        self,
        name: str,
        shape: tuple[int, int],
        initializer: Callable[..., tf.Tensor],
        trainable: bool = True,
    ) -> tf.Variable:
        with self.placed():
            return self.add_weight(
                name=name, shape=shape, initializer=initializer, trainable=trainable
            )

    def _add_projection(self, name: str, width: int) -> None:
        """A projection that gives vectors of norm 1 the initial distribution of plain rows."""
        self.projections[name] = self.add_weight(
            name=f"{name}_projection", shape=(width, self.width), initializer=self._initial_rows
        )

    def _initial_rows(
        self,
        shape: tf.TensorShape,
        dtype: tf.DType,
        partition_shape: tuple[int, int] | None = None,
        partition_offset: tuple[int, int] | None = None,
    ) -> tf.Tensor:
        """Small random embeddings; linear weights of 0, so that unseen values have no effect.

        Args:
            shape: Shape of the whole table.
            dtype: Type of the table.
            partition_shape: Shape of the shard to initialise, if the table is sharded over
                parameter servers.
            partition_offset: Offset of the shard; unused, as rows are random.
        """
        del partition_offset
        return self._random_rows(partition_shape or shape, dtype, _BOUND, 0.0)

    def _seeded_rows(
        self,
        place: str,
        bound: float,
        linear_weight: float,
        shape: tf.TensorShape,
        dtype: tf.DType,
        partition_shape: tuple[int, int] | None = None,
        partition_offset: tuple[int, int] | None = None,
    ) -> tf.Tensor:
        """Initial rows of a table, drawn without moving the random stream of other weights."""
        seed = tf.constant([self._seed, (partition_offset or (0, 0))[0]])
        seed = randomness.for_place(seed, f"initial/{place}")
        rows, width = partition_shape or shape
        linear = int(self._linear_weights)
        with self.placed():
            drawn = randomness.uniform(seed, [rows, width - linear], -bound, bound)
            rows = tf.pad(drawn, [[0, 0], [0, linear]], constant_values=linear_weight)
            return tf.cast(rows, dtype)

    def _initial_quotients(
        self, shape: tf.TensorShape, dtype: tf.DType, **partition: Any
    ) -> tf.Tensor:
        """Random embeddings of mean 0 and variance 1; linear weights of 1.

        Products with remainder rows then have the initial distribution of plain rows: the same
        variance, and linear weights of 0.
        """
        rows = partition.get("partition_shape") or shape
        return self._random_rows(rows, dtype, _QUOTIENT_BOUND, 1.0)

    def _random_rows(
        self, shape: tf.TensorShape, dtype: tf.DType, bound: float, linear_weight: float
    ) -> tf.Tensor:
        rows, width = shape
        vectors = keras.initializers.RandomUniform(-bound, bound)
        linear = int(self._linear_weights)
        with self.placed():
            drawn = vectors((rows, width - linear), dtype)
            if not linear:
                return drawn
            return tf.pad(drawn, [[0, 0], [0, linear]], constant_values=linear_weight)

    def _embed(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        name = feature.name
        if feature.is_vector:
            return tf.tensordot(values, self.projections[name], 1)
        if not feature.is_categorical:
            return tf.cast(values, tf.float32)[..., None] * self.vectors[name][0]
        if feature.many is None:
            return self._rows(name, values)
        return combine(values, feature.many.combiner, functools.partial(self._rows, name))

    def _rows(self, name: str, ids: tf.Tensor) -> tf.Tensor:
        """The vectors [..., width] of ids [...] of a categorical feature."""
        if name in self.projections:
            rows = self._looked_up(self.tables[name], ids)
            return tf.tensordot(rows * self.scales[name], self.projections[name], 1)
        if name not in self.quotients:
            return self._looked_up(self.tables[name], ids)
        rows = self.tables[name].shape[0]
        remainder = self._looked_up(self.tables[name], ids % rows)
        return remainder * self._looked_up(self.quotients[name], ids // rows)

    def _looked_up(self, table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
        """The rows [..., width] of a table for ids [...]."""
        look_up = spread_rows.looked_up if self.spreads else tf.nn.embedding_lookup
        return look_up(table, ids)


def single_variables(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """The variables; one that is sharded over parameter servers is replaced by its shards."""
    sharded = tf.__internal__.distribute.ShardedVariable
    return [
        shard
        for variable in variables
        for shard in (variable.variables if isinstance(variable, sharded) else [variable])
    ]
