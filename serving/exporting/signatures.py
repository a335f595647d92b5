"""The signatures of an exported model, derived from the schema.

    serving_default   raw user and context features [B], `history_<feature>` [B, L],
                      `candidate_<feature>` [B, N]  ->  `scores` [B, N]
    serialized        `examples` [B], serialized SequenceExamples  ->  the same scores
    explain           inputs of serving_default  ->  scores, and the reasons for them

A feature of many values has one more axis, [B, M], [B, L, M] or [B, N, M], with padding anywhere in
it; M may differ from input to input. So has a feature of vectors: [B, D], [B, L, D] or [B, N, D],
with the D of the schema. What events have and candidates lack is `history_<feature>` as well. Of
features that derive from times the inputs are the times, in the unit of the schema: `<timestamp>`
[B] of the request, `history_<timestamp>` [B, L] of its events.

An input of a feature with a default may be left out, where the interface of the server allows it;
see `absent_inputs`.

Dimension 0 is the same everywhere, so that a server may batch requests. A history may hold padding
anywhere and be longer than the model's: events are moved together in order, and the most recent
ones kept. The attention of `explain` [B, N, K, L] has the history steps of the request: it is 0 at
padding and at events that were too old to be kept.

"" and -1 are padding where the item key of the step or candidate is padding. Anywhere else they are
missing values: they become the default of their feature, as in the data that the model was trained
on, and without a default they are scored as unknown values; see `RawEncoder.encode`.

Shapes: B requests, N candidates, L history length, M values of a set, D numbers of a vector, K
interests.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from models.backbone_api import Backbone
from models.core.base import CTRModel
from models.evaluation.calibration import Calibration
from models.keras import tf
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import candidate_key, history_key
from preprocessing.features.feature import PAD_ID, DType, Feature, Role
from preprocessing.schema import Schema, encoded_keys
from preprocessing.transforms import RawEncoder
from serving.exporting import calibrated_scores
from serving.exporting.absent_inputs import filled, may_be_absent, with_defaults
from serving.exporting.event_times import with_gaps, with_request_features
from serving.exporting.input_forms import VALUES, Form, require_forms

SERVING_DEFAULT, SERIALIZED, EXPLAIN = "serving_default", "serialized", "explain"
SCORES = "scores"
EXAMPLES = "examples"
_DTYPES = {
    DType.STRING: tf.string,
    DType.INT64: tf.int64,
    DType.FLOAT32: tf.float32,
    DType.DATETIME: tf.int64,
}


def history_input(name: str) -> str:
    """Name of a history feature in the signatures."""
    return f"history_{name}"


def candidate_input(name: str) -> str:
    """Name of a candidate feature in the signatures."""
    return f"candidate_{name}"


def raw_inputs(schema: Schema) -> dict[str, tuple[Feature, str]]:
    """Inputs of `serving_default` by name: the feature, and its key in encoded examples.

    Raises:
        UserError: Two features would get the same input name, or one of many values or of vectors
            that of an input of the history or of candidates.
    """
    named = [(f.name, f, f.key_name) for f in schema.request_fields]
    named += [(history_input(f.name), f, history_key(f.key_name)) for f in schema.event_fields]
    named += [(candidate_input(f.name), f, candidate_key(f.name)) for f in schema.item_features]
    inputs: dict[str, tuple[Feature, str]] = {}
    for name, feature, key in named:
        if name in inputs:
            raise UserError(
                f"Expected distinct names of serving inputs, found {name!r} twice.",
                "rename the feature of that name in the schema.",
            )
        inputs[name] = feature, key
    for feature in schema.user_features:
        # Clients tell the inputs of a model by their names and ranks.
        for prefix in (history_input(""), candidate_input("")):
            if feature.axes and feature.name.startswith(prefix):
                what = "vectors" if feature.is_vector else "many values"
                raise UserError(
                    f"Expected another name for the feature {feature.name!r} of {what}, as names "
                    f"of inputs that begin with {prefix!r} belong to items.",
                    "rename the feature in the schema.",
                )
    return inputs


class ServingModule(tf.Module):
    """The exported module: the weights that scoring needs, the vocabularies, and the signatures.

    Neither optimisers nor self-supervision are reachable from here. The module tracks the weights
    of the layers and not the layers themselves, of which the saver would trace training variants.

    Args:
        model: Trained model to export.
        data: Data set that the model was trained on, with its schema and fitted encoders.
        calibration: Map of its logits; None for the scores as the model has them.
    """

    def __init__(
        self, model: CTRModel, data: DataDir, calibration: Calibration | None = None
    ) -> None:
        super().__init__(name="serving")
        self.encoder = RawEncoder(data.encoders, data.vocab_dir)
        self.weights = [*model.embedder.variables, *model.backbone.variables]
        scorer = _Scorer(model, data, calibration, self.encoder)
        inputs = raw_inputs(data.schema)
        raw_specs = {
            name: tf.TensorSpec(
                [size if isinstance(size, int) else None for size in _form(key, feature)],
                _DTYPES[feature.dtype],
            )
            for name, (feature, key) in inputs.items()
        }

        forms = {name: _form(key, feature) for name, (feature, key) in inputs.items()}
        self._optional = {
            name: (feature, forms[name])
            for name, (feature, _) in inputs.items()
            if may_be_absent(data.schema, feature)
        }
        item = data.schema.item_key.name
        keys = data.schema.user_key.name, history_input(item), candidate_input(item)

        def encoded(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            raw = require_forms(filled(raw, self._optional, keys), forms)
            return encode(data.schema, self.encoder, raw)

        def serving_default(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
            return scorer.scores(encoded(raw))

        def serialized(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            examples = require_forms({EXAMPLES: examples}, {EXAMPLES: "B"})[EXAMPLES]
            features = dataset.parse(data.schema, examples)
            forms = {
                key: _form(key, feature)
                for key, feature in (
                    *((k, f) for f, k in inputs.values() if f != data.schema.timestamp),
                    *((k, f) for k, f in encoded_keys(data.schema) if f.derived is not None),
                )
            }
            return scorer.scores(require_forms(features, forms))

        def explain(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
            return scorer.explanation(encoded(raw))

        self._functions: dict[str, tuple[Callable[..., Any], dict[str, tf.TensorSpec]]] = {
            SERVING_DEFAULT: (serving_default, raw_specs),
            SERIALIZED: (serialized, {"examples": tf.TensorSpec([None], tf.string)}),
        }
        if type(model.backbone).explain is not Backbone.explain:
            self._functions[EXPLAIN] = explain, raw_specs

    @functools.cached_property
    def signatures(self) -> dict[str, Any]:
        """Concrete functions by name; `explain` only if the model can explain its scores."""
        return {name: self.trace(name) for name in self._functions}

    def to_save(self) -> dict[str, Any]:
        """The signatures as `tf.saved_model.save` takes them, with defaults for absent inputs."""
        forms = {name: form for name, (_, form) in self._optional.items()}
        return {
            name: with_defaults(function, self._functions[name][1], forms)
            if forms and name != SERIALIZED
            else function
            for name, function in self.signatures.items()
        }

    def trace(self, name: str) -> Any:
        """Traces the concrete function of one signature anew."""
        function, specs = self._functions[name]
        return tf.function(function, autograph=False).get_concrete_function(**specs)


def encode(
    schema: Schema, encoder: RawEncoder, raw: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Encodes the inputs of `serving_default`.

    Args:
        schema: Schema that names the inputs.
        encoder: Encoder of all features.
        raw: Inputs by name, as `raw_inputs` lists them.

    Returns:
        Encoded features by their keys in examples, with padding in the same places; the times that
        features derive from are left raw.
    """

    def encoded(feature: Feature, values: tf.Tensor, is_real: tf.Tensor | bool) -> tf.Tensor:
        if feature.is_vector:
            return encoder.encode_vectors(feature.name, values)
        method = encoder.encode if feature.many is None else encoder.encode_sets
        return method(feature.name, values, is_real)

    times = schema.with_role(Role.TIMESTAMP)
    fields = [feature for feature in schema.request_fields if feature not in times]
    features = {f.name: encoded(f, raw[f.name], True) for f in fields}
    if len(fields) < len(schema.request_fields):
        features |= {time.key_name: raw[time.name] for time in times}
        features = with_request_features(schema, encoder, features)
    for group, input_of, key_of in (
        (schema.event_fields, history_input, history_key),
        (schema.item_features, candidate_input, candidate_key),
    ):
        item_feature, *side_features = group  # the item key comes first
        ids = encoder.encode(item_feature.name, raw[input_of(item_feature.name)])
        features[key_of(item_feature.name)] = ids
        for feature in side_features:
            values = raw[input_of(feature.name)]
            if feature in times:
                features[key_of(feature.key_name)] = values
                continue
            features[key_of(feature.name)] = encoded(feature, values, ids != PAD_ID)
    return features


def _form(key: str, feature: Feature) -> Form:
    """The form of a feature by its key in encoded examples; see `input_forms`."""
    form = "B"
    if key.startswith(history_key("")):
        form = "BL"
    elif key.startswith(candidate_key("")):
        form = "BN"
    return (*form, *feature.shape) if feature.is_vector else (*form, *VALUES * feature.axes)


class _Scorer:
    """Scores encoded features."""

    def __init__(
        self,
        model: CTRModel,
        data: DataDir,
        calibration: Calibration | None,
        encoder: RawEncoder,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._calibration = calibration
        self._schema = data.schema
        self._num_oov = {name: encoder.num_oov for name, encoder in data.encoders.items()}

    def scores(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Probabilities, 0 for padded candidates."""
        features = self._complete(features)
        return {SCORES: self._probabilities(features, self._model(features))}

    def explanation(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Scores, interest weights, attention over the request's history, unknown values."""
        slots_BL = history_slots(self._schema, features)
        features = self._complete(features)
        backbone, embedder = self._model.backbone, self._model.embedder
        state = backbone.encode_user(embedder.user_side(features))
        candidates = embedder.candidates(features)
        reasons = backbone.explain(state, candidates)
        return {
            SCORES: self._probabilities(features, backbone.score(state, candidates)),
            "confidence": reasons["confidence_BNK"],
            "attention": _at_steps(reasons["attention_BNKL"], slots_BL),
            "unknown_ids": self._unknown(features),
        }

    def _complete(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The features with compact histories, and with the gaps of the events that are kept."""
        return with_gaps(self._schema, self._encoder, compact_history(self._schema, features))

    def _probabilities(self, features: dict[str, tf.Tensor], logits_BN: tf.Tensor) -> tf.Tensor:
        mask_BN = features[candidate_key(self._schema.item_key.name)] != PAD_ID
        logits_BN = tf.cast(logits_BN, tf.float32)
        if self._calibration is None:
            scores_BN = tf.sigmoid(logits_BN)
        else:
            scores_BN = calibrated_scores.probabilities(self._calibration, logits_BN)
        return tf.where(mask_BN, scores_BN, 0.0)

    def _unknown(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Numbers of values of each request that are not in their vocabulary, [B] int64."""
        counts_B = []
        for feature, key in raw_inputs(self._schema).values():
            num_oov = self._num_oov.get(feature.name, 0)  # times have no ids
            if num_oov:
                ids = features[key]
                unknown = tf.cast((ids > PAD_ID) & (ids <= num_oov), tf.int64)
                counts_B.append(tf.reduce_sum(tf.reshape(unknown, [tf.shape(ids)[0], -1]), axis=1))
        if not counts_B:
            return tf.zeros_like(features[self._schema.user_key.name], tf.int64)
        return tf.add_n(counts_B)


def compact_history(schema: Schema, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Moves the events of each history together and keeps the most recent ones.

    Args:
        schema: Schema that names the history features; an event is a step whose item key is not
            padding.
        features: Encoded features with `history/<feature>` [B, L], [B, L, M] or [B, L, D], as
            `preprocessing.dataset.parse` describes them, but with padding anywhere.

    Returns:
        The features with histories [B, L'] in the old order, padded with 0 on the right. L' is the
        length of the longest history, at least 1 and at most the schema's `max_length`.
    """
    item = history_key(schema.item_key.name)
    # One step of padding at the end, so that there is something to gather even if L is 0.
    is_event_BL = tf.pad(features[item] != PAD_ID, [[0, 0], [0, 1]])
    # A stable sort keeps the order of the events and puts the padding behind them.
    order_BL = tf.argsort(tf.cast(~is_event_BL, tf.int32), axis=1, stable=True)
    counts_B = tf.reduce_sum(tf.cast(is_event_BL, tf.int32), axis=1)
    kept_B = tf.minimum(counts_B, schema.history.max_length)
    slots_L = tf.range(tf.maximum(tf.reduce_max(kept_B), 1))
    is_kept_BL = slots_L < kept_B[:, None]
    places_BL = tf.where(is_kept_BL, (counts_B - kept_B)[:, None] + slots_L, 0)
    sources_BL = tf.gather(order_BL, places_BL, batch_dims=1)
    compacted = dict(features)
    keys = {history_key(feature.name): feature for feature in schema.step_features}
    keys |= {history_key(f.key_name): f for f in schema.with_role(Role.TIMESTAMP)}
    for key, feature in keys.items():
        if key not in features:
            continue  # gaps are computed afterwards, from times; without gaps there are no times
        padded_BL = tf.pad(features[key], [[0, 0], [0, 1], *([[0, 0]] * feature.axes)])
        values_BL = tf.gather(padded_BL, sources_BL, batch_dims=1)
        is_kept = is_kept_BL[..., None] if feature.axes else is_kept_BL
        compacted[key] = tf.where(is_kept, values_BL, tf.zeros_like(values_BL))
    return compacted


def history_slots(schema: Schema, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The places to which `compact_history` moves the steps of a history.

    Args:
        schema: Schema that names the history features.
        features: Encoded features that `compact_history` takes.

    Returns:
        Index of each step in the compacted history, -1 if it is left out, [B, L] int32.
    """
    is_event_BL = features[history_key(schema.item_key.name)] != PAD_ID
    rank_BL = tf.cumsum(tf.cast(is_event_BL, tf.int32), axis=1)
    counts_B1 = tf.reduce_sum(tf.cast(is_event_BL, tf.int32), axis=1, keepdims=True)
    dropped_B1 = tf.maximum(counts_B1 - schema.history.max_length, 0)
    return tf.where(is_event_BL, tf.maximum(rank_BL - dropped_B1, 0) - 1, -1)


def _at_steps(attention_BNKS: tf.Tensor, slots_BL: tf.Tensor) -> tf.Tensor:
    """Moves attention from slots of the compacted history [B, N, K, S] to steps [B, N, K, L]."""
    attention_BSNK = tf.transpose(attention_BNKS, [0, 3, 1, 2])
    steps_BLNK = tf.gather(attention_BSNK, tf.maximum(slots_BL, 0), batch_dims=1)
    is_kept_BL11 = (slots_BL >= 0)[:, :, None, None]
    steps_BLNK = tf.where(is_kept_BL11, steps_BLNK, tf.zeros_like(steps_BLNK))
    return tf.transpose(steps_BLNK, [0, 2, 3, 1])
