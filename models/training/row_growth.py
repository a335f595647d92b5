"""Which row of an earlier table each id of a feature has now."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from models.training.warm_start import matching_ids
from preprocessing.encoders.fitted import FittedEncoder, VocabularyEncoder


class Growth(NamedTuple):
    """The rows of a feature's table in terms of those of an earlier one.

    Attributes:
        sources: For each id now, the id whose row it takes over, int64 [rows].
        is_new: Whether the value of the id was unknown before, bool [rows].
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
