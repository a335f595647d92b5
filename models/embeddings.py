"""Embedding tables, and the lookup that turns encoded features into model inputs.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, E further item features, d embedding width per field.
"""

from collections.abc import Callable, Mapping
from typing import Any

from models import randomness, replicas
from models.interfaces import Candidates, Dims, UserSide
from models.keras import keras, tf
from models.layers.masking import masked_mean
from preprocessing.encoder_specs import Vocabulary
from preprocessing.schema import PAD_ID, Feature, Schema, candidate_key, history_key

Features = Mapping[str, tf.Tensor]


class FeatureEmbedder(keras.layers.Layer):
    """One table per categorical feature, one vector per number.

    Candidates and history share the tables of their features: that is what lets self-supervision
    on histories train the rows that candidates read (MISS, section III).

    A vocabulary is made of the training data, so that no training request would ever hold an
    out-of-vocabulary id, and its row would stay as random as it began. Training therefore hides a
    few known values behind such ids.

    Args:
        schema: Describes the features.
        cardinalities: Rows of each categorical feature's table, padding included.
        embedding_size: d.
        linear_weights: Give each value a scalar weight too. It is one more column of its table, so
            that one lookup and one sparse update serve both, and starts at 0.
        oov_rate: Share of the known values that training hides.
    """

    def __init__(
        self,
        schema: Schema,
        cardinalities: Mapping[str, int],
        embedding_size: int,
        linear_weights: bool = False,
        oov_rate: float = 0.0,
        name: str = "embedder",
    ) -> None:
        super().__init__(name=name)
        self._schema = schema
        self._linear_weights = linear_weights
        self._oov_rate = oov_rate
        self._extra = tuple(
            feature
            for feature in schema.item_features
            if feature.name not in schema.history.features
        )
        self.tables: dict[str, tf.Variable] = {}
        self.vectors: dict[str, tf.Variable] = {}
        for feature in schema.encoded_features:
            store = self.tables if feature.is_categorical else self.vectors
            rows = cardinalities[feature.name] if feature.is_categorical else 1
            store[feature.name] = self.add_weight(
                name=f"{feature.name}_embedding",
                shape=(rows, embedding_size + linear_weights),
                initializer=self._initial_rows,
            )
        self.dims = Dims(
            user_fields=len(schema.user_features),
            history_features=len(schema.history_features),
            extra_fields=len(self._extra),
            embedding_size=embedding_size,
            max_length=schema.history.max_length,
            num_items=cardinalities[schema.item_key.name],
        )

    def user_side(self, features: Features, *, seed: tf.Tensor | None = None) -> UserSide:
        """Embeds what the candidates of a request share.

        Args:
            features: Encoded features as `preprocessing.dataset.parse` returns them.
            seed: int32 [2], of the values that a training step hides; None hides none. Keys are
                those of the features all the same.
        """
        key = self._schema.item_key.name
        items_BL = features[history_key(key)]
        mask_BL = items_BL != PAD_ID
        fields_BFd, linear_BF = self._stack(self._schema.user_features, features, str, seed)
        history_BLJd, linear_BLJ = self._stack(
            self._schema.history_features, features, history_key, seed
        )
        linear_BJ = masked_mean(linear_BLJ, mask_BL)
        return UserSide(
            fields_BFd=fields_BFd,
            history_BLJd=history_BLJd * tf.cast(mask_BL, history_BLJd.dtype)[..., None, None],
            mask_BL=mask_BL,
            key_B=features[self._schema.user_key.name],
            items_BL=items_BL,
            linear_B=tf.reduce_sum(linear_BF, -1) + tf.reduce_sum(linear_BJ, -1),
            history_ids=tuple(
                features[history_key(feature.name)] for feature in self._schema.history_features
            ),
        )

    def candidates(self, features: Features, *, seed: tf.Tensor | None = None) -> Candidates:
        """Embeds the candidates of each request; see `user_side`."""
        key_BN = features[candidate_key(self._schema.item_key.name)]
        targets = self._schema.history_features
        fields, linear = self._stack((*targets, *self._extra), features, candidate_key, seed)
        target_BNJd, extra_BNEd = tf.split(fields, [len(targets), len(self._extra)], axis=2)
        return Candidates(
            target_BNJd=target_BNJd,
            extra_BNEd=extra_BNEd,
            mask_BN=key_BN != PAD_ID,
            key_BN=key_BN,
            linear_BN=tf.reduce_sum(linear, -1),
        )

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
                values = self._hide(values, feature.encoder.oov_buckets, place)
            rows.append(self._embed(feature, values))
        stacked = tf.stack(rows, axis=-2)
        if not self._linear_weights:
            weights = tf.zeros(tf.shape(stacked)[:-1])
            return stacked, weights
        vectors, weights = tf.split(stacked, [self.dims.embedding_size, 1], axis=-1)
        return vectors, tf.squeeze(weights, -1)

    def _hide(self, ids: tf.Tensor, buckets: int, seed: tf.Tensor) -> tf.Tensor:
        """Replaces `oov_rate` of the known values by out-of-vocabulary ids 1..buckets."""
        # The rows of a replica are not those of another, and neither are its draws.
        seed = tf.random.experimental.stateless_fold_in(seed, replicas.index())
        draws = randomness.uniform(seed, tf.shape(ids))
        hidden = (draws < self._oov_rate) & (ids > buckets)
        # A draw below the rate is uniform below it.
        unknown = 1 + tf.cast(draws * (buckets / self._oov_rate), ids.dtype)
        return tf.where(hidden, tf.minimum(unknown, buckets), ids)

    def _initial_rows(self, shape: tf.TensorShape, dtype: tf.DType, **kwargs: Any) -> tf.Tensor:
        """Small random embeddings; linear weights of 0, as an unseen value has no say."""
        rows, width = shape
        vectors = keras.initializers.RandomUniform(-0.05, 0.05)
        linear = int(self._linear_weights)
        return tf.pad(vectors((rows, width - linear), dtype, **kwargs), [[0, 0], [0, linear]])

    def _embed(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        if feature.is_categorical:
            return tf.nn.embedding_lookup(self.tables[feature.name], values)
        return tf.cast(values, tf.float32)[..., None] * self.vectors[feature.name][0]
