"""The Classify and Regress calls: signatures that take serialized examples.

Shapes: B examples, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from serving.tfserving.status import Code, ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"
INPUT = "inputs"
CLASSES, SCORES, OUTPUT = "classes", "scores", "outputs"


class Predictor(Protocol):
    """The part of a `Servable` that the calls use."""

    signature_defs: Any

    def output_types(self, signature_name: str) -> Mapping[str, str]:
        """See `Servable`."""

    def predict(self, signature_name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Servable`."""


def classify(
    servable: Predictor, signature_name: str, examples: Sequence[bytes], check_method: bool = False
) -> list[list[tuple[str, np.float32]]]:
    """Label and score of every class, by example.

    Args:
        servable: Model version that is asked.
        signature_name: Name of the signature; "" means `serving_default`. It takes `inputs` and
            returns `classes` or `scores` [B, C], or both. Without labels each label is "", without
            scores each score is 0.
        examples: Serialized tf.train.Example messages.
        check_method: Whether the signature's method name must be that of this call.

    Raises:
        ServingError: INVALID_ARGUMENT for a signature of another form, or an error of
            `Servable.predict`.
    """
    outputs = _run(servable, signature_name, examples, "classify" if check_method else None)
    class_outputs = {name: outputs[name] for name in (CLASSES, SCORES) if name in outputs}
    if not class_outputs or len(outputs) > 2:
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"{CLASSES}" or "{SCORES}", found: {", ".join(sorted(outputs))}'
        )
    types = servable.output_types(signature_name)
    for name, expected in ((CLASSES, "string"), (SCORES, "float")):
        if name not in class_outputs:
            continue
        _require_type(name, types[name], expected)
        if class_outputs[name].ndim != 2 or len(class_outputs[name]) != len(examples):
            raise invalid(
                f"Expected {name} of shape [{len(examples)}, number of classes], "
                f"found {list(class_outputs[name].shape)}"
            )
    shape = next(iter(class_outputs.values())).shape
    if any(array.shape != shape for array in class_outputs.values()):
        raise invalid(
            f"Expected as many classes as scores, found {class_outputs[CLASSES].shape[1]} and "
            f"{class_outputs[SCORES].shape[1]}"
        )
    labels_BC = class_outputs.get(CLASSES, np.full(shape, b"", object))
    scores_BC = class_outputs.get(SCORES, np.zeros(shape, np.float32))
    return [
        [(label.decode(errors="replace"), score) for label, score in zip(row, scores, strict=True)]
        for row, scores in zip(labels_BC, scores_BC, strict=True)
    ]


def regress(
    servable: Predictor, signature_name: str, examples: Sequence[bytes], check_method: bool = False
) -> np.ndarray:
    """One float32 per example, from the output `outputs` of shape [B] or [B, 1].

    Args:
        servable: Model version that is asked.
        signature_name: Name of the signature; "" means `serving_default`. It takes `inputs` and
            returns `outputs`.
        examples: Serialized tf.train.Example messages.
        check_method: Whether the signature's method name must be that of this call.

    Raises:
        ServingError: INVALID_ARGUMENT for a signature of another form, or an error of
            `Servable.predict`.
    """
    outputs = _run(servable, signature_name, examples, "regress" if check_method else None)
    if set(outputs) != {OUTPUT}:
        raise invalid(
            f"Expected one output Tensor {OUTPUT} of a regression signature, "
            f"found: {', '.join(sorted(outputs))}"
        )
    _require_type(OUTPUT, servable.output_types(signature_name)[OUTPUT], "float")
    shape = outputs[OUTPUT].shape
    if shape not in ((len(examples),), (len(examples), 1)):
        raise invalid(
            f"Expected output Tensor shape to be either [{len(examples)}] or "
            f"[{len(examples)}, 1], found {list(shape)}"
        )
    return outputs[OUTPUT].reshape(-1)


def call(method_name: str) -> Callable[..., Any]:
    """The function for a method name of a signature or task: `classify` or `regress`.

    Raises:
        ServingError: UNIMPLEMENTED for another name.
    """
    calls = {"tensorflow/serving/classify": classify, "tensorflow/serving/regress": regress}
    if method_name not in calls:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method_name}")
    return calls[method_name]


def examples(sent: Any) -> list[bytes]:
    """The serialized examples of an `Input` message, each preceded by their common context.

    Raises:
        ServingError: INVALID_ARGUMENT if the message has no examples.
    """
    kind = sent.WhichOneof("kind")
    context = b""
    if kind == "example_list_with_context":
        context = sent.example_list_with_context.context.SerializeToString(deterministic=True)
    messages = getattr(sent, kind).examples if kind else ()
    if not messages:
        raise invalid("Input is empty.")
    return [context + example.SerializeToString(deterministic=True) for example in messages]


def _run(
    servable: Predictor, signature_name: str, examples: Sequence[bytes], method: str | None
) -> dict[str, np.ndarray]:
    name = signature_name or DEFAULT_SIGNATURE
    definitions = servable.signature_defs.signature_def
    if name not in definitions:
        raise invalid(f"No signature was found with the name: {name}")
    definition = definitions[name]
    if method and definition.method_name != f"tensorflow/serving/{method}":
        raise invalid(
            f"Expected signature method_name to be tensorflow/serving/{method}. "
            f"Was: {definition.method_name}"
        )
    if set(definition.inputs) != {INPUT}:
        raise invalid(
            f"Expected one input Tensor {INPUT} of signature {name}, "
            f"found: {', '.join(sorted(definition.inputs)) or 'none'}"
        )
    batch = np.empty(len(examples), object)
    batch[:] = examples
    return servable.predict(signature_name, {INPUT: batch})


def _require_type(name: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise invalid(f"Expected {name} Tensor of type {expected}, found {actual}")
