"""Scores of the trained model itself, which those of an exported model are compared with."""

import numpy as np

from models.core.base import CTRModel
from models.evaluation.calibration import Calibration
from models.keras import tf
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from preprocessing.schema import Schema


class OfflineScorer:
    """Scores as evaluation does, but with every history padded to the schema's full length.

    Args:
        model: A trained model.
        schema: Schema of the model's data set.
        calibration: Calibration of the export that the scores are compared with; None if it has
            none.
    """

    def __init__(
        self, model: CTRModel, schema: Schema, calibration: Calibration | None = None
    ) -> None:
        self._schema = schema
        self._item_key = candidate_key(schema.item_key.name)
        self._calibration = calibration
        self._logits = tf.function(lambda features: model(features), autograph=False)

    def __call__(self, features: dict[str, tf.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Masks of the real candidates and their probabilities, [B, N] bool and float32.

        Args:
            features: Encoded features, as `preprocessing.dataset.parse` returns them.
        """
        mask_BN = features[self._item_key].numpy() != PAD_ID
        logits_BN = self._logits(_padded(self._schema, features))
        if self._calibration is None:
            scores_BN = tf.sigmoid(logits_BN).numpy()
        else:
            scores_BN = self._calibration.probabilities(logits_BN.numpy()).astype(np.float32)
        return mask_BN, np.where(mask_BN, scores_BN, 0.0)


def difference(found_BN: np.ndarray, expected_BN: np.ndarray) -> float:
    """The largest difference of scores; infinite if one of them is NaN."""
    largest = np.abs(found_BN - expected_BN).max(initial=0.0)
    # NaN must not count as a small difference: it compares false with every number.
    return float(np.nan_to_num(largest, nan=np.inf))


def _padded(schema: Schema, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The features with histories padded to the full length; served ones get the least padding."""
    padded = dict(features)
    for feature in schema.step_features:
        history_BL = features[history_key(feature.name)]
        missing = schema.history.max_length - tf.shape(history_BL)[1]
        more_axes = [[0, 0]] * feature.axes
        padded[history_key(feature.name)] = tf.pad(history_BL, [[0, 0], [0, missing], *more_axes])
    return padded
