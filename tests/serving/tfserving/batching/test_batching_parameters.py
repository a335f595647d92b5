import pytest

from serving.tfserving.batching import parameters as batching_parameters
from serving.tfserving.batching.parameters import BatchingParameters
from serving.tfserving.status import Code, ServingError

COMPLETE = """
# as in the contract
max_batch_size { value: 128 }
batch_timeout_micros: { value: 5 }
max_enqueued_batches { value: 1000000 }
num_batch_threads { value: 8 }
thread_pool_name { value: "x" }
allowed_batch_sizes: 32 allowed_batch_sizes: 64
pad_variable_length_inputs: true
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 64 }
"""


def read(directory, text):
    file = directory / "batching.config"
    file.write_text(text)
    return batching_parameters.read(file)


def test_B1_every_field_is_read(tmp_path):
    assert read(tmp_path, COMPLETE) == BatchingParameters(
        max_batch_size=128,
        batch_timeout_micros=5,
        max_enqueued_batches=1_000_000,
        num_batch_threads=8,
        thread_pool_name="x",
        allowed_batch_sizes=(32, 64),
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=64,
    )


def test_B1_absent_fields_have_the_defaults_and_zero_is_a_value(tmp_path):
    assert read(tmp_path, "") == BatchingParameters()
    found = read(tmp_path, "batch_timeout_micros { value: 0 } max_enqueued_batches { }")
    assert (found.batch_timeout_micros, found.max_enqueued_batches) == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 5", "Error parsing text-format .*BatchingParameters in .* 1:"),
        ("max_bach_size { value: 5 }", "max_bach_size"),
        ("\n\nallowed_batch_sizes: x", "3:"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
    ],
)
def test_B1_a_mistake_is_told(tmp_path, text, message):
    with pytest.raises(ServingError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_B1_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ServingError, match="Could not read .*none: .*No such file"):
        batching_parameters.read(tmp_path / "none")
    assert batching_parameters.of_model(tmp_path) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"allowed_batch_sizes": (4, 8)},
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; "
            "expected 16",
        ),
        ({"allowed_batch_sizes": (8, 4, 16)}, "must be monotonically increasing"),
        (
            {
                "allowed_batch_sizes": (4, 16),
                "enable_large_batch_splitting": True,
                "max_execution_batch_size": 8,
            },
            "must match max_execution_batch_size; last entry was 16; expected 8",
        ),
        (
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 32},
            "max_execution_batch_size must be at most max_batch_size; was 32, not at most 16",
        ),
    ],
)
def test_B6_sizes_that_contradict_each_other(fields, message):
    with pytest.raises(ServingError, match=message):
        BatchingParameters(max_batch_size=16, **fields)


def test_B5_sizes_are_filled_up_to_the_next_allowed_one():
    parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(2, 4, 8))
    assert [parameters.filled_up(size) for size in range(9)] == [2, 2, 2, 4, 4, 8, 8, 8, 8]
    assert BatchingParameters().filled_up(5) == 5


def test_execution_size_counts_only_with_splitting():
    assert BatchingParameters(max_execution_batch_size=8).batch_size_limit == 1000
