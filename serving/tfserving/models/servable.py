"""One loaded version of a SavedModel: its inputs, its outputs, and calls of its signatures."""

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf import message

from models.keras import tf
from serving.tfserving.models import digests
from serving.tfserving.protos import get_model_metadata_pb2, saved_model_pb2, types_pb2
from serving.tfserving.status import Code, ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"

# The text that Python's loader adds to the message of a failed op; TensorFlow Serving adds none.
_DECORATION = re.compile(
    r"^Graph execution error:\s*"
    r"|^Detected at node .*\n(?:[ \t].*\n)*"
    r"|^<stack traces unavailable>\n"
    r"| \[Op:[\w]+\](?: name:.*)?$",
    re.MULTILINE,
)


class Servable:
    """A SavedModel in memory.

    Attributes:
        path: Directory that the version was loaded from.
        signature_defs: Signatures of the version, as a `SignatureDefMap` message.
    """

    def __init__(self, path: pathlib.Path, tags: Iterable[str] = ("serve",)) -> None:
        """Loads the meta graph that has exactly these tags.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT if there is no such SavedModel, DATA_LOSS if
                its files are not those that were exported.
            tf.errors.OpError: TensorFlow could not load the SavedModel.
        """
        self.path = path
        self.signature_defs = _read_signature_defs(path, set(tags))
        digests.check(path)
        # Every request needs the types, and reading them from messages is slow.
        self._types = {
            name: (_type_names(definition.inputs), _type_names(definition.outputs))
            for name, definition in self.signature_defs.signature_def.items()
        }
        self._model = tf.saved_model.load(str(path), tags=list(tags))

    def input_types(self, signature_name: str) -> Mapping[str, str]:
        """Tensor type ("float") by input of a signature; "" means `serving_default`.

        Raises:
            ServingError: INVALID_ARGUMENT if the signature does not exist, or takes no inputs.
        """
        inputs, _ = self._types_of(signature_name)
        if not inputs:
            raise invalid(f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
        return inputs

    def output_types(self, signature_name: str) -> Mapping[str, str]:
        """Tensor type ("float") by output of a signature; "" means `serving_default`."""
        return self._types_of(signature_name)[1]

    def predict(
        self, signature_name: str, inputs: Mapping[str, np.ndarray | tf.Tensor]
    ) -> dict[str, np.ndarray]:
        """Runs a signature on one array per input; strings are objects of type bytes.

        Raises:
            ServingError: An op failed; the error has TensorFlow's code and message.
        """
        function = self._model.signatures[signature_name or DEFAULT_SIGNATURE]
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
            # `Tensor.numpy` returns a plain value and no array for a tensor of rank 0.
            return {
                name: np.asarray(value.numpy(), value.dtype.as_numpy_dtype)
                for name, value in outputs.items()
            }
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), op_message(error)) from error
        except (TypeError, ValueError) as error:
            # TensorFlow's Python code refuses some shapes before the graph runs.
            raise invalid(str(error)) from error

    def _types_of(self, signature_name: str) -> tuple[dict[str, str], dict[str, str]]:
        name = signature_name or DEFAULT_SIGNATURE
        if name not in self._types:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return self._types[name]


def op_message(error: tf.errors.OpError) -> str:
    """The message of a failed op without the text that Python's loader adds to it."""
    return _DECORATION.sub("", error.message)


def _type_names(tensors: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
        for name, info in tensors.items()
    }


def _read_signature_defs(
    path: pathlib.Path, tags: set[str]
) -> get_model_metadata_pb2.SignatureDefMap:
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    except FileNotFoundError:
        raise ServingError(
            Code.NOT_FOUND,
            f"Could not find SavedModel .pb at supplied export directory path: {path}",
        ) from None
    except message.DecodeError as error:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Could not parse {path / 'saved_model.pb'}: {error}"
        ) from None
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            definitions = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in meta_graph.signature_def.items():
                definitions.signature_def[name].CopyFrom(definition)
            return definitions
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }} in "
        f"{path}",
    )
