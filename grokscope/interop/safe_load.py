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

import numpy as np
import safetensors.torch
import torch

from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop.foreign_objects import (
    Inert,
    InertArray,
    InertBytes,
    InertDict,
    InertDtype,
    InertScalar,
    module_error,
    require_no_module,
    with_numbers,
)

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar", ".npz")
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
_INERT: dict[str, Any] = {
    **{f"numpy.{core}.multiarray scalar": InertScalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray _reconstruct": InertArray for core in ("core", "_core")},
    **dict.fromkeys(("numpy ndarray", "pathlib PosixPath", "pathlib WindowsPath", "pathlib PurePosixPath"), Inert),
    **{"numpy dtype": InertDtype, "_codecs inert_": InertBytes, "collections defaultdict": InertDict},
    **dict.fromkeys(("__builtin__ set", "builtins set", "__builtin__ list", "__builtin__ dict"), Inert),
}
"""What replaces the functions and classes that a pickle may call: none of them is imported or run."""
_NAMES = {
    *_INERT,
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"),
    *("torch device", "torch Size", *(f"torch {dtype}" for dtype in _DTYPES)),
    *(f"torch {storage}Storage" for storage in _STORAGES),
}
"""The names that a pickle may call. torch itself allows more, such as bytearray, which allocates any size."""
_ALLOWED = "Allowed: tensors, numbers, strings, lists and dicts."


class _Name(int):
    """The size of a name on the stack of a pickle, or of an object of that class, with the name if it is foreign."""

    name = ""
    is_object = False


class _Archive(io.FileIO):
    """A file that refuses a large read while zipfile reads its directory, which may have millions of entries."""

    is_open = False

    def read(self, size: int | None = -1) -> bytes:
        if not self.is_open and size and size > LARGEST_PICKLE:
            raise zipfile.BadZipFile(f"a directory of {size:,} bytes")
        return super().read(size)


def read(path: Path) -> Any:
    """Return the content of a checkpoint file: a state dict, or the lists and dicts that torch.save stored.

    No code of the file runs. A file of torch.save takes memory of about twice its size while it is read.

    Args:
        path: A file of safetensors, torch.save or numpy.savez, with one of `SUFFIXES`, up to `LARGEST_FILE` bytes.

    Returns:
        Tensors, numbers, strings, lists and dicts, nested as in the file. An `Inert` replaces each object of another
        program; numpy's numbers and arrays become numbers and tensors.

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
        readers = {".safetensors": safetensors.torch.load_file, ".npz": _read_arrays}
        content = readers.get(path.suffix, _read_archive)(path)
    except OSError as error:
        raise GrokscopeError(f"{quoted_value(str(path))} cannot be read: {error.strerror or error}.") from error
    except safetensors.SafetensorError as error:
        raise GrokscopeError(f"{path} is not a readable safetensors file: {error}.") from error
    _require_stored(content, path, size)
    require_no_module(content, path)
    return with_numbers(content)


def _read_arrays(path: Path) -> dict[str, torch.Tensor]:
    """Return the arrays of an .npz file as tensors, by name."""
    try:
        with _Archive(path) as file, zipfile.ZipFile(file) as archive:
            file.is_open = True
            parts = archive.infolist()
            unpacked = sum(part.file_size for part in parts)
            if unpacked > LARGEST_FILE or len(parts) > MOST_TENSORS:
                raise GrokscopeError(f"{path} unpacks to {unpacked:,} bytes in {len(parts):,} arrays; too large.")
            arrays = {}
            for part in parts:
                with archive.open(part) as stored:
                    array = np.lib.format.read_array(stored, allow_pickle=False)
                arrays[part.filename.removesuffix(".npy")] = array.astype(array.dtype.newbyteorder("="), order="C")
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (GrokscopeError, OSError):
        raise
    except Exception as error:  # zipfile and numpy raise many types for a damaged file.
        message = quoted_value(str(error)[:120])
        raise GrokscopeError(f"{path} is not a readable .npz file of numbers: {message}.") from error


def _read_archive(path: Path) -> Any:
    if torch.__version__ < "2.10":  # A TorchVersion, which compares as a version.
        raise GrokscopeError(
            f"{path}: torch {torch.__version__} cannot read {path.suffix} files safely (CVE-2026-24747). "
            "Install torch 2.10 or newer, or save the file as .safetensors."
        )
    try:
        with _Archive(path) as file:
            if not zipfile.is_zipfile(file):
                raise GrokscopeError(
                    f"{path} is not a complete archive as torch.save writes it since torch 1.6. If it is older, save "
                    "it again with a newer torch or as .safetensors; if not, copy it again."
                )
            copy, foreign = _checked_copy(file, path)
        # torch reads Python 2's __builtin__ as builtins.
        names = {name.replace("__builtin__ ", "builtins "): kind for name, kind in {**foreign, **_INERT}.items()}
        inert: list[Any] = [(kind, name.replace(" ", ".")) for name, kind in names.items()]
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


def _checked_copy(file: _Archive, path: Path) -> tuple[io.BytesIO, dict[str, Any]]:
    """Return an archive in memory with the checked parts of a file, and what replaces its foreign classes."""
    copied, foreign = io.BytesIO(), {}
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copied, "w") as copy:
        file.is_open = True
        parts = [(part.filename.partition("/")[2], part) for part in archive.infolist()]
        if any(name.startswith("code/") for name, _ in parts):
            raise GrokscopeError(
                f"{path} is a TorchScript program; allowed: its state dict. Convert it, if you trust the file:\n"
                f"  model = torch.jit.load({path.name!r}, map_location='cpu')\n"
                f"  torch.save(model.state_dict(), {path.stem + '_state.pt'!r})"
            )
        for name, count in Counter(name for name, _ in parts).items():
            if count > 1 or not _PART.fullmatch(name):
                reason = "contained twice" if count > 1 else "not part of a state dict"
                raise GrokscopeError(f"{path}: {quoted_value(name)} is {reason}; nothing in it was run.")
        unpacked, size = sum(part.file_size for _, part in parts), path.stat().st_size
        if unpacked > size:
            raise GrokscopeError(f"{path} has {size:,} bytes and claims {unpacked:,}; torch.save does not compress.")
        for name, part in parts:
            if name == "data.pkl":
                data, foreign = _checked_pickle(archive, part, path)
            else:
                data = archive.read(part)
            copy.writestr(f"archive/{name}", data)
    copied.seek(0)
    return copied, foreign


def _checked_pickle(archive: zipfile.ZipFile, part: zipfile.ZipInfo, path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the archive's pickle, and its foreign classes.

    Raises:
        GrokscopeError: The pickle is too long, calls a foreign function, or has a huge tuple.
    """
    if part.file_size > LARGEST_PICKLE:
        raise GrokscopeError(f"{path} has a pickle of {part.file_size:,} bytes; allowed: up to {LARGEST_PICKLE:,}.")
    # torch would call encode(), some of whose codecs take hours; the bytes that it makes are not needed.
    pickled = archive.read(part).replace(b"c_codecs\nencode\n", b"c_codecs\ninert_\n")
    # torch's stack, with each object replaced by its number of nested elements.
    sizes: list[int] = []
    foreign: dict[str, Any] = {}
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for i, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if i >= MOST_VALUES:
            raise GrokscopeError(f"{path} has a pickle of more than {MOST_VALUES:,} instructions.")
        text = str(argument)
        if opcode.name == "GLOBAL" and text not in _NAMES:
            # A class whose objects are only created and filled becomes Inert; a call is refused below.
            if text.endswith("Storage"):
                raise _name_error(path, text)
            foreign[text] = Inert
            name = _Name(1)
            name.name = text
            sizes.append(name)
        elif opcode.name == "MARK":
            marks.append(len(sizes))
        elif opcode.name.endswith("PUT"):
            memo[argument] = sizes[-1]
        elif opcode.name.endswith("GET"):
            sizes.append(memo[argument])
        else:
            taken = opcode.stack_before
            has_mark = pickletools.markobject in taken
            start = marks.pop() - taken.index(pickletools.markobject) if has_mark else len(sizes) - len(taken)
            called = sizes[start] if opcode.name == "REDUCE" else 1
            if isinstance(called, _Name) and not called.is_object:
                has_module = any(key.startswith("torch.nn.modules.") for key in foreign)
                raise module_error(path) if has_module else _name_error(path, called.name)
            size = len(argument) if isinstance(argument, str) else 1
            if "TUPLE" in opcode.name and (size := 1 + sum(sizes[start:])) > _LARGEST_TUPLE:
                raise GrokscopeError(f"{path} contains a tuple of more than {_LARGEST_TUPLE:,} nested elements.")
            created = sizes[start] if opcode.name in ("NEWOBJ", "BUILD", "SETITEM", "SETITEMS") else 1
            sizes[start:] = [size] * len(opcode.stack_after)
            if isinstance(created, _Name):
                if opcode.name.startswith("SETITEM"):
                    foreign[created.name] = InertDict
                instance = _Name(size)
                instance.name, instance.is_object = created.name, True
                sizes[start] = instance
    return pickled, foreign


def _name_error(path: Path, name: str) -> GrokscopeError:
    return GrokscopeError(
        f"{path} contains {quoted_value(name.replace(' ', '.'))}; nothing in it was run. {_ALLOWED}"
    )


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
