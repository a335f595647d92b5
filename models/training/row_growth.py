"""Which row of an earlier table each id of a feature has now."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from models.core.embeddings import Features
from models.keras import tf
from models.training.warm_start import matching_ids
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder
from preprocessing.encoders.vector_encoder import VectorEncoder
from preprocessing.example_keys import candidate_key, history_key


class Growth(NamedTuple):
    """The rows of a feature's table in terms of those of an earlier one.

    Attributes:
        sources: For each id now, the id whose row it takes over, int64 [rows].
        is_new: Whether the value of the id was unknown before, or expired, bool [rows].
        gone: Number of earlier rows that nothing takes over.
    """

    sources: np.ndarray
    is_new: np.ndarray
    gone: int

    @classmethod
    def between(cls, before: FittedEncoder, after: FittedEncoder) -> "Growth":
        """The growth of a table from the encoder of its feature then to that of now.

        Args:
            before: Encoder with ids.
            after: Encoder of the same feature.
        """
        sources = matching_ids(before, after)
        is_new = sources < 0
        if is_new.any():
            assert isinstance(after, VocabularyEncoder)  # Other ids do not depend on the data.
            ranks = np.flatnonzero(is_new) - 1 - after.num_oov
            sources[is_new] = before.encode(after.vocabulary.take(pa.array(ranks)))
        gone = before.cardinality - len(np.unique(sources[~is_new]))
        return cls(sources, is_new, gone)

    @property
    def moves(self) -> bool:
        """Whether any row is new, gone or elsewhere."""
        return bool(self.gone or self.is_new.any() or (np.diff(self.sources) != 1).any())


def translation(
    there: Mapping[str, FittedEncoder], here: Mapping[str, FittedEncoder]
) -> Callable[[Features], dict[str, tf.Tensor]]:
    """A function that gives requests of one data set the ids that their values have in another.

    Values that the other one does not know get the ids of their out-of-vocabulary buckets.

    Args:
        there: Encoders of the data set that the requests are from.
        here: Encoders of the other data set, of the same features.

    Returns:
        A function from a batch of encoded features to such a batch.
    """
    ids = {
        name: tf.constant(Growth.between(here[name], encoder).sources)
        for name, encoder in there.items()
        if encoder.cardinality
    }
    # Vectors are divided by the norm of their data set.
    ratios = {
        name: np.float32(encoder.norm / now.norm)
        for name, encoder in there.items()
        if isinstance(encoder, VectorEncoder) and isinstance(now := here[name], VectorEncoder)
    }

    @tf.autograph.experimental.do_not_convert
    def translate(features: Features) -> dict[str, tf.Tensor]:
        translated = dict(features)
        for name, id_of_id in ids.items():
            for key in (name, candidate_key(name), history_key(name)):
                if key in features:
                    translated[key] = tf.gather(id_of_id, features[key])
        for name, ratio in ratios.items():
            for key in (name, candidate_key(name), history_key(name)):
                if key in features:
                    translated[key] = features[key] * ratio
        return translated

    return translate
