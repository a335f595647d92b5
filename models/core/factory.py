"""Builds a model for a data set from its configuration."""

from collections.abc import Mapping

from models import registry, user_code
from models.backbone_api import Backbone, ModelConfig, SelfSupervision
from models.config.run_config import RunConfig
from models.core.base import CTRModel
from models.core.embeddings import FeatureEmbedder, Features
from models.core.recipe import Recipe
from models.core.schedules import learning_rate
from models.keras import keras, tf
from models.ops.optimizers import table_optimizer
from models.ops.precision import LossScale, policy
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.json_checks import did_you_mean
from preprocessing.schema import Schema


def build_model(config: RunConfig, data: DataDir, precision: str = "float32") -> CTRModel:
    """Builds the model of a run and creates all its weights from the seed.

    The initial weights of the backbone are the same with and without self-supervision.

    Args:
        config: Configuration of the run.
        data: Data set, which has the schema and the size of each table.
        precision: One of `choices.PRECISIONS`; it changes how weights are used, not the weights.

    Raises:
        UserError: The model or its self-supervision does not support mixed precision; a feature
            cannot be compressed; a user-defined model raises an error.
    """
    cardinalities = {name: encoder.cardinality for name, encoder in data.encoders.items()}
    return build_sized(config, data.schema, cardinalities, precision)


def build_sized(
    config: RunConfig, schema: Schema, cardinalities: Mapping[str, int], precision: str = "float32"
) -> CTRModel:
    """Builds a model for tables of given sizes; see `build_model`.

    Args:
        config: Configuration of the run.
        schema: Schema of the features.
        cardinalities: Number of rows of each categorical feature's table.
        precision: One of `choices.PRECISIONS`.

    Example:
        >>> from models.config.run_config import resolve
        >>> from preprocessing.schema_inference import infer_schema
        >>> config, rows = resolve({"model": {"name": "din"}}), {"user_id": 9, "item_id": 9}
        >>> model = build_sized(config, infer_schema(["user_id", "item_id"]), rows)
        >>> ids = {"user_id": [2], "history/item_id": [[3, 4]], "candidate/item_id": [[5, 6, 7]]}
        >>> model({name: tf.constant(values) for name, values in ids.items()}).shape
        TensorShape([1, 3])
    """
    _check_precision(config, precision)
    keras.utils.set_random_seed(config.train.seed)
    backbone_class, _ = registry.load_model_class(config.model_name)
    # Layers pass float32 tensors to each other, starting with the embeddings.
    embedder = FeatureEmbedder(
        schema,
        cardinalities,
        config.model.embedding_size,
        backbone_class.linear_weights,
        config.train.oov_rate,
        compressed_features(config.model, schema),
        "CPU:0" if config.train.tables_on_cpu else None,
        config.pretrained,
        seed=config.train.seed,
    )
    parts = registry.user_parts(config.model_name, config.ssl_name)
    with policy(precision), user_code.explained(parts):
        backbone = backbone_class(config.model, embedder.dims)
        ssl = None
        if config.ssl_name != registry.NO_SSL:
            ssl_class, _ = registry.load_ssl_class(config.ssl_name)
            ssl = ssl_class(config.ssl, embedder.dims)
        for part in parts:
            user_code.require_keras_2(part, backbone if part.flag == "model" else ssl)
        recipe = Recipe(config=config, cardinalities=cardinalities, precision=precision)
        model = CTRModel(schema, embedder, backbone, ssl, config.train.seed, recipe)
        _create_weights(model)
    if precision == "mixed_float16":
        model.loss_scale = LossScale()
    return model


def _check_precision(config: RunConfig, precision: str) -> None:
    """Raises `UserError` for mixed precision with parts that do not support it."""
    parts: list[tuple[str, type[Backbone] | type[SelfSupervision]]] = [
        (config.model_name, registry.load_model_class(config.model_name)[0])
    ]
    if config.ssl_name != registry.NO_SSL:
        parts.append((config.ssl_name, registry.load_ssl_class(config.ssl_name)[0]))
    for name, part in parts:
        if precision != "float32" and not part.mixed_precision:
            raise UserError(
                f"Expected train.precision=float32 with {name}, found {precision}.",
                "din, miss and the variants of deminet can be trained with mixed precision.",
            )


def compressed_features(model: ModelConfig, schema: Schema) -> dict[str, int]:
    """Number of ids that share a row, by compressed feature."""
    categorical = [feature.name for feature in schema.encoded_features if feature.is_categorical]
    for name in model.compressed_features:
        if name not in categorical:
            raise UserError(
                f"Expected model.compressed_features among {', '.join(categorical)}, "
                f"found {name!r}.",
                did_you_mean(name, categorical),
            )
    return dict.fromkeys(model.compressed_features, model.compression)


def _create_weights(model: CTRModel) -> None:
    """Calls every part of the model once.

    The backbone comes first: its initial weights are then the same with and without ssl.
    """
    features = _one_request(model.schema)
    model(features)
    user, candidates = model.embedder.user_side(features), model.embedder.candidates(features)
    seed = tf.zeros([2], tf.int32)
    # Creates the weights that only training needs.
    state = model.backbone.encode_user(user)
    model.backbone.auxiliary_losses(state, candidates, seed=seed)
    model.backbone.auxiliary_logits(state, candidates)
    if model.ssl is not None:
        model.ssl.losses(user, candidates, seed=seed)
    for layer in model.layers:
        # Their methods are called, not they themselves; Keras would count no weights of theirs.
        layer.built = True


def compile_model(model: CTRModel, config: RunConfig) -> None:
    """Gives the model its optimisers: Adam for dense weights, another one for tables.

    Steps of the self-supervised loss alone have a separate pair of optimisers: the gradients of
    both losses differ in scale and in how fast they change, so neither should be normalised by the
    moments of the other.
    """
    train = config.train
    ssl_optimizers = {}
    if train.has_ssl_steps:
        rate = train.ssl_learning_rate or train.learning_rate
        ssl_optimizers = {
            "ssl_optimizer": keras.optimizers.Adam(rate),
            "ssl_embedding_optimizer": table_optimizer(
                train.embedding_optimizer, train.ssl_embedding_learning_rate or rate
            ),
        }
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate(train, train.learning_rate)),
        embedding_optimizer=table_optimizer(
            train.embedding_optimizer,
            learning_rate(train, train.embedding_learning_rate or train.learning_rate),
        ),
        **ssl_optimizers,
        joint=train.joint,
        l2=train.l2,
        clip_norm=train.clip_norm,
        embedding_clip_norm=train.embedding_clip_norm,
        positive_weight=train.positive_weight,
        sample_weight=train.sample_weight,
    )
    for name, vectors in config.pretrained.items():
        for optimizer in (model.embedding_optimizer, model.ssl_embedding_optimizer):
            if optimizer is not None and vectors.learning_rate_factor != 1.0:
                tables = model.embedder.table_weights([name])
                optimizer.set_factor(tables, vectors.learning_rate_factor)


def _one_request(schema: Schema) -> Features:
    """A request of one event and one candidate, with the ranks and types of real requests."""

    def value(categorical: bool, *shape: int) -> tf.Tensor:
        return tf.ones(shape, tf.int64 if categorical else tf.float32)

    features = {f.name: value(f.is_categorical, 1, *f.value_shape) for f in schema.user_features}
    for f in schema.item_features:
        features[candidate_key(f.name)] = value(f.is_categorical, 1, 1, *f.value_shape)
    for f in schema.step_features:
        features[history_key(f.name)] = value(f.is_categorical, 1, 1, *f.value_shape)
    return features
