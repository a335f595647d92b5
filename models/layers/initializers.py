"""Initial values of weights that hold several networks."""

import math

from models.keras import keras


def glorot_uniform(fan_in: int, fan_out: int) -> keras.initializers.Initializer:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010), for any shape.

    Keras' initializer derives the fans from the shape of the weight, which is wrong for K stacked
    kernels (K would count towards the fans) and for a kernel that is stored in two parts.
    """
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return keras.initializers.RandomUniform(-limit, limit)
