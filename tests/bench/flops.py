"""What DemiNet has to compute for one request, in floating point operations.

A multiplication and an addition are two. Only products of matrices and of pairs of nodes count:
what remains is elementwise and small beside them, in arithmetic if not in time.
"""

from typing import NamedTuple

from models.backbone_api import Dims
from models.backbones.deminet import DemiNetConfig

_SCORES = 7  # of a node and head: two halves of three relations (eq. 6), and W_d . h (eq. 9)


class Flops(NamedTuple):
    """Operations of one forward pass.

    Attributes:
        graph: Of the similarities and of all layers on one view of the graph.
        history: Of the history's half of the interest attention, on one view.
        attention: Of the rest of the interest attention, on one view and candidate.
        experts: Of experts and Confi-Net, for one candidate.
    """

    graph: float
    history: float
    attention: float
    experts: float

    def forward(self, candidates: int) -> float:
        """Scoring the candidates of a request."""
        return self.graph + self.history + candidates * (self.attention + self.experts)

    def training_step(self, candidates: int, views: int) -> float:
        """A step on a request: the backward pass costs two forward passes.

        Args:
            candidates: Of the request.
            views: 3 with the self-supervised loss, the complete graph included, else 1.
        """
        shared = self.graph + self.history + candidates * self.attention
        return 3.0 * (views * shared + candidates * self.experts)


def deminet(config: DemiNetConfig, dims: Dims, length: int) -> Flops:
    """Counts the operations of DemiNet for a history of `length` events."""
    width, heads, interests = dims.item_width, config.heads, config.interests
    units = config.attention_units or width
    context = 2 * width + (dims.user_fields + dims.extra_fields) * dims.embedding_size
    pairs = length * length
    layer = (
        2 * length * width * (width + _SCORES * heads)  # projection and scores
        + 2 * pairs * (width + 2 * heads)  # messages of similar nodes, W_d . h and denominators
        + 3 * pairs * heads  # their weights: two products and a maximum
        + 2 * (2 * config.window + 1) * length * width  # messages of the window and of the node
    )
    expert_widths = [interests * width + context, *config.expert_units, 1]
    confidence_widths = [width + context, *config.confidence_units, width]
    return Flops(
        graph=2 * pairs * width + config.depth * layer,
        history=2 * length * width * interests * units,
        attention=2 * interests * (width * units + length * units + length * width),
        experts=interests * (_dense(expert_widths) + _dense(confidence_widths)),
    )


def _dense(widths: list[int]) -> float:
    return float(sum(2 * n * m for n, m in zip(widths[:-1], widths[1:], strict=True)))
