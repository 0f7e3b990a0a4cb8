"""Archives that torch.save writes: where each part lies, if there is but one way to read that.

A zip archive has a directory at its end and a header before each part, and readers differ in where they look for the
directory and in what they believe: Python's zipfile takes the one that lies before the end, torch the one whose place
the end states. What one of them has checked would then not be what the other loads. So parts are given only where all
that is said agrees: they lie one behind the other from the first byte on, then the directory, then the end.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from grokscope.errors import GrokscopeError

_HEADER = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LONG_END = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
MOST_PARTS = 2**18
_LONGEST_NAME = 512
_SIZES_FOLLOW, _UTF8 = 1 << 3, 1 << 11
_FOLDER = 1 << 4
"""Torch takes a part with it for empty, and its numbers from memory that nobody wrote."""
_SUMS = (struct.Struct("<4s3I"), struct.Struct("<4sI2Q"))
"""What may lie behind a part, and repeats its checksum and sizes; no reader needs it."""


@dataclass(frozen=True)
class Part:
    """Where the bytes of a part lie in its archive, and their checksum."""

    start: int
    size: int
    crc: int


def parts(file: BinaryIO, path: Path) -> dict[str, Part]:
    """Return the parts of an archive by name, in its order.

    Raise GrokscopeError that names `path` if it is not one as torch.save writes it, whole and with nothing added, has
    more than `MOST_PARTS`, or has one compressed or twice.
    """
    size = file.seek(0, os.SEEK_END)
    n, n_bytes, first = _directory(file, path, size)
    if n > MOST_PARTS or n_bytes > n * (_ENTRY.size + _LONGEST_NAME):
        raise GrokscopeError(f"{path} lists {n:,} parts in {n_bytes:,} bytes; allowed: up to {MOST_PARTS:,}.")
    file.seek(first)
    directory = file.read(n_bytes)
    found: dict[str, Part] = {}
    at = free = 0
    for _ in range(n):
        _require(at + _ENTRY.size <= n_bytes, path)
        entry = _ENTRY.unpack_from(directory, at)
        mark, _, _, flags, method, _, _, crc, packed, unpacked, n_name, n_extra, n_comment, disk, _, kind, offset = (
            entry
        )
        name = directory[at + _ENTRY.size : at + _ENTRY.size + n_name]
        at += _ENTRY.size + n_name
        _require(mark == b"PK\1\2" and not (n_extra or n_comment or disk or kind & _FOLDER), path)
        if method or flags & ~(_SIZES_FOLLOW | _UTF8):
            raise GrokscopeError(f"{path} is compressed, as torch.save leaves no file; refused unread.")
        _require(packed == unpacked and offset == free, path)
        sums = (crc, packed, unpacked)
        file.seek(offset)
        start = offset + _before(file.read(_HEADER.size + n_name), path, name, (flags, method), sums)
        file.seek(start + unpacked)
        behind = file.read(_SUMS[1].size)
        n_behind = next((one.size for one in _SUMS if behind.startswith(one.pack(b"PK\7\x08", *sums))), 0)
        _require(bool(n_behind) or not (flags & _SIZES_FOLLOW and unpacked), path)
        free = start + unpacked + n_behind
        _require(free <= first, path)
        if (text := name.decode()) in found:
            raise GrokscopeError(f"{path} holds {text} twice; refused unread.")
        found[text] = Part(start, unpacked, crc)
    _require(at == n_bytes and free == first, path)
    return found


def _directory(file: BinaryIO, path: Path, size: int) -> tuple[int, int, int]:
    """Return how many parts the directory lists, its bytes and its place, which the archive's end states."""
    file.seek(max(0, size - _LONG_END.size - _LOCATOR.size - _END.size))
    tail = file.read()
    _require(len(tail) >= _END.size, path)
    _, _, _, _, n, n_bytes, first, _ = _END.unpack(tail[-_END.size :])
    long = b""
    if tail[-_END.size - _LOCATOR.size :].startswith(b"PK\6\7"):
        _require(len(tail) == _LONG_END.size + _LOCATOR.size + _END.size, path)
        _, _, made, needed, _, _, _, n, n_bytes, first = _LONG_END.unpack(tail[: _LONG_END.size])
        long = _LONG_END.pack(b"PK\6\6", _LONG_END.size - 12, made, needed, 0, 0, n, n, n_bytes, first)
        long += _LOCATOR.pack(b"PK\6\7", 0, size - len(tail), 1)
    short = min(n, 2**16 - 1), min(n_bytes, 2**32 - 1), min(first, 2**32 - 1)
    end = long + _END.pack(b"PK\5\6", 0, 0, short[0], *short, 0)
    _require(tail.endswith(end) and first + n_bytes + len(end) == size, path)
    return n, n_bytes, first


def _before(header: bytes, path: Path, name: bytes, how: tuple[int, int], sums: tuple[int, int, int]) -> int:
    """Return the bytes before a part, which begin with this header, if it says of it what the directory says."""
    _require(len(header) == _HEADER.size + len(name), path)
    mark, _, flags, method, _, _, *said, n_name, n_extra = _HEADER.unpack(header[: _HEADER.size])
    known = tuple(said) == sums or (flags & _SIZES_FOLLOW and not any(said))
    _require(mark == b"PK\3\4" and (flags, method) == how and n_name == len(name) and bool(known), path)
    _require(header[_HEADER.size :] == name, path)
    return len(header) + n_extra


def _require(agrees: bool, path: Path) -> None:
    if not agrees:
        raise GrokscopeError(
            f"{path} is no archive as torch.save writes it, or no longer whole: what it says of its parts is not "
            f"what it holds; refused unread."
        )
