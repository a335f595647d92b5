"""The data contract: schema, encoders, sequences, splits, negatives, example codec, reader."""

import os

# Level 3 hides the "unable to register factory" lines that TensorFlow 2.17 prints on every start.
# It has an effect only before the first import of TensorFlow, so the lowest package sets it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
