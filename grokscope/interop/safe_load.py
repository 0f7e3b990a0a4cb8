"""Read checkpoint files of other programs without running code from them.

``torch.load(weights_only=True)`` refuses code. It does not refuse a file that takes exponential time or more memory
than it stores, or that two zip readers read differently. This module adds four checks:

- One reading: ``zipfile`` finds the parts, and torch reads a new archive that contains only the checked parts.
- Sizes: limits on the file and its pickle, and on the size that its parts unpack to.
- Pickle: only names that a state dict needs, a limited number of instructions, and no huge nested tuples.
- Result: no tensor is larger than its storage, no storage is larger than the file, and nothing repeats without end.
"""

import io
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch

from grokscope.errors import GrokscopeError, quoted_value

SUFFIXES = (".safetensors", ".pt", ".pth")
LARGEST_FILE = 2**32
LARGEST_PICKLE = 2**24
MOST_TENSORS = 200_000
MOST_VALUES = 1_000_000
"""Values in a file, and instructions in its pickle: twice what 400 checkpoints of a one-layer transformer need."""
_LARGEST_TUPLE = 10_000
"""Nested elements and characters: hashing a tuple that contains the same tuple twice, 60 deep, takes years."""
_PART = re.compile(
    r"data\.pkl|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|data/\d+"
)
"""The parts that torch.save writes; a TorchScript program contains others."""
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")
_INERT_NAMES = {
    *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype", "_codecs inert_"),
    "transformer_lens.HookedTransformerConfig HookedTransformerConfig",
    "transformer_lens.config.hooked_transformer_config HookedTransformerConfig",
    "transformer_lens.config.HookedTransformerConfig HookedTransformerConfig",
}
"""The names that `Inert` replaces: TransformerLens' Grokking_Demo also saves its config and numpy losses."""
_NAMES = _INERT_NAMES | {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"),
    *("torch device", "torch Size", *(f"torch {dtype}" for dtype in _DTYPES)),
    *(f"torch {storage}Storage" for storage in _STORAGES),
}
"""The names that a pickle may contain. torch itself allows more, such as bytearray, which allocates any size."""
_ALLOWED = "Allowed: tensors, numbers, strings, lists and dicts."


class Inert:
    """An object without code, in place of an object of another program.

    Attributes:
        values: The fields of the object that are numbers, texts, booleans or None, by name.
    """

    def __new__(cls, *arguments: object) -> "Inert":
        """Return an object without fields for any arguments."""
        inert = super().__new__(cls)
        inert.values = {}
        return inert

    values: dict[str, str | int | float | bool | None]

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.values = {
                name: value
                for name, value in state.items()
                if isinstance(name, str) and isinstance(value, str | int | float | bool | None)
            }


class _Archive(io.FileIO):
    """A file that refuses a large read while zipfile reads its directory, which may have millions of entries."""

    is_open = False

    def read(self, size: int | None = -1) -> bytes:
        if not self.is_open and size and size > LARGEST_PICKLE:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes")
        return super().read(size)


def read(path: Path) -> Any:
    """Return the content of a checkpoint file: a state dict, or the lists and dicts that torch.save stored.

    No code of the file runs. A .pt or .pth file takes memory of about twice its size while it is read.

    Args:
        path: A .safetensors, .pt or .pth file of at most `LARGEST_FILE` bytes.

    Returns:
        Tensors, numbers, strings, lists and dicts, nested as in the file. An `Inert` replaces each object of
        TransformerLens or numpy.

    Raises:
        GrokscopeError: The file cannot be read, is damaged or too large, contains other objects, or claims more
            bytes than it stores. The message names the file.
    """
    if path.suffix not in SUFFIXES:
        raise GrokscopeError(f"{quoted_value(str(path))} is not a checkpoint file. Allowed: {', '.join(SUFFIXES)}.")
    try:
        if not path.is_file():
            raise GrokscopeError(f"{quoted_value(str(path))} is not a file.")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise GrokscopeError(f"{path} has {size:,} bytes; allowed: up to {LARGEST_FILE:,}.")
        content = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _read_archive(path)
    except OSError as error:
        raise GrokscopeError(f"{quoted_value(str(path))} cannot be read: {error.strerror or error}.") from error
    except safetensors.SafetensorError as error:
        raise GrokscopeError(f"{path} is not a readable safetensors file: {error}.") from error
    _require_stored(content, path, size)
    return content


def _read_archive(path: Path) -> Any:
    if torch.__version__ < "2.10":  # A TorchVersion, which compares as a version.
        raise GrokscopeError(
            f"{path}: torch {torch.__version__} cannot read {path.suffix} files safely (CVE-2026-24747). "
            "Install torch 2.10 or newer, or save the file as .safetensors."
        )
    inert: list[Any] = [(Inert, name.replace(" ", ".")) for name in _INERT_NAMES]
    try:
        with _Archive(path) as file:
            if not zipfile.is_zipfile(file):
                raise GrokscopeError(
                    f"{path} is not a complete archive as torch.save writes it since torch 1.6. If it is older, save "
                    "it again with a newer torch or as .safetensors; if not, copy it again."
                )
            copy = _checked_copy(file, path)
        with torch.serialization.safe_globals(inert), warnings.catch_warnings(action="ignore"):
            return torch.load(copy, map_location="cpu", weights_only=True)
    except (GrokscopeError, OSError):
        raise
    except UnpicklingError as error:  # Its message recommends weights_only=False.
        raise GrokscopeError(f"{path} contains other objects; nothing in it was run. {_ALLOWED}") from error
    except Exception as error:  # zipfile, pickletools and torch raise many types for a damaged file.
        raise GrokscopeError(
            f"{path} is damaged: {type(error).__name__} {quoted_value(str(error)[:120])}."
        ) from error


def _checked_copy(file: _Archive, path: Path) -> io.BytesIO:
    """Return an archive in memory with the checked parts of a file."""
    copied = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copied, "w") as copy:
        file.is_open = True
        parts = [(part.filename.partition("/")[2], part) for part in archive.infolist()]
        for name, count in Counter(name for name, _ in parts).items():
            if count > 1 or not _PART.fullmatch(name):
                reason = "contained twice" if count > 1 else "not part of a state dict"
                raise GrokscopeError(f"{path}: {quoted_value(name)} is {reason}; nothing in it was run.")
        unpacked, size = sum(part.file_size for _, part in parts), path.stat().st_size
        if unpacked > size:
            raise GrokscopeError(f"{path} has {size:,} bytes and claims {unpacked:,}; torch.save does not compress.")
        for name, part in parts:
            data = _checked_pickle(archive, part, path) if name == "data.pkl" else archive.read(part)
            copy.writestr(f"archive/{name}", data)
    copied.seek(0)
    return copied


def _checked_pickle(archive: zipfile.ZipFile, part: zipfile.ZipInfo, path: Path) -> bytes:
    """Return the archive's pickle; raise GrokscopeError if it is too long, or has a foreign name or a huge tuple."""
    if part.file_size > LARGEST_PICKLE:
        raise GrokscopeError(f"{path} has a pickle of {part.file_size:,} bytes; allowed: up to {LARGEST_PICKLE:,}.")
    # torch would call encode(), some of whose codecs take hours; the bytes that it makes are not needed.
    pickled = archive.read(part).replace(b"c_codecs\nencode\n", b"c_codecs\ninert_\n")
    # torch's stack, with each object replaced by its number of nested elements.
    sizes: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for i, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if i >= MOST_VALUES:
            raise GrokscopeError(f"{path} has a pickle of more than {MOST_VALUES:,} instructions.")
        if opcode.name == "GLOBAL" and argument not in _NAMES:
            name = quoted_value(str(argument).replace(" ", "."))
            raise GrokscopeError(f"{path} contains {name}; nothing in it was run. {_ALLOWED}")
        if opcode.name == "MARK":
            marks.append(len(sizes))
        elif opcode.name.endswith("PUT"):
            memo[argument] = sizes[-1]
        elif opcode.name.endswith("GET"):
            sizes.append(memo[argument])
        else:
            taken = opcode.stack_before
            has_mark = pickletools.markobject in taken
            start = marks.pop() - taken.index(pickletools.markobject) if has_mark else len(sizes) - len(taken)
            size = len(argument) if isinstance(argument, str) else 1
            if "TUPLE" in opcode.name and (size := 1 + sum(sizes[start:])) > _LARGEST_TUPLE:
                raise GrokscopeError(f"{path} contains a tuple of more than {_LARGEST_TUPLE:,} nested elements.")
            sizes[start:] = [size] * len(opcode.stack_after)
    return pickled


def _require_stored(content: Any, path: Path, file_size: int) -> None:
    """Raise GrokscopeError for a tensor larger than its storage or the file, and for too many values."""
    waiting: list[tuple[object, Any]] = [("", content)]
    n_values = n_nested = n_bytes = 0
    while waiting:
        name, value = waiting.pop()
        n_nested += 1
        if isinstance(value, torch.Tensor):
            n_bytes += value.nbytes
            claimed = max(value.nbytes, value.untyped_storage().nbytes())
            if claimed > min(value.untyped_storage().nbytes(), file_size):
                raise GrokscopeError(
                    f"{path}: tensor {quoted_value(name)} claims {claimed:,} bytes, and the file stores fewer. "
                    "Save a clone of the tensor."
                )
        elif isinstance(value, dict | list | tuple):
            n_values += len(value)
            items = value.items() if isinstance(value, dict) else ((name, item) for item in value)
            waiting += [pair for pair in items if isinstance(pair[1], torch.Tensor | dict | list | tuple)]
        if n_values > MOST_VALUES or n_nested > MOST_TENSORS or n_bytes > LARGEST_FILE:
            raise GrokscopeError(
                f"{path} contains too much, counting repeated objects each time. Allowed: {MOST_VALUES:,} values, of "
                f"which {MOST_TENSORS:,} tensors, lists and dicts, in {LARGEST_FILE:,} bytes."
            )
