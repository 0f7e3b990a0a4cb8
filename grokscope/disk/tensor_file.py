"""safetensors files that notice damage: every file of numbers that grokscope writes.

safetensors itself has no checksum: of 1,500 flipped bits 1,472 loaded without a word. So each file carries

- ``checksums``: CRC-32 of the bytes of each tensor, in the order of the sorted names; a tensor named in the
  metadata's ``by_row`` has one for each row, so that one row can be read and checked alone;
- ``structure``: one CRC-32 over the metadata and all names, dtypes, shapes and checksums.

They are checked on every read, for what is read.
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
_OWN = ("checksums", "structure")
_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "bool": "BOOL", "uint8": "U8"}
"""NumPy's names of the types that a file may hold, and safetensors' names of them."""


def write(path: Path, tensors: Arrays, metadata: Mapping[str, Any], by_row: tuple[str, ...] = ()) -> None:
    """Write tensors and JSON-able metadata atomically; a name that starts with one of `by_row` is checked by row.

    Raise GrokscopeError for an I/O error; the file is then as it was before.
    """
    # The format is little-endian.
    arrays = {name: np.asarray(one, one.dtype.newbyteorder("<"), order="C") for name, one in sorted(tensors.items())}
    if other := [name for name, array in arrays.items() if array.dtype.name not in _DTYPES]:
        raise GrokscopeError(
            f"{path} cannot hold {other[0]} of type {arrays[other[0]].dtype}; allowed: {', '.join(_DTYPES)}."
        )
    rowwise = [name for name in arrays if by_row and name.startswith(by_row)]
    checksums = [crc for name, array in arrays.items() for crc in _checksums(array, name in rowwise)]
    about = {"metadata": json.dumps(dict(metadata), sort_keys=True), "by_row": json.dumps(rowwise)}
    arrays["checksums"] = np.array(checksums, np.int64)
    arrays["structure"] = np.array([_structure(about, _layout(arrays), arrays["checksums"])], np.int64)
    # The largest elements first, as safetensors itself does: each tensor is then aligned to its own.
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    atomic.write_atomic(path, _header(arrays, about), *(_bytes(array) for array in arrays.values()))


class TensorFile:
    """A file that `write` wrote, opened for reading; what is not read is not loaded.

    Raise GrokscopeError that names the file if it is none, is cut short, or its structure is damaged; UnreadableError if
    the system refuses to read it.
    """

    def __init__(self, path: Path):
        self.path = path
        _require_regular(path)
        try:
            with safetensors.safe_open(path, "np") as file:
                about = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in list(file.keys())}
                layout = [(name, one.get_dtype(), list(one.get_shape())) for name, one in sorted(slices.items())]
                self._checksums = file.get_tensor("checksums")
                structure = file.get_tensor("structure")
            if structure.tolist() != [_structure(about, layout, self._checksums)]:
                raise GrokscopeError(f"{path} is damaged: its structure does not match its checksum.")
            self.structure = int(structure[0])
            """The checksum over names, types, shapes, metadata and all checksums; a copy has the same."""
            self.metadata: dict[str, Any] = json.loads(about["metadata"])
            self._by_row = set(json.loads(about["by_row"]))
            self.dtypes = {name: dtype for name, dtype, _ in layout if name not in _OWN}
            """safetensors' name of each tensor's type."""
            self.shapes = {name: tuple(shape) for name, _, shape in layout if name not in _OWN}
            self._first_checksum, position = {}, 0
            for name, shape in self.shapes.items():
                self._first_checksum[name] = position
                position += shape[0] if name in self._by_row else 1
            # Its checksum may be right and the file still be none: whoever forges one works it out anew.
            if (
                not isinstance(self.metadata, dict)
                or self._checksums.shape != (position,)
                or self._checksums.dtype != np.int64
                or not self._by_row <= set(self.shapes)
                or not set(self.dtypes.values()) <= set(_DTYPES.values())
            ):
                raise ValueError("its parts do not belong together")
        except (
            *(safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, IndexError, RecursionError),
            OverflowError,
        ) as error:
            raise GrokscopeError(f"{path} cannot be read as a safetensors file of grokscope's: {error}.") from error

    def read(self, name: str, rows: list[int] | None = None) -> np.ndarray:
        """Return a tensor, or the given rows of one that is checked by row; checksums are compared first.

        Raise DamagedError that names file, tensor and row where they differ.
        """
        return self.read_all([name], rows)[name]

    def read_all(self, names: Iterable[str], rows: list[int] | None = None) -> dict[str, np.ndarray]:
        """Return several tensors, or the same rows of each, as `read` does, in one opening of the file."""
        found = self._load(names, rows)
        for name, row in self._mismatches(found, rows):
            where = "" if row is None else f" (row {row})"
            raise DamagedError(f"{self.path} is damaged: {name}{where} does not match its checksum.")
        return found

    def mismatches(self, names: Iterable[str], rows: list[int]) -> list[tuple[str, int | None]]:
        """Read the same rows of several tensors and return (tensor, row) for each checksum that does not match."""
        return list(self._mismatches(self._load(names, rows), rows))

    def damage(self) -> Iterator[tuple[str, int | None]]:
        """Read everything and yield (tensor, row or None) for each checksum that does not match."""
        with self._opened() as file:
            for name in self.shapes:
                yield from self._mismatches({name: file.get_tensor(name)}, None)

    def is_by_row(self, name: str) -> bool:
        """Whether a tensor is checked row by row."""
        return name in self._by_row

    def checksums(self, name: str) -> list[int]:
        """Return the stored checksums of a tensor, one for each row if it is checked by row."""
        first = self._first_checksum[name]
        return self._checksums[first : first + (self.shapes[name][0] if name in self._by_row else 1)].tolist()

    def _load(self, names: Iterable[str], rows: list[int] | None) -> dict[str, np.ndarray]:
        with self._opened() as file:
            if rows is None:
                return {name: file.get_tensor(name) for name in names}
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: np.concatenate([one[first:last] for first, last in _ranges(rows)])
                for name, one in slices.items()
            }

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with safetensors.safe_open(self.path, "np") as file:
                yield file
        except (safetensors.SafetensorError, OSError) as error:
            raise GrokscopeError(f"{self.path} cannot be read: {error}.") from error

    def _mismatches(self, found: Arrays, rows: list[int] | None) -> Iterator[tuple[str, int | None]]:
        for name, array in found.items():
            by_row, stored = name in self._by_row, self.checksums(name)
            wanted = range(len(stored)) if rows is None else rows
            for row, crc in zip(wanted, _checksums(array, by_row), strict=True):
                if stored[row] != crc:
                    yield name, row if by_row else None


def _require_regular(path: Path) -> None:
    """Raise GrokscopeError for what is no regular file, which a reader might wait for without end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            is_regular = stat.S_ISREG(os.fstat(file).st_mode)
        finally:
            os.close(file)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}.") from error
    if not is_regular:
        raise GrokscopeError(f"{path} is no regular file, so none of grokscope's.")


def _ranges(rows: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of consecutive numbers as half-open ranges: a run is read at once."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield rows[start], rows[i - 1] + 1
            start = i


def _checksums(array: np.ndarray, by_row: bool) -> list[int]:
    return [zlib.crc32(_bytes(row)) for row in (array if by_row else [array])]


def _bytes(array: np.ndarray | np.generic) -> memoryview:
    """Return the bytes of an array in C order, without a copy: safetensors' own `save` makes two of each tensor."""
    return np.reshape(array, -1).view(np.uint8).data


def _header(arrays: Arrays, about: Mapping[str, str]) -> bytes:
    """Return what comes before the tensors in a safetensors file: the size of a JSON object, and the object itself.

    It says which bytes are whose, in the order of `arrays`, and is padded so that they begin at a multiple of 8.
    """
    entries: dict[str, Any] = {"__metadata__": dict(about)}
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
    layout = [(name, _DTYPES[array.dtype.name], list(array.shape)) for name, array in arrays.items()]
    return sorted([*layout, ("structure", "I64", [1])])


def _structure(about: Mapping[str, str], layout: list[tuple[str, str, list[int]]], checksums: np.ndarray) -> int:
    text = json.dumps([dict(sorted(about.items())), [list(entry) for entry in layout]])
    return zlib.crc32(checksums.tobytes(), zlib.crc32(text.encode()))
