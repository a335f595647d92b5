"""Remote file systems: the one module that imports tensorflow-io, and only when a path needs it."""

import importlib
import warnings

from preprocessing.errors import UserError

_REMOTE = ("s3", "az", "hdfs", "http", "https")


def register(path: str) -> None:
    """Makes TensorFlow's file system know the scheme of a path.

    Local paths, and schemes that TensorFlow knows by itself (gs://), need nothing.

    Args:
        path: Local path or URL.

    Raises:
        UserError: The scheme needs tensorflow-io, which is missing or whose C++ libraries do not
            load under the installed TensorFlow.
    """
    scheme, separator, _ = path.partition("://")
    if not separator or scheme not in _REMOTE:
        return
    reason = "its file system plugins do not load under this TensorFlow"
    try:
        with warnings.catch_warnings():  # it warns, at length, where we raise in one line
            warnings.simplefilter("ignore")
            importlib.import_module("tensorflow_io")
    except (ImportError, NotImplementedError, AttributeError, OSError) as error:
        reason = str(error)
    import tensorflow as tf  # late: most commands never see a remote path

    if scheme not in tf.io.gfile.get_registered_schemes():
        raise UserError(
            f"Expected tensorflow-io to open {path}, found: {reason}.",
            "install the default lane (requirements.lock), or copy the files to a local directory.",
        )
