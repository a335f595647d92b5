"""DIN of FuxiCTR's layers: python fuxictr_din.py SAMPLES.npz USERS ITEMS CATEGORIES.

Runs in the environment of `fuxictr.txt`. The package brings layers, loaders and training along, and
its models stand beside it in the repository: this one puts the same layers together.
"""

import collections
import sys
import tempfile

import protocol
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.layers import DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel

_WIDTH, _BATCH_SIZE, _LENGTH = 16, 256, 50
_TARGET = ("item_id", "category_id")
_HISTORY = ("hist_item_id", "hist_category_id")


class DIN(BaseModel):
    """Embeddings, attention over the history, and a network that scores."""

    def __init__(self, features: FeatureMap, directory: str) -> None:
        super().__init__(features, gpu=-1, verbose=0, model_root=directory, metrics=["AUC"])
        self.embedding_layer = FeatureEmbeddingDict(features, _WIDTH)
        self.attention = DIN_Attention(
            _WIDTH * len(_TARGET), attention_units=[80, 40], hidden_activations="Dice"
        )
        self.dnn = MLP_Block(
            input_dim=_WIDTH * len(features.features),
            output_dim=1,
            hidden_units=[200, 80],
            hidden_activations="ReLU",
            output_activation=self.output_activation,
        )
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()
        self.model_to_device()
        self.train()
        self._max_gradient_norm = 10.0  # what `fit` sets

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Probability of a click for each sample."""
        ids = self.get_inputs(inputs)
        embedded = self.embedding_layer(ids)
        target = torch.cat([embedded[name] for name in _TARGET], -1)
        history = torch.cat([embedded[name] for name in _HISTORY], -1)
        pooled = self.attention(target, history, ids[_HISTORY[0]].long() != 0)
        inputs_of_network = torch.cat([embedded["user_id"], target, pooled], -1)
        return {"y_pred": self.dnn(inputs_of_network)}


def feature_map(users: int, items: int, categories: int, directory: str) -> FeatureMap:
    """Describes the columns of the samples."""
    features = FeatureMap("samples", directory)
    sizes = {"user_id": users, "item_id": items, "category_id": categories}
    specs = {
        name: {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": 1 + size}
        for name, size in sizes.items()
    }
    for history, target in zip(_HISTORY, _TARGET, strict=True):
        specs[history] = specs[target] | {
            "type": "sequence",
            "max_len": _LENGTH,
            "share_embedding": target,
        }
    features.features = collections.OrderedDict(specs)
    features.labels = ["label"]
    features.default_emb_dim = _WIDTH
    features.num_fields = len(specs)
    features.set_column_index()
    return features


def main(path: str, users: int, items: int, categories: int) -> None:
    """Trains on all samples at each turn."""
    with tempfile.TemporaryDirectory() as directory:
        features = feature_map(users, items, categories, directory)
        model = DIN(features, directory)
        loader = NpzDataLoader(features, path, batch_size=_BATCH_SIZE, num_workers=0)

        def train() -> None:
            for batch in loader:
                model.train_step(batch).item()

        protocol.serve(train)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
