"""Description of a model from its run: method, size, intended use, input; also for its export."""

import inspect
from typing import NamedTuple

from models import registry
from models.core import run_directory
from models.keras import tf
from preprocessing.features.feature import Feature

_WEIGHT = "/.ATTRIBUTES/VARIABLE_VALUE"


class Weights(NamedTuple):
    """Numbers of trained weights: in embedding tables, and others."""

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
        if name.endswith(_WEIGHT) and not name.startswith(("save_counter", "spread_tables"))
    }
    tables = sum(count for name, count in counts.items() if name.startswith("embedder/"))
    return Weights(tables, sum(counts.values()) - tables)


def description(run: run_directory.Run) -> list[tuple[str, str]]:
    """Rows (name, text) of a model's description, without metrics."""
    config, schema = run.config, run.data.schema
    model_class = registry.load_model_class(config.model_name)[0]
    rows = [("Model", _about(model_class))]
    if config.ssl_name != registry.NO_SSL:
        rows.append(("Self-supervision", _about(registry.load_ssl_class(config.ssl_name)[0])))
    if (counts := weights(run)) is not None:
        rows.append(
            (
                "Size",
                f"{counts.tables + counts.others:,} weights, of which {counts.tables:,} in "
                f"embedding tables; embeddings of {config.model.embedding_size} numbers.",
            )
        )
    history = _names(schema.step_features)
    users = _names(schema.user_features) or "the user"
    rows += [
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
    return rows


def _about(described_class: type) -> str:
    """The title of the class's module, then the summary line of the class."""
    module = inspect.getmodule(described_class)
    title = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    summary = (inspect.getdoc(described_class) or "").partition("\n")[0]
    return f"{title} {summary}".strip()


def _names(features: tuple[Feature, ...]) -> str:
    return ", ".join(feature.name for feature in features)
