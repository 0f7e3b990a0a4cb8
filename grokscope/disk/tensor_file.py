"""safetensors files with checksums: the format of every file of numbers that grokscope writes.

safetensors itself has no checksum: of 1,500 flipped bits, 1,472 loaded without an error. Each file therefore contains
two additional tensors:

- ``checksums``: the CRC-32 of the bytes of each tensor, in the order of the sorted names. A tensor named in the
  metadata's ``by_row`` has a checksum for each row, so that single rows can be read and checked.
- ``structure``: a CRC-32 over the metadata and all names, dtypes, shapes and checksums.

Every read checks the checksums of the data that it returns.
"""

import json
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from grokscope.disk import atomic
from grokscope.errors import DamagedError, GrokscopeError, UnreadableError

Arrays = Mapping[str, np.ndarray]
_CHECKSUM_TENSORS = ("checksums", "structure")
_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "bool": "BOOL", "uint8": "U8"}
"""The allowed types: their NumPy names and their safetensors names."""


def write(path: Path, tensors: Arrays, metadata: Mapping[str, Any], by_row: tuple[str, ...] = ()) -> None:
    """Write tensors and metadata to a file, atomically.

    Args:
        path: The file to create or replace.
        tensors: The tensors by name, of the types float32, float64, int64, int32, bool and uint8.
        metadata: JSON-able values.
        by_row: Prefixes of the names of tensors that get a checksum for each row; by default none.

    Raises:
        GrokscopeError: A type is not allowed, or writing failed; the file is then unchanged.
    """
    # The format is little-endian.
    arrays = {
        name: np.asarray(tensor, tensor.dtype.newbyteorder("<"), order="C")
        for name, tensor in sorted(tensors.items())
    }
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            allowed = ", ".join(_DTYPES)
            raise GrokscopeError(f"{path}: {name} is of type {array.dtype}. Allowed: {allowed}.")
    rowwise = [name for name in arrays if by_row and name.startswith(by_row)]
    checksums = [crc for name, array in arrays.items() for crc in _checksums(array, name in rowwise)]
    texts = {"metadata": json.dumps(dict(metadata), sort_keys=True), "by_row": json.dumps(rowwise)}
    arrays["checksums"] = np.array(checksums, np.int64)
    arrays["structure"] = np.array([_structure(texts, _layout(arrays), arrays["checksums"])], np.int64)
    # Larger elements come first, as in safetensors itself, so each tensor is aligned to its element size.
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    atomic.write_atomic(path, _header(arrays, texts), *(_bytes(array) for array in arrays.values()))


class TensorFile:
    """A file that `write` wrote, opened for reading. Tensors are loaded only when they are read.

    Attributes:
        metadata: The metadata that was written.
        dtypes: The safetensors name of each tensor's type.
        shapes: The shape of each tensor.
        structure: The checksum over names, types, shapes, metadata and all checksums. Copies of a file share it.

    Raises:
        GrokscopeError: The path is not such a file, or the file is truncated, or its structure is damaged.
        UnreadableError: The system refuses to read the file.
    """

    def __init__(self, path: Path):
        self.path = path
        _require_regular(path)
        try:
            with safetensors.safe_open(path, "np") as file:
                texts = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in list(file.keys())}
                layout = [
                    (name, tensor.get_dtype(), list(tensor.get_shape())) for name, tensor in sorted(slices.items())
                ]
                self._checksums = file.get_tensor("checksums")
                structure = file.get_tensor("structure")
            if structure.tolist() != [_structure(texts, layout, self._checksums)]:
                raise GrokscopeError(f"{path} is damaged: its structure does not match its checksum.")
            self.structure = int(structure[0])
            self.metadata: dict[str, Any] = json.loads(texts["metadata"])
            self._by_row = set(json.loads(texts["by_row"]))
            self.dtypes = {name: dtype for name, dtype, _ in layout if name not in _CHECKSUM_TENSORS}
            self.shapes = {name: tuple(shape) for name, _, shape in layout if name not in _CHECKSUM_TENSORS}
            self._first_checksum, position = {}, 0
            for name, shape in self.shapes.items():
                self._first_checksum[name] = position
                position += shape[0] if name in self._by_row else 1
            # A valid checksum proves nothing about a forged file, so check the structure too.
            if (
                not isinstance(self.metadata, dict)
                or self._checksums.shape != (position,)
                or self._checksums.dtype != np.int64
                or not self._by_row <= set(self.shapes)
                or not set(self.dtypes.values()) <= set(_DTYPES.values())
            ):
                raise ValueError("its tensors, checksums and metadata contradict each other")
        except (
            *(safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, IndexError, RecursionError),
            OverflowError,
        ) as error:
            raise GrokscopeError(f"{path} cannot be read as a safetensors file of grokscope: {error}.") from error

    def read(self, name: str, rows: list[int] | None = None) -> np.ndarray:
        """Return a tensor, or some of its rows, after comparing their checksums.

        Args:
            name: The tensor.
            rows: The rows to return, in this order; by default the whole tensor. The tensor must be `is_by_row`.

        Raises:
            DamagedError: A checksum does not match; the message names file, tensor and row.
        """
        return self.read_all([name], rows)[name]

    def read_all(self, names: Iterable[str], rows: list[int] | None = None) -> dict[str, np.ndarray]:
        """Return several tensors, or the same rows of each, as `read` does. The file is opened only once."""
        arrays = self._load(names, rows)
        for name, row in self._mismatches(arrays, rows):
            location = "" if row is None else f" (row {row})"
            raise DamagedError(f"{self.path} is damaged: {name}{location} does not match its checksum.")
        return arrays

    def mismatches(self, names: Iterable[str], rows: list[int]) -> list[tuple[str, int | None]]:
        """Read the same rows of several tensors, and return (tensor, row) for each checksum that does not match."""
        return list(self._mismatches(self._load(names, rows), rows))

    def damage(self) -> Iterator[tuple[str, int | None]]:
        """Read the whole file, and yield (tensor, row or None) for each checksum that does not match."""
        with self._open() as file:
            for name in self.shapes:
                yield from self._mismatches({name: file.get_tensor(name)}, None)

    def is_by_row(self, name: str) -> bool:
        """Return whether a tensor has a checksum for each row."""
        return name in self._by_row

    def checksums(self, name: str) -> list[int]:
        """Return the stored checksums of a tensor: one for each row if `is_by_row`, and otherwise one."""
        first = self._first_checksum[name]
        n_checksums = self.shapes[name][0] if name in self._by_row else 1
        return self._checksums[first : first + n_checksums].tolist()

    def _load(self, names: Iterable[str], rows: list[int] | None) -> dict[str, np.ndarray]:
        """Return tensors, or the same rows of each, without checking them."""
        with self._open() as file:
            if rows is None:
                return {name: file.get_tensor(name) for name in names}
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: np.concatenate([tensor[first:last] for first, last in _ranges(rows)])
                for name, tensor in slices.items()
            }

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Yield the file as safetensors opens it, and turn its errors into GrokscopeError."""
        try:
            with safetensors.safe_open(self.path, "np") as file:
                yield file
        except (safetensors.SafetensorError, OSError) as error:
            raise GrokscopeError(f"{self.path} cannot be read: {error}.") from error

    def _mismatches(self, arrays: Arrays, rows: list[int] | None) -> Iterator[tuple[str, int | None]]:
        """Yield (tensor, row or None) for each loaded tensor or row that does not match its checksum."""
        for name, array in arrays.items():
            by_row, stored = name in self._by_row, self.checksums(name)
            checked_rows = range(len(stored)) if rows is None else rows
            for row, crc in zip(checked_rows, _checksums(array, by_row), strict=True):
                if stored[row] != crc:
                    yield name, row if by_row else None


def _require_regular(path: Path) -> None:
    """Raise GrokscopeError unless the path is a regular file: reading a pipe could wait forever."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            is_regular = stat.S_ISREG(os.fstat(file).st_mode)
        finally:
            os.close(file)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}.") from error
    if not is_regular:
        raise GrokscopeError(f"{path} is not a regular file, so it is not a file of grokscope.")


def _ranges(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield each run of consecutive row numbers as a half-open range, which can be read at once."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield rows[start], rows[i - 1] + 1
            start = i


def _checksums(array: np.ndarray, by_row: bool) -> list[int]:
    """Return the CRC-32 of each row, or of the whole array."""
    return [zlib.crc32(_bytes(row)) for row in (array if by_row else [array])]


def _bytes(array: np.ndarray | np.generic) -> memoryview:
    """Return the bytes of an array in C order without a copy; safetensors' own `save` makes two copies."""
    return np.reshape(array, -1).view(np.uint8).data


def _header(arrays: Arrays, texts: Mapping[str, str]) -> bytes:
    """Return the header of a safetensors file: the size of a JSON object, and the object.

    The object contains the byte range of each tensor, in the order of `arrays`. Its padding aligns the tensors to 8
    bytes.
    """
    entries: dict[str, Any] = {"__metadata__": dict(texts)}
    position = 0
    for name, array in arrays.items():
        entries[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _layout(arrays: Arrays) -> list[tuple[str, str, list[int]]]:
    """Return name, type and shape of each tensor of a file, `structure` included, sorted by name."""
    layout = [(name, _DTYPES[array.dtype.name], list(array.shape)) for name, array in arrays.items()]
    return sorted([*layout, ("structure", "I64", [1])])


def _structure(texts: Mapping[str, str], layout: list[tuple[str, str, list[int]]], checksums: np.ndarray) -> int:
    """Return the CRC-32 over metadata, layout and checksums."""
    text = json.dumps([dict(sorted(texts.items())), [list(entry) for entry in layout]])
    return zlib.crc32(checksums.tobytes(), zlib.crc32(text.encode()))
