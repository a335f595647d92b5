"""A calibration in the graph: `models.evaluation.calibration` in TensorFlow operations."""

from models.evaluation.calibration import HIGHEST, LOWEST, Calibration
from models.keras import tf


def probabilities(calibration: Calibration, logits: tf.Tensor) -> tf.Tensor:
    """Calibrated probabilities, above 0 and below 1, float32 of the shape of the logits.

    The steps in between are float64, so that the rounding to float32 is the only one that can make
    two scores equal, and none can reverse them.

    Args:
        calibration: The map.
        logits: Logits of the model.
    """
    constants = [tf.constant(values_S, tf.float64) for values_S in calibration.segments]
    flat_C = tf.reshape(tf.cast(logits, tf.float64), [-1])
    segment_C = tf.searchsorted(tf.constant(calibration.logit_K, tf.float64), flat_C, side="right")
    logit_C, value_C, slope_C, end_C = (tf.gather(values_S, segment_C) for values_S in constants)
    raised_C = tf.minimum(value_C + slope_C * (flat_C - logit_C), end_C)
    calibrated_C = tf.sigmoid(tf.clip_by_value(raised_C, LOWEST, HIGHEST))
    return tf.reshape(tf.cast(calibrated_C, tf.float32), tf.shape(logits))
