"""The embedded server: the interfaces of TensorFlow Serving without TensorFlow Serving."""
