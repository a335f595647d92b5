"""The protocol buffers of TensorFlow and TensorFlow Serving.

They load TensorFlow, so they are imported here, after models.keras has set what it goes by.
"""

import models.keras  # noqa: F401

# isort: split
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2

__all__ = ["get_model_metadata_pb2", "prediction_log_pb2", "saved_model_pb2", "types_pb2"]
