"""Interest extractors of MISS: convolution, and the alternatives that the paper compares.

Shapes: B requests, L history length, J item features of the history, d embedding width per field,
D = J d, M horizontal filters, S slots of view pairs, V = 2 views of a slot.
"""

import math

import numpy as np

from models.backbone_api import Dims, UserSide
from models.keras import keras, tf
from models.layers.masking import masked_softmax


class Extractor(keras.layers.Layer):
    """Computes interests at drawn positions of a history.

    Args:
        dims: Static sizes.
        widths: Number M of filters; filter m of 0..M-1 spans m + 1 events.
    """

    def __init__(self, dims: Dims, widths: int, name: str) -> None:
        super().__init__(name=name)
        self.widths = widths
        self._fields = dims.history_features
        self._width = dims.item_width

    def interests(self, user: UserSide, events: tf.Tensor, filters_S: np.ndarray) -> tf.Tensor:
        """The interests at drawn positions.

        Args:
            user: The user side.
            events: First event of each drawn interest, [S, V, B]; for `SampleViews`, mask of the
                drawn events, boolean [S, V, B, L].
            filters_S: Index of the filter of each slot, below M.

        Returns:
            Interests [S, V, B, J, d].
        """
        raise NotImplementedError(f"{type(self).__name__} must implement interests")

    def _gather(self, map_BLD: tf.Tensor, starts_SVB: tf.Tensor) -> tf.Tensor:
        """Entries of a map with one interest per event, [S, V, B, J, d]."""
        shape = tf.shape(map_BLD)
        places_SVB = tf.range(shape[0]) * shape[1] + tf.minimum(starts_SVB, shape[1] - 1)
        gathered_SVBD = tf.gather(tf.reshape(map_BLD, [-1, self._width]), places_SVB)
        fields = [self._fields, self._width // self._fields]
        return tf.reshape(gathered_SVBD, tf.concat([tf.shape(starts_SVB), fields], 0))


class Convolution(Extractor):
    """Convolution of adjacent events with a filter of few scalars (MISS, eqs. 19-20).

    Filter m has m weights g, shared by all features and channels, and no bias; the interest at l is
    relu(sum_{i < m} g[i] C[:, l + i, :]). Only the drawn windows are computed, so the cost hardly
    depends on the length of the history.
    """

    def __init__(self, dims: Dims, widths: int, name: str = "convolution") -> None:
        super().__init__(dims, widths, name)
        self._of_horizontal = triangle(widths)
        self.horizontal = self.add_weight(
            name="horizontal", shape=(len(self._of_horizontal),), initializer=averages
        )

    def interests(self, user: UserSide, events: tf.Tensor, filters_S: np.ndarray) -> tf.Tensor:
        """The windows that start at the given events. See the base class."""
        history_BLJd = user.history_BLJd
        shape = tf.shape(history_BLJd)
        batch, length = shape[0], shape[1]
        weights_MM = tf.tensordot(self.horizontal, self._of_horizontal, 1)
        weights_SM = tf.gather(tf.cast(weights_MM, history_BLJd.dtype), filters_S)
        # Shorter filters have weight 0 for events past their end.
        events_SMVB = events[:, None] + tf.range(self.widths)[:, None, None]
        places_SMVB = tf.range(batch) * length + tf.minimum(events_SMVB, length - 1)
        windows_SMVBJd = tf.gather(
            tf.reshape(history_BLJd, tf.concat([[-1], shape[2:]], 0)), places_SMVB
        )
        # As a matrix product: its gradients need no sums over broadcast axes.
        slots = len(filters_S)
        windows_SMX = tf.reshape(windows_SMVBJd, [slots, self.widths, -1])
        merged_SX = tf.matmul(weights_SM[:, None], windows_SMX)
        return tf.nn.relu(tf.reshape(merged_SX, tf.concat([tf.shape(events), shape[2:]], 0)))


class SelfAttention(Extractor):
    """One head of scaled dot-product attention over the history (MISS, table VII).

    Queries, keys and values have the width of an item; there are no position embeddings and no
    causal mask.
    """

    def __init__(self, dims: Dims, name: str = "self_attention") -> None:
        super().__init__(dims, 1, name)
        self.query = keras.layers.Dense(self._width, use_bias=False, name="query")
        self.key = keras.layers.Dense(self._width, use_bias=False, name="key")
        self.value = keras.layers.Dense(self._width, use_bias=False, name="value")

    def interests(self, user: UserSide, events: tf.Tensor, filters_S: np.ndarray) -> tf.Tensor:
        """Attention outputs at the given events. See the base class."""
        del filters_S
        history_BLD = user.history_BLD
        scores_BLL = tf.matmul(self.query(history_BLD), self.key(history_BLD), transpose_b=True)
        weights_BLL = masked_softmax(scores_BLL / math.sqrt(self._width), user.mask_BL[:, None])
        return self._gather(tf.matmul(weights_BLL, self.value(history_BLD)), events)


class LongShortTermMemory(Extractor):
    """Hidden states of an LSTM of the width of an item (MISS, table VII).

    Padding follows the events, so it does not affect the states at events.
    """

    def __init__(self, dims: Dims, name: str = "lstm") -> None:
        super().__init__(dims, 1, name)
        self.lstm = keras.layers.LSTM(self._width, return_sequences=True, name="lstm")

    def interests(self, user: UserSide, events: tf.Tensor, filters_S: np.ndarray) -> tf.Tensor:
        """The states after the given events. See the base class."""
        del filters_S
        return self._gather(self.lstm(user.history_BLD), events)


class SampleViews(Extractor):
    """The mean of the kept events: views of the whole history instead of interests (MISS/M)."""

    def __init__(self, dims: Dims, name: str = "sample_views") -> None:
        super().__init__(dims, 1, name)

    def interests(self, user: UserSide, events: tf.Tensor, filters_S: np.ndarray) -> tf.Tensor:
        """Means of kept events, 0 if none is kept. See the base class."""
        del filters_S
        history_BLJd = user.history_BLJd
        kept_SVBL = tf.cast(events & user.mask_BL, history_BLJd.dtype)
        total = tf.einsum("svbl,bljd->svbjd", kept_SVBL, history_BLJd)
        count_SVB = tf.maximum(tf.reduce_sum(kept_SVBL, -1), 1.0)
        return total / count_SVB[..., None, None]


EXTRACTORS = ("cnn", "sa", "lstm", "sample")
"""Names of the extractors on the command line, in the order of the classes above."""


def build(name: str, dims: Dims, widths: int) -> Extractor:
    """Builds the extractor with a name of `EXTRACTORS`; only the convolution uses `widths`."""
    if name == "cnn":
        return Convolution(dims, widths)
    return {"sa": SelfAttention, "lstm": LongShortTermMemory, "sample": SampleViews}[name](dims)


def triangle(size: int) -> np.ndarray:
    """Placement of the concatenated weights of filters of 1..size scalars into zero-padded rows.

    Returns:
        Array float32 [size (size + 1) / 2, size, size]; contract its first axis with the weights.
    """
    rows, columns = np.tril_indices(size)
    placement = np.zeros((len(rows), size, size), np.float32)
    placement[np.arange(len(rows)), rows, columns] = 1.0
    return placement


def averages(shape: tf.TensorShape, dtype: tf.DType | None = None) -> tf.Tensor:
    """Initialises filters of 1, 2, ... scalars, concatenated in the last axis, to averages.

    A filter of few scalars before a ReLU gets no gradient if they are negative at the start, so the
    initial values are not random.
    """
    size = int(np.sqrt(2 * shape[-1]))
    rows, _ = np.tril_indices(size)
    return tf.broadcast_to(tf.constant(1.0 / (rows + 1), dtype), shape)
