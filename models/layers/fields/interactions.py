"""Products of feature embeddings: FM, IPNN, DCN and xDeepFM.

DCN-M (Wang et al., 2021), x' = x0 * (W x + b) + x, is `tfrs.layers.dcn.Cross`.

Shapes: any leading axes (...), F fields, d embedding width per field, H rows of a feature map,
C width of the concatenated fields.
"""

from collections.abc import Sequence

import numpy as np

from models.keras import keras, tf
from models.ops.weight_layouts import Layout, Layouts, hidden, products


def fm_second_order(fields_Fd: tf.Tensor) -> tf.Tensor:
    """Sum of the inner products of all pairs of fields (FM: Rendle, 2010, lemma 3.1).

    sum_{i<j} <e_i, e_j> = 1/2 sum_k ((sum_i e_ik)^2 - sum_i e_ik^2), in O(F d).

    Args:
        fields_Fd: Fields [..., F, d].

    Returns:
        Sums [...].

    Example:
        >>> fields_Fd = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> float(fm_second_order(fields_Fd))  # 11 + 17 + 39
        67.0
    """
    square_of_sum = tf.square(tf.reduce_sum(fields_Fd, -2))
    sum_of_squares = tf.reduce_sum(tf.square(fields_Fd), -2)
    return 0.5 * tf.reduce_sum(square_of_sum - sum_of_squares, -1)


def pairwise_inner_products(fields_Fd: tf.Tensor) -> tf.Tensor:
    """Inner products <e_i, e_j> of all pairs i < j in row-major order (IPNN: Qu et al., 2016).

    Args:
        fields_Fd: Fields [..., F, d].

    Returns:
        Products [..., F (F - 1) / 2].

    Example:
        >>> fields_Fd = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> pairwise_inner_products(fields_Fd).numpy()
        array([11., 17., 39.], dtype=float32)
    """
    count = fields_Fd.shape[-2]
    first, second = np.triu_indices(count, 1)
    products_FF = tf.matmul(fields_Fd, fields_Fd, transpose_b=True)
    flat = tf.reshape(products_FF, tf.concat([tf.shape(products_FF)[:-2], [count * count]], 0))
    return tf.gather(flat, first * count + second, axis=-1)


class VectorCross(keras.layers.Layer):
    """A cross layer of DCN (Wang et al., 2017, eq. 3): x' = x0 (w . x) + b + x.

    Example:
        >>> x0_BC = tf.ones([2, 8])
        >>> VectorCross()(x0_BC, x0_BC).shape
        TensorShape([2, 8])
    """

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the weights w [C, 1] and b [C]."""
        width = shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(width, 1))
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")

    def call(self, x0_C: tf.Tensor, x_C: tf.Tensor) -> tf.Tensor:
        """Crosses the previous layer's output `x_C` [..., C] with the input `x0_C` [..., C]."""
        return x0_C * tf.tensordot(x_C, self.kernel, 1) + self.bias + x_C


class CompressedInteraction(keras.layers.Layer):
    """The compressed interaction network of xDeepFM (Lian et al., 2018, eqs. 6-7).

    Row h of feature map k is X^k_h = sum_{i,j} W^{k,h}_{ij} X^{k-1}_i * X^0_j, with X^0 the fields
    and * elementwise; rows are summed over d into the output. Half of the rows of each map but the
    last go to the output and half to the next map, as in the authors' code.

    Args:
        units: Number of rows of each map; even for all maps but the last.

    Example:
        >>> CompressedInteraction(units=(40, 30))(tf.ones([2, 5, 4])).shape  # 40 / 2 + 30
        TensorShape([2, 50])
    """

    def __init__(
        self, units: Sequence[int] = (40, 40), name: str = "compressed_interaction"
    ) -> None:
        super().__init__(name=name)
        self.maps = [
            keras.layers.Dense(rows, use_bias=False, name=f"map_{k}")
            for k, rows in enumerate(units, 1)
        ]

    def layouts(self, fields: Layout) -> Layouts:
        """Layouts of the weights, for fields laid out as `fields`."""
        rows = fields
        for layer in self.maps:
            yield layer.kernel, (products(rows, fields), None)
            rows = hidden(1, groups=layer.units // 2)  # The half that is passed to the next map.

    def call(self, fields_Fd: tf.Tensor) -> tf.Tensor:
        """Maps fields [..., F, d] to [..., units[0] / 2 + ... + units[-1]]."""
        fields_dF = tf.linalg.matrix_transpose(fields_Fd)
        map_dH = fields_dF
        outputs = []
        for k, layer in enumerate(self.maps, 1):
            # One outer product per embedding dimension; the sum over (i, j) is a dense layer.
            products = map_dH[..., :, None] * fields_dF[..., None, :]
            pairs = map_dH.shape[-1] * fields_dF.shape[-1]
            map_dH = layer(tf.reshape(products, tf.concat([tf.shape(map_dH)[:-1], [pairs]], 0)))
            if k < len(self.maps):
                out_dH, map_dH = tf.split(map_dH, 2, axis=-1)
            else:
                out_dH = map_dH
            outputs.append(tf.reduce_sum(out_dH, -2))
        return tf.concat(outputs, -1)
