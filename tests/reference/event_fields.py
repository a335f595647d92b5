"""What features of events add to the fields of an event, in float64.

Shapes: L history length, J fields of an item, V features of events, d width of an embedding.
"""

import numpy as np


def added_fields(vectors_LVd: np.ndarray, projections_VdD: np.ndarray, fields: int) -> np.ndarray:
    """The sum over features of their vectors times their projections, [L, J, d]."""
    added_LD = np.zeros((len(vectors_LVd), projections_VdD.shape[2]))
    for step, vectors_Vd in enumerate(vectors_LVd):
        for vector_d, projection_dD in zip(vectors_Vd, projections_VdD, strict=True):
            added_LD[step] += vector_d.astype(np.float64) @ projection_dD.astype(np.float64)
    return added_LD.reshape(len(vectors_LVd), fields, -1)
