"""What a model is, what it is for and what it needs, from its run; shared with its export."""

import inspect
from typing import NamedTuple

from models import registry
from models.core import run_directory
from models.keras import tf
from preprocessing.schema import Feature

_WEIGHT = "/.ATTRIBUTES/VARIABLE_VALUE"


class Weights(NamedTuple):
    """Numbers of trained weights."""

    tables: int
    others: int


def weights(run: run_directory.Run) -> Weights | None:
    """Counts the best weights of a run; None if it has none."""
    checkpoint = tf.train.latest_checkpoint(str(run.path / run_directory.BEST))
    if checkpoint is None:
        return None
    counts = {
        name: tf.TensorShape(shape).num_elements()
        for name, shape in tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map().items()
        if name.endswith(_WEIGHT) and not name.startswith("save_counter")
    }
    tables = sum(count for name, count in counts.items() if name.startswith("embedder/"))
    return Weights(tables, sum(counts.values()) - tables)


def description(run: run_directory.Run) -> list[tuple[str, str]]:
    """Name and text of what can be said of a model without measuring it."""
    config, schema = run.config, run.data.schema
    model_class = registry.load_model(config.model_name)[0]
    found = [("Model", _about(model_class))]
    if config.ssl_name != registry.NO_SSL:
        found.append(("Self-supervision", _about(registry.load_ssl(config.ssl_name)[0])))
    if (counted := weights(run)) is not None:
        found.append(
            (
                "Size",
                f"{counted.tables + counted.others:,} weights, of which {counted.tables:,} in "
                f"embedding tables; embeddings of {config.model.embedding_size} numbers.",
            )
        )
    history = _names(schema.history_features)
    users = _names(schema.user_features) or "the user"
    found += [
        (
            "Intended use",
            "Ranks the candidates of a request by the probability of a click, given at most the "
            f"{schema.history.max_length} most recent events of the user ({history}).",
        ),
        (
            "Input",
            f"Of the user and the request: {users}. Of each candidate: "
            f"{_names(schema.item_features)}. Values that training never saw share the embedding "
            "of unknown values.",
        ),
        ("Output", "A probability for each candidate, in the order of the candidates."),
    ]
    return found


def _about(described: type) -> str:
    """The title of its module, then the first sentence about the class."""
    module = inspect.getmodule(described)
    title = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    summary = (inspect.getdoc(described) or "").partition("\n")[0]
    return f"{title} {summary}".strip()


def _names(features: tuple[Feature, ...]) -> str:
    return ", ".join(feature.name for feature in features)
