import numpy as np
import pytest

from serving.tfserving.batching import tensors
from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.status import Code, ServingError

PLAIN = BatchingParameters()
PADDED = BatchingParameters(pad_variable_length_inputs=True)


def strings(*rows):
    array = np.empty((len(rows), len(rows[0])), object)
    array[:] = [list(row) for row in rows]
    return array


def refused(call, *arguments):
    with pytest.raises(ServingError) as caught:
        call(*arguments)
    return caught.value.code, caught.value.message


def test_B2_requests_follow_each_other_along_dimension_0():
    merged = tensors.merge(
        [
            {"a": np.array([1, 2]), "b": strings([b"x\0"], [b"y"])},
            {"a": np.array([3]), "b": strings([b""])},
        ],
        PLAIN,
    )
    assert merged["a"].tolist() == [1, 2, 3]
    assert merged["b"].tolist() == [[b"x\0"], [b"y"], [b""]]


def test_B3_every_input_has_the_same_dimension_0():
    assert tensors.common_size({"a": np.zeros([2, 3]), "b": np.zeros(2)}) == 2
    one = {"a": np.zeros(2), "b": np.float32(1)}
    assert refused(tensors.common_size, one) == (
        Code.INVALID_ARGUMENT,
        "Batching Run() input tensors must have at least one dimension",
    )
    unequal = {"a": np.zeros(2), "b": np.zeros(3)}
    assert refused(tensors.common_size, unequal) == (
        Code.INVALID_ARGUMENT,
        "Batching Run() input tensors must have equal 0th-dimension size",
    )


def test_B4_other_dimensions_must_agree_without_padding():
    code, message = refused(
        tensors.merge, [{"h": np.zeros([1, 2])}, {"h": np.zeros([1, 3])}], PLAIN
    )
    assert code == Code.FAILED_PRECONDITION
    assert message.startswith(
        "Tensors with name 'h' from different tasks have different shapes and padding is turned "
        "off. Set pad_variable_length_inputs to true"
    )


def test_B4_padding_repeats_the_first_element_of_the_tensor():
    merged = tensors.merge(
        [{"h": np.array([[5, 6], [7, 8]])}, {"h": np.array([[1, 2, 3, 4]])}], PADDED
    )
    # That of the whole tensor, not of the row.
    assert merged["h"].tolist() == [[5, 6, 5, 5], [7, 8, 5, 5], [1, 2, 3, 4]]
    texts = tensors.merge([{"h": strings([b"a\0", b"b"])}, {"h": strings([b"c"] * 3)}], PADDED)
    assert texts["h"].tolist() == [[b"a\0", b"b", b"a\0"], [b"c"] * 3]


def test_B4_padding_of_several_dimensions():
    merged = tensors.merge([{"h": np.full([1, 1, 3], 4)}, {"h": np.full([1, 2, 1], 9)}], PADDED)
    assert merged["h"].tolist() == [[[4, 4, 4], [4, 4, 4]], [[9, 9, 9], [9, 9, 9]]]
    assert merged["h"].shape == (2, 2, 3)


def test_B4_nothing_can_be_repeated_of_an_empty_tensor():
    empty, some = {"h": np.zeros([1, 0])}, {"h": np.zeros([1, 2])}
    assert refused(tensors.merge, [some, empty], PADDED) == (
        Code.INVALID_ARGUMENT,
        "Got empty tensor in batch of non-empty tensors.",
    )
    without_rows = {"h": np.zeros([0, 1])}
    assert tensors.merge([some, without_rows], PADDED)["h"].shape == (1, 2)


def test_B4_ranks_must_agree_even_with_padding():
    code, message = refused(tensors.merge, [{"h": np.zeros([1, 1])}, {"h": np.zeros([1])}], PADDED)
    assert code == Code.INVALID_ARGUMENT
    assert "'h' from different tasks have different ranks" in message


def test_B5_a_batch_is_filled_up_with_the_first_row_of_the_last_request():
    parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(8,))
    first, last = {"a": np.array([1, 2])}, {"a": np.array([3, 4, 5])}
    merged = tensors.merge([first, last], parameters)
    assert merged["a"].tolist() == [1, 2, 3, 4, 5, 3, 3, 3]


def test_B5_the_rows_of_each_request_come_back():
    outputs = {"y": np.arange(16).reshape(8, 2)}
    one, other = tensors.split(outputs, [2, 3], 8)
    assert one["y"].tolist() == [[0, 1], [2, 3]]
    assert other["y"].tolist() == [[4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(7), "Batched output tensor's 0th dimension does not equal the sum of the 0th"),
        (np.float32(1), "Batched output tensor has 0 dimensions"),
    ],
    ids=["other-size", "rank-0"],
)
def test_B5_an_output_must_have_a_row_for_each_that_went_in(array, message):
    good = {"y": np.zeros(8)}
    code, found = refused(tensors.split, good | {"z": array}, [2, 3], 8)
    assert code == Code.FAILED_PRECONDITION
    assert found.startswith(message)


def test_divided_requests_are_joined_again():
    whole = {"y": np.arange(7), "z": strings(*[[str(i).encode()] for i in range(7)])}
    joined = tensors.join(tensors.divide(whole, [1, 4, 2]))
    assert joined["y"].tolist() == whole["y"].tolist()
    assert joined["z"].tolist() == whole["z"].tolist()
    parts = [{"y": np.zeros([1, 2])}, {"y": np.zeros([1, 3])}]
    assert refused(tensors.join, parts)[0] == Code.INTERNAL
