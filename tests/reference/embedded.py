"""Random embedded requests for tests of models and self-supervision."""

import numpy as np

from models.backbone_api import Candidates, Dims, UserSide
from models.keras import tf


def batch(dims: Dims, lengths, candidates=3, *, length=None, seed=0, valid_candidates=None):
    """A user side and candidates; histories of the given lengths, right-padded with zeros.

    `valid_candidates` gives the number of real candidates of each request (default: all).
    """
    rng = np.random.default_rng(seed)
    size, length = len(lengths), length or dims.max_length
    width = dims.embedding_size
    mask_BL = np.arange(length) < np.array(lengths)[:, None]
    history = rng.normal(size=(size, length, dims.history_features, width))
    real = np.full(size, candidates) if valid_candidates is None else np.array(valid_candidates)

    def tensor(values):
        return tf.constant(values, tf.float32)

    others = np.random.default_rng([seed, 1])
    items_BL = others.integers(1, max(dims.num_items, 2), mask_BL.shape) * mask_BL
    user = UserSide(
        fields_BFd=tensor(rng.normal(size=(size, dims.user_fields, width))),
        history_BLJd=tensor(history * mask_BL[..., None, None]),
        mask_BL=tf.constant(mask_BL),
        key_B=tf.range(1, size + 1, dtype=tf.int64),
        items_BL=tf.constant(items_BL),
        linear_B=tensor(others.normal(size=size)),
    )
    return user, Candidates(
        target_BNJd=tensor(rng.normal(size=(size, candidates, dims.history_features, width))),
        extra_BNEd=tensor(rng.normal(size=(size, candidates, dims.extra_fields, width))),
        mask_BN=tf.constant(np.arange(candidates) < real[:, None]),
        linear_BN=tensor(others.normal(size=(size, candidates))),
        key_BN=tf.constant(rng.integers(2, 2 + size * candidates, (size, candidates))),
    )


def pad(user: UserSide, steps: int, garbage: float = 0.0) -> UserSide:
    """The same requests with `steps` more steps of padding; models may rely on zeros there."""
    return user._replace(
        history_BLJd=tf.pad(
            user.history_BLJd, [[0, 0], [0, steps], [0, 0], [0, 0]], constant_values=garbage
        ),
        mask_BL=tf.pad(user.mask_BL, [[0, 0], [0, steps]]),
        items_BL=tf.pad(user.items_BL, [[0, 0], [0, steps]]),
    )


def randomize(layer, seed=0, scale=0.5):
    """Gives every weight of a built layer random values, so that none is at a special point.

    Moving variances stay positive.
    """
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        values = rng.normal(size=weight.shape) * scale
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.name else values)
