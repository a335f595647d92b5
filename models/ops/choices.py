"""What some settings of a run can be, and the schedules of self-supervision.

Flags and configurations read them before TensorFlow is loaded, so nothing is imported here.
"""

from collections.abc import Mapping
from typing import Any

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "parameter_server")
SHARDINGS = ("batches", "files")
NATIVE_OPS = ("auto", "off")
EMBEDDING_OPTIMIZERS = ("lazy_adam", "adagrad", "adam")
"""The keys of `models.ops.optimizers.TABLE_OPTIMIZERS`."""
CALIBRATIONS = ("platt", "isotonic", "prior")

MANY_LABELS = 2.0
"""Training requests per user from which on labels are not scarce; see the schedules."""

SSL_SCHEDULE: Mapping[str, Any] = {
    "ssl_steps": 4.0,
    "ssl_learning_rate": 3e-3,
    "embedding_learning_rate": 1e-4,
    "patience": 3.0,
}
"""Defaults of the section "train" with a self-supervised loss where labels are scarce.

The main loss memorises a small log within two or three passes, while a contrastive loss keeps
learning for forty. So the contrastive loss takes several steps for each step of the main loss, with
a separate learning rate, and the main loss changes the tables slowly, so that it does not undo what
they have learned."""

SSL_SCHEDULE_OF_MANY_LABELS: Mapping[str, Any] = {
    "ssl_steps": 1.0,
    "ssl_learning_rate": 3e-4,
    "embedding_learning_rate": 1e-3,
    "patience": 3.0,
}
"""Defaults of the section "train" from `MANY_LABELS` training requests per user on.

There the main loss learns the tables by itself, and `SSL_SCHEDULE` would hold it back."""
