"""Tensor files: exact round trips, and detection of every kind of damage."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.shared import flip, place

from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError

DTYPES = ["float32", "float64", "int64", "int32", "bool", "uint8"]
CONTENT = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name not in ("checksums", "structure", "__metadata__")),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=4,
)


def example() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "rows/a": generator.standard_normal((5, 3, 4)).astype(np.float32),
        "rows/b": generator.standard_normal((5, 2)).astype(np.float32),
        "whole": generator.standard_normal(7),
        "empty": np.empty((0, 5)),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two tensors that are checked by row, one that is checked as a whole, and an empty one."""
    path = tmp_path / "file.safetensors"
    tensor_file.write(path, example(), {"about": ["∘", 1]}, by_row=("rows/",))
    return path


@given(CONTENT, st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_round_trip_is_exact(tmp_path_factory: Any, content: dict[str, np.ndarray], metadata: dict):
    path = tmp_path_factory.mktemp("content") / "file.safetensors"
    tensor_file.write(path, content, metadata)
    file = tensor_file.TensorFile(path)
    assert file.metadata == metadata
    assert file.shapes == {name: array.shape for name, array in content.items()}
    for name, array in content.items():
        copy = file.read(name)
        assert copy.dtype == array.dtype and copy.shape == array.shape and copy.tobytes() == array.tobytes()
    assert list(file.damage()) == []


def test_file_is_valid_for_safetensors(path: Path):
    tensors = safetensors.numpy.load_file(path)
    for name, array in example().items():
        assert np.array_equal(tensors[name], array)


@pytest.mark.parametrize("rows", [[0], [4], [1, 2, 3], [4, 0, 2, 2], [0, 1, 3, 4]])
def test_rows_are_read_in_the_requested_order(path: Path, rows: list[int]):
    file, expected = tensor_file.TensorFile(path), example()
    assert np.array_equal(file.read("rows/a", rows), expected["rows/a"][rows])
    tensors = file.read_all(["rows/b", "rows/a"], rows)
    assert all(np.array_equal(tensors[name], expected[name][rows]) for name in ("rows/a", "rows/b"))


def test_arrays_in_any_memory_order_round_trip(tmp_path: Path):
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    tensor_file.write(tmp_path / "file", {"a": array}, {})
    assert np.array_equal(tensor_file.TensorFile(tmp_path / "file").read("a"), array)


def test_big_endian_arrays_are_stored_little_endian(tmp_path: Path):
    tensor_file.write(tmp_path / "file", {"a": np.arange(4, dtype=">f8"), "b": np.arange(3, dtype=">i4")}, {})
    assert tensor_file.TensorFile(tmp_path / "file").read("a").tolist() == [0, 1, 2, 3]
    assert safetensors.numpy.load_file(tmp_path / "file")["b"].tolist() == [0, 1, 2]


def test_one_dimensional_tensor_is_checked_by_row(tmp_path: Path):
    tensor_file.write(tmp_path / "file", {"a": np.arange(5.0)}, {}, by_row=("a",))
    flip(tmp_path / "file", 8 * (place(tmp_path / "file", "a")[0] + 8 * 3))
    assert list(tensor_file.TensorFile(tmp_path / "file").damage()) == [("a", 3)]


def test_each_tensor_is_aligned_to_its_element_size(tmp_path: Path):
    sizes = {"bool": 3, "float32": 5, "float64": 1, "int32": 7, "int64": 1, "uint8": 1}
    content = {f"{i} {name}": np.ones(n, name) for i, (name, n) in enumerate(sizes.items())}
    tensor_file.write(tmp_path / "file", content, {"about": "∘"})
    for name, array in content.items():
        assert place(tmp_path / "file", name)[0] % array.itemsize == 0, name


@pytest.mark.parametrize("row", range(5))
def test_damaged_row_is_named_and_other_rows_are_readable(path: Path, row: int):
    first, _ = place(path, "rows/a")
    flip(path, 8 * (first + 48 * row + 17) + 3)
    file = tensor_file.TensorFile(path)
    assert list(file.damage()) == [("rows/a", row)]
    intact = [i for i in range(5) if i != row]
    assert np.array_equal(file.read("rows/a", intact), example()["rows/a"][intact])
    assert np.array_equal(file.read("rows/b"), example()["rows/b"])
    for rows in (None, [row], [0, row]):
        with pytest.raises(GrokscopeError, match=rf"{path} is damaged: rows/a \(row {row}\)"):
            file.read_all(["rows/b", "rows/a"], rows)


def test_damaged_whole_tensor_is_named(path: Path):
    flip(path, 8 * place(path, "whole")[0])
    assert list(tensor_file.TensorFile(path).damage()) == [("whole", None)]
    with pytest.raises(GrokscopeError, match=f"{path} is damaged: whole does not match"):
        tensor_file.TensorFile(path).read("whole")


def is_detected(path: Path) -> bool:
    """Return whether opening or reading the whole file detects damage, as a GrokscopeError that names the file."""
    try:
        return bool(list(tensor_file.TensorFile(path).damage()))
    except GrokscopeError as error:
        return str(path) in str(error)


@pytest.mark.parametrize("n_flips", [1_000, pytest.param(None, marks=pytest.mark.slow)], ids=["1000", "every"])
def test_every_flipped_bit_is_detected(path: Path, n_flips: int | None):
    data = path.read_bytes()
    bits = range(8 * len(data))
    for bit in random.Random(0).sample(bits, n_flips) if n_flips else bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert is_detected(path), f"bit {bit} of byte {bit // 8}"


def test_truncated_or_lengthened_file_is_detected(path: Path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert is_detected(path), f"cut to {length} bytes"
    path.write_bytes(data + b"\0")
    assert is_detected(path)


def test_overwritten_or_repeated_bytes_are_detected(path: Path):
    data, generator = path.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        start, length = generator.randrange(len(data)), generator.randrange(1, 40)
        source = generator.choice([bytes(length), generator.randbytes(length), data[:length], data[-length:]])
        damaged[start : start + length] = source
        path.write_bytes(damaged)
        assert damaged == data or is_detected(path)


class Bomb:
    """The content of a malicious pickle: unpickling it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\0" * 4096,
        b"PK\x03\x04" + bytes(100),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        safetensors.numpy.save({"a": np.zeros(3)}),
        safetensors.numpy.save({"a": np.zeros(3)}, {"metadata": "{}", "by_row": "[]"}),
        safetensors.numpy.save(
            {"checksums": np.zeros(0, np.int64), "structure": np.zeros(1, np.int64)},
            {"metadata": "{}", "by_row": "[]"},
        ),
    ],
    ids=[
        "nothing",
        "eight zeros",
        "zeros",
        "a zip",
        "a size bomb",
        "no tensors",
        "a list",
        "a deep list",
        "foreign safetensors",
        "foreign safetensors with our metadata",
        "a wrong checksum",
    ],
)
def test_foreign_file_is_refused_with_its_path(data: bytes, tmp_path: Path):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(data)
    with pytest.raises(GrokscopeError, match=str(path)):
        tensor_file.TensorFile(path)


def test_pickle_is_refused_and_not_executed(tmp_path: Path):
    path = tmp_path / "pickle.safetensors"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "bang")))
    with pytest.raises(GrokscopeError, match=str(path)):
        tensor_file.TensorFile(path)
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize("name", ["none.safetensors", "."])
def test_missing_file_or_folder_is_refused_with_its_path(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=str(tmp_path / name)):
        tensor_file.TensorFile(tmp_path / name)


def test_file_truncated_after_opening_is_refused_on_read(path: Path):
    file = tensor_file.TensorFile(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GrokscopeError, match=str(path)):
        file.read("whole")
