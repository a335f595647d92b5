"""Merging the tensors of several requests along dimension 0, and splitting them again.

If requests do not fit together, the errors are those of TensorFlow Serving.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.status import Code, ServingError, invalid

Tensors = Mapping[str, np.ndarray]


def common_size(inputs: Tensors) -> int:
    """The common dimension 0 of all inputs of a request.

    Raises:
        ServingError: INVALID_ARGUMENT if an input has no dimension, or inputs differ in it.
    """
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) != 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def merge(requests: Sequence[Tensors], parameters: BatchingParameters) -> dict[str, np.ndarray]:
    """Merges the inputs of all requests of a batch.

    If the parameters ask for it, the other dimensions are padded to equal sizes with the first
    element of each tensor. Rows are filled up to an allowed batch size with the first row of the
    last request, if it has one.

    Args:
        requests: Inputs of at least one request, with the same names and types in each.
        parameters: Parameters of the queue.

    Raises:
        ServingError: FAILED_PRECONDITION if other dimensions differ and may not be padded;
            INVALID_ARGUMENT if they cannot be.
    """
    size = sum(common_size(request) for request in requests)
    fill = parameters.filled_up(size) - size
    merged = {}
    for name in requests[0]:
        arrays = [request[name] for request in requests]
        if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            if not parameters.pad_variable_length_inputs:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Tensors with name '{name}' from different tasks have different shapes and "
                    "padding is turned off. Set pad_variable_length_inputs to true, or ensure "
                    "that all tensors with the same name have equal dimensions starting with the "
                    "first dim.",
                )
            arrays = _padded(name, arrays)
        merged[name] = np.concatenate([*arrays, *[arrays[-1][:1]] * fill])
    return merged


def split(outputs: Tensors, sizes: Sequence[int], rows: int) -> list[dict[str, np.ndarray]]:
    """Splits the outputs of a batch into those of each request.

    Args:
        outputs: Outputs of the whole batch.
        sizes: Number of rows of each request.
        rows: Number of input rows, including those that filled up the batch.

    Raises:
        ServingError: FAILED_PRECONDITION if an output has another number of rows.
    """
    for array in outputs.values():
        if array.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
                "sizes of the input tensors",
            )
    return divide(outputs, sizes)


def divide(tensors: Tensors, sizes: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Divides tensors into parts of consecutive rows with the given sizes."""
    ends = list(itertools.accumulate(sizes))
    return [
        {name: array[end - size : end] for name, array in tensors.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]


def join(parts: Sequence[Tensors]) -> dict[str, np.ndarray]:
    """Joins the outputs of the parts of a divided request.

    Raises:
        ServingError: INTERNAL if the parts do not fit together.
    """
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise ServingError(Code.INTERNAL, f"Tensor concat operation failed: {error}") from error


def _padded(name: str, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    ranks = {array.ndim for array in arrays}
    if len(ranks) != 1:
        raise invalid(f"Tensors with name '{name}' from different tasks have different ranks")
    longest = np.max([array.shape for array in arrays], axis=0)
    return [_pad(array, (len(array), *map(int, longest[1:]))) for array in arrays]


def _pad(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    padded = np.empty(shape, array.dtype)
    if padded.size == array.size:
        return array.reshape(shape)
    if array.size == 0:
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    padded.fill(array.flat[0])
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded
