"""How much memory a training needs, before any of it is taken.

Tables and what their optimiser remembers follow from the configuration. What a batch takes is
bounded from its size; only if that might matter, a model with tables of a few rows is built and its
step is traced, which takes a few seconds and gives the numbers of any model, of one's own too.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from models import registry
from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.core.embeddings import Features, table_shapes
from models.core.factory import build_sized, compile_model, compressed_features
from models.distributed.distribution import Distribution
from models.keras import tf
from models.ops.optimizers import TABLE_SLOTS
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.schema import LABEL, Schema, candidate_key, history_key

_VIEWS = (
    *("Identity", "IdentityN", "StopGradient", "Reshape", "ExpandDims", "Squeeze"),
    *("ReadVariableOp", "VarHandleOp", "Const", "Placeholder"),
)
"""Operations whose result shares the memory of what they read."""

_FLOAT = 4
_FEW_ROWS = 64
_WORTH_TRACING = 4
"""A bound below one in so many parts of the free memory needs no closer look."""

_ITEM_VECTORS, _EVENT_PAIRS = 200, 400
"""For each event of a history, no model here computes more vectors of an item's width, times two
and the number of candidates, and more numbers for each other event."""

_GIB = 1 << 30
_CGROUP = pathlib.Path("/sys/fs/cgroup")


class Estimate(NamedTuple):
    """Bytes that a training needs beside Python and TensorFlow themselves.

    Attributes:
        tables: Embedding tables; those of backbones only if `traced`.
        slots: What optimisers remember of them.
        dense: Other weights with all that belongs to them; 0 unless `traced`.
        activations: What the forward pass over the batch of a replica computes, with histories of
            full length; the backward pass needs most of it. An upper bound unless `traced`.
        copies: Replicas on this machine, each of which has all that for itself.
        traced: Whether a step was traced.
    """

    tables: int
    slots: int
    dense: int
    activations: int
    copies: int = 1
    traced: bool = False

    @property
    def total(self) -> int:
        """Of all copies."""
        return self.copies * (self.tables + self.slots + self.dense + self.activations)

    def __str__(self) -> str:
        parts = f"tables {_size(self.tables)} + their optimiser {_size(self.slots)}"
        if self.traced:
            parts += f" + other weights {_size(self.dense)}"
        bound = "" if self.traced else "up to "
        copies = f" on each of {self.copies} replicas" if self.copies > 1 else ""
        return (
            f"memory: {bound}{_size(self.total)} = {parts} + activations of a batch "
            f"{bound}{_size(self.activations)}{copies}"
        )


def estimate(config: RunConfig, data: DataDir, distribution: Distribution) -> Estimate:
    """The memory of a training.

    Args:
        config: Of the run.
        data: Gives the sizes of tables and of requests.
        distribution: Gives the number of replicas.
    """
    sizes = _table_sizes(config, data)
    rows, candidates = _batch(config, data, distribution)
    length = data.schema.history.max_length
    width = len(data.schema.history_features) * max(config.model.embedding_size, 1)
    numbers = _ITEM_VECTORS * (candidates + 2) * width + _EVENT_PAIRS * length
    processes = len(distribution.cluster.peers) + 1 if distribution.cluster else 1
    bound = Estimate(
        sum(sizes.values()),
        _slots(config, data, sizes, sum(sizes.values())),
        0,
        _FLOAT * rows * length * numbers,
        max(1, distribution.replicas // processes),
    )
    if bound.total < available() // _WORTH_TRACING:
        return bound
    return _traced(config, data, rows, candidates, sizes)._replace(copies=bound.copies)


def _batch(config: RunConfig, data: DataDir, distribution: Distribution) -> tuple[int, int]:
    """Requests of a replica, and candidates of each."""
    split = data.manifest["splits"]["train"]
    candidates = -(-split["candidates"] // max(split["requests"], 1))
    return -(-config.train.batch_size // distribution.replicas), candidates


def _table_sizes(config: RunConfig, data: DataDir) -> dict[str, int]:
    """Bytes of the tables of each categorical feature."""
    width = config.model.embedding_size + registry.load_model(config.model_name)[0].linear_weights
    features = [feature for feature in data.schema.encoded_features if feature.is_categorical]
    shapes = table_shapes(
        {feature.name: data.encoders[feature.name].cardinality for feature in features},
        width,
        compressed_features(config.model, data.schema),
    )
    return {name: sum(_FLOAT * n * m for n, m in pairs) for name, pairs in shapes.items()}


def _traced(
    config: RunConfig, data: DataDir, rows: int, candidates: int, sizes: Mapping[str, int]
) -> Estimate:
    """The memory of a training from its step."""
    cardinalities = {name: encoder.cardinality for name, encoder in data.encoders.items()}
    few = {name: min(_FEW_ROWS, count) for name, count in cardinalities.items()}
    model = build_sized(config, data.schema, few, config.train.precision)
    compile_model(model, config)
    model.build_optimizers()
    requests = _requests(data.schema, rows, candidates)
    activations = max(
        _activations(model, requests, ssl) for ssl in {False, config.train.has_ssl_steps}
    )

    key = data.schema.item_key.name
    # Tables of backbones have a row per item.
    of_backbone = _bytes(model.backbone.tables) * cardinalities[key] // few[key]
    tables = sum(sizes.values()) + of_backbone
    small = [*model.embedder.table_weights(), *model.backbone.tables]
    dense = {weight.ref() for weight in model.weights} - {table.ref() for table in small}
    dense_bytes = _bytes([ref.deref() for ref in dense]) + _bytes(model.optimizer.variables)
    if model.ssl_optimizer is not None:
        dense_bytes += _bytes(model.ssl_optimizer.variables)
    slots = _slots(config, data, sizes, tables)
    return Estimate(tables, slots, dense_bytes, activations, traced=True)


def _activations(model: CTRModel, requests: Features, ssl: bool) -> int:
    """Bytes that the forward pass of a step computes.

    Args:
        model: Compiled.
        requests: Specifications of a batch.
        ssl: Whether it is a step of the self-supervised loss alone.
    """
    step = tf.function(lambda features: model.next_terms(features, ssl), autograph=False)
    graph = step.get_concrete_function(requests).graph
    return sum(map(_result_bytes, graph.get_operations()))


def _slots(config: RunConfig, data: DataDir, sizes: Mapping[str, int], tables: int) -> int:
    """Bytes that optimisers remember of the tables.

    Args:
        config: Of the run.
        data: Its data set.
        sizes: Bytes of the tables of each categorical feature.
        tables: Bytes of all tables that the main loss trains.
    """
    history = [f.name for f in data.schema.history_features if f.is_categorical]
    of_ssl = sum(sizes[name] for name in history) if config.train.has_ssl_steps else 0
    return TABLE_SLOTS[config.train.embedding_optimizer] * (tables + of_ssl)


def require_room(needed: Estimate, distribution: Distribution, tables_on_cpu: bool) -> None:
    """Refuses a training that main memory cannot hold.

    What GPUs and parameter servers hold is theirs, and they say when it is too much.

    Args:
        needed: By the training.
        distribution: Says where its parts go.
        tables_on_cpu: Whether the tables are in main memory beside a GPU.

    Raises:
        UserError: More is needed here than there is.
    """
    if distribution.asynchronous:
        return
    here = needed.total
    if tf.config.list_logical_devices("GPU"):
        here = needed.tables + needed.slots if tables_on_cpu else 0
    found = available()
    if here > found:
        raise UserError(
            f"Expected a training that needs no more than the {_size(found)} of free memory, found "
            f"{needed}.",
            "set model.compressed_features, train.embedding_optimizer=adagrad, a smaller "
            "model.embedding_size or train.batch_size, or --distribute=parameter_server.",
        )


def available() -> int:
    """Bytes that this process may still take: of the machine, or of its container if less."""
    meminfo = dict(
        line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
    )
    free = int(meminfo["MemAvailable"].split()[0]) << 10
    return min([free, *_free_in_containers()])


def _free_in_containers() -> list[int]:
    """What the limits of control groups leave; files that can be dropped do not count."""
    found = []
    for directory, limit, used, cached in (
        (_CGROUP, "memory.max", "memory.current", "inactive_file"),
        (
            _CGROUP / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        try:
            bound = (directory / limit).read_text().strip()
            stat = dict(
                line.split() for line in (directory / "memory.stat").read_text().splitlines()
            )
            if bound != "max":
                in_use = int((directory / used).read_text()) - int(stat[cached])
                found.append(int(bound) - in_use)
        except (OSError, KeyError, ValueError):
            continue  # No such limit here.
    return found


def _requests(schema: Schema, rows: int, candidates: int) -> Features:
    """Specifications of the batch of a replica, histories of full length."""

    def of(categorical: bool, *shape: int) -> tf.TensorSpec:
        return tf.TensorSpec(shape, tf.int64 if categorical else tf.float32)

    length = schema.history.max_length
    features = {f.name: of(f.is_categorical, rows) for f in schema.user_features}
    for feature in schema.item_features:
        features[candidate_key(feature.name)] = of(feature.is_categorical, rows, candidates)
    for feature in schema.history_features:
        features[history_key(feature.name)] = of(feature.is_categorical, rows, length)
    return features | {LABEL: of(False, rows, candidates)}


def _bytes(variables: Iterable[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def _result_bytes(operation: tf.Operation) -> int:
    """Memory of what an operation computes, as far as its shape is known."""
    if operation.type in _VIEWS:
        return 0
    return sum(
        output.shape.num_elements() * output.dtype.size
        for output in operation.outputs
        if output.shape.is_fully_defined()
    )


def _size(count: int) -> str:
    """Bytes in words."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB // 10 else f"{count / (1 << 20):.1f} MiB"
