"""Files of vectors: every type that frames write them in, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.errors import UserError
from preprocessing.values import vector_table

_FLAG = "pretrained.item_id"
_ROWS = [[1.0, 2.0], [3.5, -4.0]]


def _write(path, values, vectors):
    pq.write_table(pa.table({"value": values, "vector": vectors}), path)
    return str(path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float16()),
    ],
)
@pytest.mark.parametrize("values", [["a", "7"], [8, 7], [8.0, 7.0]])
def test_all_types_of_lists_and_values(tmp_path, kind, values):
    flat = pa.array(np.ravel(_ROWS), kind.value_type if kind.value_type != "halffloat" else None)
    if pa.types.is_float16(kind.value_type):
        flat = pa.array(np.float16(np.ravel(_ROWS)))
    offsets = pa.array([0, 2, 4], pa.int64() if pa.types.is_large_list(kind) else pa.int32())
    if pa.types.is_fixed_size_list(kind):
        vectors = pa.FixedSizeListArray.from_arrays(flat, 2)
    elif pa.types.is_large_list(kind):
        vectors = pa.LargeListArray.from_arrays(offsets, flat)
    else:
        vectors = pa.ListArray.from_arrays(offsets, flat)
    file = _write(tmp_path / "v.parquet", values, vectors)
    assert vector_table.width(file, _FLAG) == 2
    table = vector_table.read(file, _FLAG)
    assert table.values.to_pylist() == ["a" if values[0] == "a" else "8", "7"]
    assert table.vectors_VW.dtype == np.float32
    np.testing.assert_array_equal(table.vectors_VW, _ROWS)


@pytest.mark.parametrize(
    ("values", "vectors", "message"),
    [
        (["a", "b"], [[1.0, 2.0], [1.0]], "found 2 numbers in row 0 and 1 in row 1"),
        (["a", "b"], [[1.0, 2.0], None], "found 2 numbers in row 0 and 0 in row 1"),
        (["a", "b"], [[1.0, 2.0], [1.0, None]], "finite numbers in .* found nan in row 1"),
        (["a", "b"], [[1.0, 2.0], [1e39, 1.0]], "finite numbers in .* found inf in row 1"),
        (["a", "a"], [[1.0], [2.0]], "each value of .* once, found 'a' 2 times"),
        ([1, 1.0], [[1.0], [2.0]], "once, found '1' 2 times"),
        (["a", None], [[1.0], [2.0]], "a 'value' in each row of .* found none in row 1"),
        ([1.5, 2.0**60], [[1.0], [2.0]], "ids or texts in .* found 1.152921504606847e"),
        (["a"], [["x"]], "lists of floats as 'vector' in .* found list"),
        (["a"], [1.0], "lists of floats as 'vector' in .* found double"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused(tmp_path, values, vectors, message):
    with pytest.raises(UserError, match=message):
        vector_table.read(_write(tmp_path / "v.parquet", values, vectors), _FLAG)


def test_files_without_vectors_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"pretrained.item_id: expected a Parquet file .* found"):
        vector_table.width(str(tmp_path / "absent.parquet"), _FLAG)
    (tmp_path / "text.parquet").write_text("value,vector\n")
    with pytest.raises(UserError, match="found none at"):
        vector_table.width(str(tmp_path / "text.parquet"), _FLAG)
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="'value' and 'vector' in .* found id, vector"):
        vector_table.width(str(tmp_path / "other.parquet"), _FLAG)
    empty = _write(
        tmp_path / "e.parquet", pa.array([], "string"), pa.array([], pa.list_(pa.float32()))
    )
    with pytest.raises(UserError, match="a row per value in .* found none"):
        vector_table.width(empty, _FLAG)
    hollow = _write(tmp_path / "n.parquet", ["a"], pa.array([[]], pa.list_(pa.float32())))
    with pytest.raises(UserError, match="found none in the first one"):
        vector_table.width(hollow, _FLAG)
