"""The data contract: schema, encoders, sequences, splits, negatives, example codec, reader."""

import os

# Level 3 hides the "unable to register factory" lines that TensorFlow 2.17 prints on every start.
# It counts only if it is set before anything imports TensorFlow, so the lowest room sets it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
