"""Estimate of the memory that training needs, made before it is allocated.

The sizes of tables and their optimiser slots follow from the configuration. The memory of a batch
is bounded from its size. Only if the bound is close to the free memory, a model with tables of a
few rows is built and its step traced: this takes a few seconds and is exact for user-defined models
too.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from models import registry
from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.core.embeddings import (
    Features,
    single_variables,
)
from models.core.factory import build_sized, compile_model, compressed_features
from models.core.table_shapes import projected_widths, table_shapes
from models.distributed.distribution import Distribution
from models.keras import tf
from models.ops.optimizers import TABLE_SLOTS
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import LABEL, LABEL_WEIGHT, candidate_key, history_key
from preprocessing.reading.parts import WHOLE, Part, share
from preprocessing.schema import Schema

_VIEWS = (
    *("Identity", "IdentityN", "StopGradient", "Reshape", "ExpandDims", "Squeeze"),
    *("ReadVariableOp", "VarHandleOp", "Const", "Placeholder"),
)
"""Operations whose result shares the memory of their input, or takes none."""

_FLOAT = 4
_FEW_ROWS = 64
_WORTH_TRACING = 4
"""Tracing is skipped if the upper bound is below 1 / _WORTH_TRACING of the free memory."""

_ITEM_VECTORS, _EVENT_PAIRS = 200, 400
"""Upper bounds of the activations of built-in models, per event of a history: vectors of an item's
width, times (candidates + 2), and numbers per other event of the history."""

_GIB = 1 << 30
_CGROUP = pathlib.Path("/sys/fs/cgroup")


class MemoryEstimate(NamedTuple):
    """Bytes that training needs beside Python and TensorFlow themselves.

    Attributes:
        tables: Embedding tables; those of backbones are included only if `traced`.
        slots: Optimiser slots of the tables.
        dense: Other weights and their optimiser slots; 0 unless `traced`.
        activations: Results of the forward pass over the batch of a replica, with histories of
            full length; the backward pass needs most of them. An upper bound unless `traced`.
        copies: Number of replicas on this machine, each of which needs all of the above.
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
        """Bytes of all copies."""
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


def estimate(
    config: RunConfig, data: DataDir, distribution: Distribution, part: Part = WHOLE
) -> MemoryEstimate:
    """Estimates the memory of a training run.

    Args:
        config: Configuration of the run.
        data: Data set, which determines the sizes of tables and requests.
        distribution: Distribution, which determines the number of replicas.
        part: What this process reads of every batch, if several share them.
    """
    sizes = _table_sizes(config, data)
    rows, candidates = _batch(config, data, distribution, part)
    length = data.schema.history.max_length
    width = len(data.schema.history_features) * max(config.model.embedding_size, 1)
    numbers = _ITEM_VECTORS * (candidates + 2) * width + _EVENT_PAIRS * length
    processes = len(distribution.cluster.peers) + 1 if distribution.cluster else 1
    bound = MemoryEstimate(
        sum(sizes.values()),
        _slots(config, data, sizes, sum(sizes.values())),
        0,
        _FLOAT * rows * length * numbers,
        max(1, distribution.replicas // processes),
    )
    if bound.total < available() // _WORTH_TRACING:
        return bound
    return _traced(config, data, rows, candidates, sizes)._replace(copies=bound.copies)


def _batch(
    config: RunConfig, data: DataDir, distribution: Distribution, part: Part
) -> tuple[int, int]:
    """Number of requests in the batch of a replica, and of candidates of each request."""
    split = data.manifest["splits"]["train"]
    candidates = -(-split["candidates"] // max(split["requests"], 1))
    rows = config.train.batch_size
    if part.count > 1:
        rows = share(data, "train", rows, part).batch_size * part.count
    return -(-rows // distribution.replicas), candidates


def _table_sizes(config: RunConfig, data: DataDir) -> dict[str, int]:
    """Bytes of the tables of each categorical feature."""
    width = (
        config.model.embedding_size + registry.load_model_class(config.model_name)[0].linear_weights
    )
    features = [feature for feature in data.schema.encoded_features if feature.is_categorical]
    shapes = table_shapes(
        {feature.name: data.encoders[feature.name].cardinality for feature in features},
        width,
        compressed_features(config.model, data.schema),
        projected_widths(config.pretrained, config.model.embedding_size),
    )
    return {name: sum(_FLOAT * n * m for n, m in pairs) for name, pairs in shapes.items()}


def _traced(
    config: RunConfig, data: DataDir, rows: int, candidates: int, sizes: Mapping[str, int]
) -> MemoryEstimate:
    """Estimates the memory of a training run by tracing a step."""
    cardinalities = {name: encoder.cardinality for name, encoder in data.encoders.items()}
    small_cardinalities = {name: min(_FEW_ROWS, count) for name, count in cardinalities.items()}
    model = build_sized(config, data.schema, small_cardinalities, config.train.precision)
    compile_model(model, config)
    model.build_optimizers()
    requests = _requests(data.schema, rows, candidates)
    activations = max(
        _activations(model, requests, ssl) for ssl in {False, config.train.has_ssl_steps}
    )

    key = data.schema.item_key.name
    # Tables of backbones have a row per item.
    backbone_tables = _bytes(model.backbone.tables) * cardinalities[key] // small_cardinalities[key]
    tables = sum(sizes.values()) + backbone_tables
    embedder = model.embedder
    table_weights = [
        *single_variables([*embedder.tables.values(), *embedder.quotients.values()]),
        *model.backbone.tables,
    ]
    dense = {weight.ref() for weight in model.weights} - {table.ref() for table in table_weights}
    dense_bytes = _bytes([ref.deref() for ref in dense]) + _bytes(model.optimizer.variables)
    if model.ssl_optimizer is not None:
        dense_bytes += _bytes(model.ssl_optimizer.variables)
    slots = _slots(config, data, sizes, tables)
    return MemoryEstimate(tables, slots, dense_bytes, activations, traced=True)


def _activations(model: CTRModel, requests: Features, ssl: bool) -> int:
    """Bytes that the forward pass of a step computes.

    Args:
        model: Compiled model.
        requests: Tensor specifications of a batch.
        ssl: Whether the step is one of the self-supervised loss alone.
    """
    step = tf.function(lambda features: model.next_terms(features, ssl), autograph=False)
    graph = step.get_concrete_function(requests).graph
    return sum(map(_result_bytes, graph.get_operations()))


def _slots(config: RunConfig, data: DataDir, sizes: Mapping[str, int], tables: int) -> int:
    """Bytes of the optimiser slots of the tables.

    Args:
        config: Configuration of the run.
        data: Data set of the run.
        sizes: Bytes of the tables of each categorical feature.
        tables: Bytes of all tables.
    """
    fixed = [name for name, vectors in config.pretrained.items() if not vectors.trainable]
    history = [
        f.name for f in data.schema.history_features if f.is_categorical and f.name not in fixed
    ]
    ssl_tables = sum(sizes[name] for name in history) if config.train.has_ssl_steps else 0
    trained = tables - sum(sizes[name] for name in fixed)
    return TABLE_SLOTS[config.train.embedding_optimizer] * (trained + ssl_tables)


def require_room(needed: MemoryEstimate, distribution: Distribution, tables_on_cpu: bool) -> None:
    """Raises `UserError` if training does not fit into main memory.

    The memory of GPUs and parameter servers is not checked; they report an error themselves.

    Args:
        needed: Estimated memory of the training.
        distribution: Distribution, which determines where tensors are placed.
        tables_on_cpu: Whether the tables are in main memory beside a GPU.

    Raises:
        UserError: Training needs more memory on this machine than is free.
    """
    if distribution.asynchronous:
        return
    required = needed.total
    if tf.config.list_logical_devices("GPU"):
        required = needed.tables + needed.slots if tables_on_cpu else 0
    free = available()
    if required > free:
        raise UserError(
            f"Expected a training that needs no more than the {_size(free)} of free memory, found "
            f"{needed}.",
            "set model.compressed_features, train.embedding_optimizer=adagrad, a smaller "
            "model.embedding_size or train.batch_size, or --distribute=parameter_server.",
        )


def available() -> int:
    """Bytes that this process may still allocate, on the machine or in its container if less."""
    meminfo = dict(
        line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
    )
    free = int(meminfo["MemAvailable"].split()[0]) << 10
    return min([free, *_free_in_containers()])


def _free_in_containers() -> list[int]:
    """Free bytes under the limits of control groups; cached files count as free."""
    free_bytes = []
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
                free_bytes.append(int(bound) - in_use)
        except (OSError, KeyError, ValueError):
            continue  # No such limit here.
    return free_bytes


def _requests(schema: Schema, rows: int, candidates: int) -> Features:
    """Tensor specifications of the batch of a replica, with histories of full length."""

    def spec(categorical: bool, *shape: int) -> tf.TensorSpec:
        return tf.TensorSpec(shape, tf.int64 if categorical else tf.float32)

    length = schema.history.max_length
    features = {f.name: spec(f.is_categorical, rows, *f.value_shape) for f in schema.user_features}
    for f in schema.item_features:
        shape = (rows, candidates, *f.value_shape)
        features[candidate_key(f.name)] = spec(f.is_categorical, *shape)
    for f in schema.step_features:
        features[history_key(f.name)] = spec(f.is_categorical, rows, length, *f.value_shape)
    features[LABEL] = spec(False, rows, candidates)
    if schema.weight is not None:
        features[LABEL_WEIGHT] = spec(False, rows, candidates)
    return features


def _bytes(variables: Iterable[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def _result_bytes(operation: tf.Operation) -> int:
    """Bytes of the outputs of an operation, as far as their shapes are known."""
    if operation.type in _VIEWS:
        return 0
    return sum(
        output.shape.num_elements() * output.dtype.size
        for output in operation.outputs
        if output.shape.is_fully_defined()
    )


def _size(count: int) -> str:
    """A number of bytes as text."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB // 10 else f"{count / (1 << 20):.1f} MiB"
