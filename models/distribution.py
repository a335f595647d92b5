"""Chooses the tf.distribute strategy."""

from models.keras import tf
from preprocessing.errors import UserError


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of `--distribute`.

    Args:
        name: `auto` (mirrored if there are several GPUs), `one_device` or `mirrored`.

    Raises:
        UserError: Unknown name.
    """
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    if name in ("auto", "mirrored"):
        # The default collectives abort between logical CPUs; this reduction works on any device.
        reduction = None if gpus else tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy([d.name for d in devices], reduction)
    raise UserError(
        f"Expected --distribute to be one of auto, one_device, mirrored, found {name!r}."
    )
