"""DIN of DeepCTR: python deepctr_din.py SAMPLES.npz USERS ITEMS CATEGORIES.

Runs in the environment of `deepctr.txt`. Legacy Keras, because its sparse gradients are faster.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import protocol
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepctr.models import DIN

_WIDTH, _BATCH_SIZE = 16, 256


def main(path: str, users: int, items: int, categories: int) -> None:
    """Trains on all samples at each turn."""
    with np.load(path) as file:
        samples = dict(file)
    labels = samples.pop("label")
    length = samples["hist_item_id"].shape[1]
    samples["length"] = np.full(len(labels), length)
    sizes = {"user_id": users, "item_id": items, "category_id": categories}
    columns = [SparseFeat(name, 1 + size, _WIDTH) for name, size in sizes.items()]
    behaviours = ["item_id", "category_id"]
    columns += [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", 1 + sizes[name], _WIDTH, embedding_name=name),
            maxlen=length,
            length_name="length",
        )
        for name in behaviours
    ]
    model = DIN(columns, behaviours, dnn_hidden_units=(200, 80), att_hidden_size=(80, 40))
    model.compile("adam", "binary_crossentropy")

    def train() -> None:
        model.fit(samples, labels, batch_size=_BATCH_SIZE, verbose=0)

    protocol.serve(train)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
