"""Optimisers by name for dense weights and tables, and one learning rate for all of them."""

from collections.abc import Sequence
from typing import Any

from models.keras import keras, tf
from models.ops.optimizers import LazyAdam
from preprocessing.errors import UserError


def resolved(optimizer: Any) -> keras.optimizers.Optimizer:
    """An optimiser from what `compile` takes: an optimiser, its name or its configuration.

    Raises:
        UserError: It is no optimiser of Keras 2, or there is no such name.

    Example:
        >>> type(resolved("adagrad")).__name__
        'Adagrad'
    """
    if isinstance(optimizer, (str, dict)):
        try:
            optimizer = keras.optimizers.get(optimizer)
        except ValueError as error:
            raise UserError(
                f"Expected the name of an optimiser of Keras, found {optimizer!r}.",
                "write for example compile('adam').",
            ) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
        raise UserError(
            f"Expected an optimiser of Keras 2, found {kind}.",
            "import keras from models.keras, and take keras.optimizers.Adam() or a name.",
        )
    return optimizer


def for_tables(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """An optimiser of the same rule and settings for embedding tables.

    Adam becomes `LazyAdam`, which leaves rows alone that a step does not touch; what it lacks
    (AMSGrad, weight decay) keeps Adam. Other rules stay what they are.

    Example:
        >>> type(for_tables(keras.optimizers.Adam(0.01))).__name__
        'LazyAdam'
    """
    # XLA would recompile for every number of rows that a batch touches.
    config = optimizer.get_config() | {"jit_compile": False}
    del config["name"]
    is_plain_adam = type(optimizer) is keras.optimizers.Adam
    if is_plain_adam and not config["amsgrad"] and not config["weight_decay"]:
        return LazyAdam.from_config(config)
    return type(optimizer).from_config(config)


def copy_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A new optimiser of the same class and settings, with moments of its own."""
    return type(optimizer).from_config(optimizer.get_config())


def slots_by_weight(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[tf.Variable]
) -> list[list[tf.Variable]]:
    """The slots of an optimiser by weight; Keras keeps them in this order behind its counter."""
    slots = optimizer.variables[1:]
    count = len(slots) // max(1, len(weights))
    return [slots[place * count : (place + 1) * count] for place in range(len(weights))]


class SharedRate:
    """Lets learning rates follow one of them in the ratio that they have at first.

    Callbacks of Keras change the rate of `model.optimizer` alone. Rates that follow a schedule are
    left to it.

    Args:
        leader: Optimiser whose rate is followed.
        others: Optimisers that follow.
    """

    def __init__(
        self, leader: keras.optimizers.Optimizer, others: Sequence[keras.optimizers.Optimizer]
    ) -> None:
        self._rate = leader._learning_rate
        self._seen: Any = None
        self._followers: list[tuple[tf.Variable, float]] = []
        if _is_constant(leader) and (rate := float(self._rate.numpy())):
            rates = [other._learning_rate for other in others if _is_constant(other)]
            self._followers = [(follower, float(follower.numpy()) / rate) for follower in rates]
            self._first = rate

    def follow(self) -> None:
        """Passes a changed rate on; called in replica context, ahead of a step."""
        if self._followers:
            if self._seen is None:
                with tf.init_scope():
                    self._seen = tf.Variable(self._first, trainable=False, name="shared_rate")
            tf.distribute.get_replica_context().merge_call(self._follow)

    def _follow(self, strategy: tf.distribute.Strategy) -> None:
        del strategy
        rate = tf.identity(self._rate)
        changed = tf.not_equal(rate, tf.identity(self._seen))
        for follower, ratio in self._followers:
            follower.assign(tf.where(changed, rate * ratio, tf.identity(follower)))
        self._seen.assign(rate)


def _is_constant(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer._learning_rate, tf.Variable)
