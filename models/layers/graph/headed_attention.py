"""The heads that both graph attentions of DemiNet share.

Shapes: D item width, H heads, C = D / H head width.
"""

from models.keras import keras, tf
from models.ops.weight_layouts import Layout, Layouts, hidden


class HeadedAttention(keras.layers.Layer):
    """Base of a layer of graph attention with H heads, which the layer concatenates at the end.

    The layer computes in float32 under any policy: its cost is elementwise, and softmax numerators
    have a larger range than half precision.

    Args:
        width: Item width D.
        heads: Number H of heads, a divisor of D.
        project: Whether heads are slices of a learned projection of the nodes, shared by the
            relations, or of the nodes themselves.
        slope: Slope of LeakyReLU for negative inputs.

    Example:
        >>> HeadedAttention(width=8, heads=2).head_width
        4
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        project: bool = True,
        slope: float = 0.2,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.slope = slope
        self._has_projection = project

    def build(self, shape: tf.TensorShape) -> None:
        """Creates the projection; a subclass adds the weights of the attention."""
        del shape
        self.projection_DD = (
            self.add_weight("projection_kernel", [self.width, self.width])
            if self._has_projection
            else None
        )

    def writes(self, reads: Layout) -> Layout:
        """Layout of the output for nodes laid out as `reads`."""
        return hidden(self.head_width, self.heads) if self._has_projection else reads

    def layouts(self, reads: Layout) -> Layouts:
        """Layouts of the weights, for nodes laid out as `reads`."""
        if self._has_projection:
            yield self.projection_DD, (reads, self.writes(reads))

    def head_axes(self, reads: Layout) -> tuple[Layout | None, Layout | None]:
        """Layouts of the axes H and C of a weight, for nodes laid out as `reads`."""
        if self._has_projection:
            return None, hidden(self.head_width)
        return reads.equal_slices(self.heads), None
