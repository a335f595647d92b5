"""Embedding tables, and the lookup that turns encoded features into model inputs.

Shapes: B requests, N candidates, L history length, F user and context fields, J item features of
the history, E further item features, d embedding width per field.
"""

from collections.abc import Callable, Mapping

from models.interfaces import Candidates, Dims, UserSide
from models.keras import keras, tf
from preprocessing.schema import PAD_ID, Feature, Schema, candidate_key, history_key

Features = Mapping[str, tf.Tensor]


class FeatureEmbedder(keras.layers.Layer):
    """One table per categorical feature, one vector per number.

    Candidates and history share the tables of their features: that is what lets self-supervision
    on histories train the rows that candidates read (MISS, section III).

    Args:
        schema: Describes the features.
        cardinalities: Rows of each categorical feature's table, padding included.
        embedding_size: d.
    """

    def __init__(
        self,
        schema: Schema,
        cardinalities: Mapping[str, int],
        embedding_size: int,
        name: str = "embedder",
    ) -> None:
        super().__init__(name=name)
        self._schema = schema
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
                shape=(rows, embedding_size),
                initializer=keras.initializers.RandomUniform(-0.05, 0.05),
            )
        self.dims = Dims(
            user_fields=len(schema.user_features),
            history_features=len(schema.history_features),
            extra_fields=len(self._extra),
            embedding_size=embedding_size,
            max_length=schema.history.max_length,
        )

    def user_side(self, features: Features) -> UserSide:
        """Embeds what the candidates of a request share.

        Args:
            features: Encoded features as `preprocessing.dataset.parse` returns them.
        """
        key = self._schema.item_key.name
        mask_BL = features[history_key(key)] != PAD_ID
        history_BLJd = self._stack(self._schema.history_features, features, history_key)
        return UserSide(
            fields_BFd=self._stack(self._schema.user_features, features, str),
            history_BLJd=history_BLJd * tf.cast(mask_BL, history_BLJd.dtype)[..., None, None],
            mask_BL=mask_BL,
            key_B=features[self._schema.user_key.name],
        )

    def candidates(self, features: Features) -> Candidates:
        """Embeds the candidates of each request."""
        key = self._schema.item_key.name
        target_BNJd = self._stack(self._schema.history_features, features, candidate_key)
        extra_BNEd = (
            self._stack(self._extra, features, candidate_key)
            if self._extra
            else target_BNJd[:, :, :0]
        )
        return Candidates(target_BNJd, extra_BNEd, features[candidate_key(key)] != PAD_ID)

    def _stack(
        self, chosen: tuple[Feature, ...], features: Features, key: Callable[[str], str]
    ) -> tf.Tensor:
        """Embeddings of the chosen features side by side: [..., number of features, d]."""
        embedded = [self._embed(feature, features[key(feature.name)]) for feature in chosen]
        return tf.stack(embedded, axis=-2)

    def _embed(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        if feature.is_categorical:
            return tf.nn.embedding_lookup(self.tables[feature.name], values)
        return tf.cast(values, tf.float32)[..., None] * self.vectors[feature.name][0]
