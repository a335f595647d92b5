"""What every test shares: builders and reference implementations on the path, quiet TensorFlow."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
_TESTS = pathlib.Path(__file__).parent
sys.path[:0] = [str(_TESTS), str(_TESTS / "serving")]  # the latter for toy_runs
