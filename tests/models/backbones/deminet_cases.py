"""Small DemiNets with weights of a trained size, and batches for them."""

from typing import Any

import numpy as np

from models import registry
from models.backbone_api import Candidates, Dims, UserSide
from models.backbones.deminet import DemiNet, DemiNetConfig
from models.keras import keras, tf
from tests.reference import embedded

DIMS = Dims(user_fields=1, history_features=2, extra_fields=1, embedding_size=4, max_length=9)
SMALL: dict[str, Any] = {
    "embedding_size": 4,
    "interests": 3,
    "heads": 2,
    "threshold": 0.3,
    "window": 2,
    "expert_units": (6, 5),
    "confidence_units": (5, 4),
}
LENGTHS = [7, 9, 2, 1, 0]
SEED = tf.constant([3, 4])


def embedded_batch(
    lengths: list[int] = LENGTHS, candidates: int = 3
) -> tuple[UserSide, Candidates]:
    """Embedded requests whose histories repeat items; some candidates are padding."""
    user, candidates_ = embedded.batch(
        DIMS, lengths, candidates, valid_candidates=[candidates, *[2] * (len(lengths) - 1)]
    )
    random = np.random.default_rng(1)
    items = random.normal(size=(5, 2, 4))
    history = items[random.integers(0, 5, user.mask_BL.shape)]
    history *= user.mask_BL.numpy()[..., None, None]
    return user._replace(history_BLJd=tf.constant(history, tf.float32)), candidates_


def trained_size(seed: int = 0, dims: Dims = DIMS, **settings: Any) -> DemiNet:
    """A model with weights of a trained size everywhere, moving averages included."""
    keras.utils.set_random_seed(seed)
    model = DemiNet(DemiNetConfig(**(SMALL | settings)), dims)
    user, candidates = embedded.batch(dims, [2, 3], 2)
    model.score(model.encode_user(user), candidates)
    random = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign_add(random.normal(scale=0.3, size=weight.shape))
    normalize = model.experts.normalize
    normalize.moving_mean.assign(random.normal(size=normalize.moving_mean.shape))
    normalize.moving_variance.assign(random.uniform(0.5, 2, normalize.moving_mean.shape))
    return model


def logits_of(model: DemiNet, user: UserSide, candidates: Candidates, **kwargs: Any) -> np.ndarray:
    state = model.encode_user(user, **kwargs)
    return model.score(state, candidates, training=kwargs.get("training", False)).numpy()


def consistency(model: DemiNet, user: UserSide, candidates: Candidates) -> tf.Tensor:
    """Eq. 18 summed over interests, per valid candidate."""
    state = model.encode_user(user, training=True, seed=SEED)
    term = model.auxiliary_losses(state, candidates, seed=SEED)["interest_consistency"]
    assert term.weight == model.config.ssl_weight
    return tf.boolean_mask(term.values_Pn[0], term.weights_Pn[0] > 0)


def recipe(name: str) -> dict[str, Any]:
    return registry.MODELS[name].settings


RECIPES = [name for name in registry.MODELS if name.startswith("deminet")]
SWITCHES: dict[str, dict[str, Any]] = {
    **{name: recipe(name) for name in RECIPES},
    "slices": {"head_mode": "slice"},
    "deep": {"depth": 3, "heads": 4, "window": 3},
    "bare_attention": {"attention_normalise": False},
    "one_interest": {"interests": 1},
    "sixteen_interests": {"interests": 16},
    "attention_units": {"attention_units": 5},
}
