"""The one place that gives TensorFlow the object stores that it lacks by default.

TensorFlow reads gs:// by itself, and s3:// through tensorflow-io, whose operations load with the
default requirements only.
"""

import ctypes
import os

import tensorflow as tf

from preprocessing.errors import UserError
from preprocessing.storage.files import AnyPath
from preprocessing.storage.remote_path import RemotePath


def enable(path: AnyPath) -> None:
    """Makes TensorFlow able to read files below a path.

    Args:
        path: Path above the files; nothing happens unless it is on an object store.

    Raises:
        UserError: tensorflow-io is missing, or was built for another TensorFlow.
    """
    if not isinstance(path, RemotePath):
        return
    if path.scheme == "s3":
        # TensorFlow's client has its own names for the standard variables.
        if "AWS_ENDPOINT_URL" in os.environ:
            os.environ["S3_ENDPOINT"] = os.environ["AWS_ENDPOINT_URL"]
        os.environ.setdefault("AWS_REGION", path.region or "us-east-1")
    if path.scheme not in tf.io.gfile.get_registered_schemes():
        _load_tensorflow_io(path)


def _load_tensorflow_io(path: RemotePath) -> None:
    problem = "its file systems were built for another TensorFlow"
    try:
        import tensorflow_io  # noqa: F401  (registers its file systems)
    except (ImportError, NotImplementedError) as error:
        problem = str(error)
    if path.scheme not in tf.io.gfile.get_registered_schemes():
        raise UserError(
            f"Expected tensorflow-io to read {path} with TensorFlow {tf.__version__}, found: "
            f"{problem}.",
            "use the default lane (requirements.lock), or copy the data set to this machine.",
        )
    # When the process exits, static objects of its S3 client are destroyed in an order that makes
    # it abort (status 134) after all work is done. This handler runs after Python has shut down and
    # before they are destroyed: it ends the process with the status that it has.
    libc = ctypes.CDLL(None)
    libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)
