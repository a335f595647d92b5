"""Items that training requests do not hold, and how well this bit alone separates the labels.

An item is unknown if its id is out of vocabulary: the vocabulary holds the items of training
histories and training positives. An encoder without a vocabulary knows every item.

Shapes: C candidates.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from preprocessing.encoders.fitted import FittedEncoder

TELLING = 0.05
"""Distance from 0.5 beyond which the AUC of the bit is reported: the score of all unknown items
alone then moves the AUC of a model by more than 0.1."""


def first_known(encoder: FittedEncoder) -> int:
    """The lowest id that stands for a value of the training data; 0 is padding."""
    return 1 + encoder.num_oov


def are_unknown(encoder: FittedEncoder, ids: np.ndarray) -> np.ndarray:
    """Whether each id of an item is out of vocabulary, bool in the shape of the ids."""
    return (ids > 0) & (ids < first_known(encoder))


class UnknownItems(NamedTuple):
    """Numbers of candidates of a split by label and by whether the item is unknown.

    Attributes:
        positives: Candidates with label 1.
        negatives: Candidates with label 0.
        unknown_positives: Candidates with label 1 whose item is unknown.
        unknown_negatives: Candidates with label 0 whose item is unknown.
    """

    positives: int
    negatives: int
    unknown_positives: int
    unknown_negatives: int

    @classmethod
    def of(cls, is_unknown_C: np.ndarray, label_C: np.ndarray) -> "UnknownItems":
        """Counts candidates.

        Args:
            is_unknown_C: Whether the item of each candidate is unknown.
            label_C: Label of each candidate, 0 or 1.
        """
        is_positive_C = label_C > 0
        positives, num_unknown = int(is_positive_C.sum()), int(is_unknown_C.sum())
        unknown_positives = int((is_unknown_C & is_positive_C).sum())
        return cls(
            positives, len(label_C) - positives, unknown_positives, num_unknown - unknown_positives
        )

    @classmethod
    def of_split(cls, stats: Mapping[str, object]) -> "UnknownItems | None":
        """The counts of a split in stats.json; None if an earlier version did not count them.

        Args:
            stats: Statistics of the split.
        """
        counts = stats.get("unknown_items")
        return cls(**counts) if isinstance(counts, Mapping) else None

    @property
    def positive_share(self) -> float:
        """Share of unknown items among the positives."""
        return self.unknown_positives / max(1, self.positives)

    @property
    def negative_share(self) -> float:
        """Share of unknown items among the negatives."""
        return self.unknown_negatives / max(1, self.negatives)

    @property
    def auc(self) -> float | None:
        """AUC over all candidates with "is unknown" as the score; None without both labels.

        A pair of a positive and a negative is in order if only the positive is unknown, and counts
        half if both or neither is, so that the AUC follows from the difference of the shares. Below
        0.5 unknown items are clicked less than others.
        """
        if not self.positives or not self.negatives:
            return None
        return 0.5 + (self.positive_share - self.negative_share) / 2
