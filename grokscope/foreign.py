"""Files of others: checkpoints that other programs saved, read without running anything that is in them.

A ``.pt`` file is a zip archive of raw numbers and one pickle, and a pickle is a program. So it is first looked
through, instruction by instruction, with none of them carried out (`_storages`): it may only put tensors, numbers,
texts, lists and dicts together, and each tensor's numbers must lie in the archive, at the size that is claimed. Only
what passes reaches ``torch.load(weights_only=True)``, which is a second guard and is never called without it.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import safetensors
import torch

from grokscope.errors import GrokscopeError
from grokscope.fields import shown

SUFFIXES = (".safetensors", ".pt", ".pth")
LARGEST_FILE = 2**32
LARGEST_PICKLE = 2**24
MOST_INSTRUCTIONS = 1_000_000
"""About twice what 400 checkpoints of a transformer of one layer and their losses need."""
MOST_TENSORS = 200_000

_PART = re.compile(
    r"[^/\\]+/(data\.pkl|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|data/[0-9]+)"
)
"""What torch puts into an archive of tensors; a model saved as a program, TorchScript, has other parts too."""
_ITEM_BYTES = {
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8},
    **{"IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1},
}
_HARMLESS = {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"),
    *("torch device", "torch Size", *(f"torch {name}" for name in _ITEM_BYTES)),
    *(f"torch {name}" for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")),
}
"""What a pickle may name, and torch calls."""
_INERT = {
    *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype", "_codecs encode"),
    "transformer_lens.HookedTransformerConfig HookedTransformerConfig",
    "transformer_lens.config.hooked_transformer_config HookedTransformerConfig",
    "transformer_lens.config.HookedTransformerConfig HookedTransformerConfig",
}
"""What a pickle may name, and an `_Inert` stands in for: TransformerLens' Grokking_Demo saves its config as well."""
_CONSTANTS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
    *("SHORT_BINSTRING", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"),
}
_CLOSING = {"TUPLE", "APPENDS", "SETITEMS"}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BUILD": 1, "REDUCE": 2, "NEWOBJ": 2}
_LARGEST_TUPLE = 10_000
"""In elements of elements: tuples of one tuple twice, 60 deep, take ages to hash, and are told by it."""
_MARK, _THING = object(), object()


class _Inert:
    """What stands in for an object that is of no use here: it takes whatever it is given and keeps nothing."""

    def __new__(cls, *arguments: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class _Name:
    """A name in a pickle, "module name": what it stands for is never looked up."""

    text: str


@dataclass(frozen=True)
class _Tuple:
    """A tuple in a pickle, with the number of elements of its elements."""

    items: tuple[Any, ...]
    size: int


def read(path: Path) -> Any:
    """Return what a file of tensors holds: a dict of them, or whatever lists and dicts of them torch has saved.

    Raise GrokscopeError that names the file if it is none, is too large or damaged, holds anything but tensors,
    numbers, texts, lists and dicts, or claims more bytes than it has. Nothing in it is run, nothing unpacked.
    """
    if path.suffix not in SUFFIXES:
        raise GrokscopeError(f"{shown(str(path))} is no file of tensors; allowed: {', '.join(SUFFIXES)}.")
    try:
        if not path.is_file():
            raise GrokscopeError(f"{shown(str(path))} is no file.")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise GrokscopeError(f"{path} has {size:,} bytes; allowed: up to {LARGEST_FILE:,}.")
        if path.suffix == ".safetensors":
            return _safetensors(path)
        with open(path, "rb") as file:
            return _torch_archive(file, path, size)
    except OSError as error:
        raise GrokscopeError(f"{shown(str(path))} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # A path with a null byte.
        raise GrokscopeError(f"{shown(str(path))} cannot be read: {error}.") from error


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                raise GrokscopeError(f"{path} holds {len(names):,} tensors; allowed: up to {MOST_TENSORS:,}.")
            return {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise GrokscopeError(f"{path} cannot be read as a safetensors file: {error}.") from error


def _torch_archive(file: BinaryIO, path: Path, size: int) -> Any:
    if file.read(4) != b"PK\x03\x04":
        raise GrokscopeError(
            f"{path} is no archive that torch.save writes since version 1.6; nothing of it was run. Save it again "
            f"with a newer torch, or as .safetensors."
        )
    try:
        names = _require_harmless(file, path, size)
        file.seek(0)
        inert: list[Any] = [(_Inert, name.replace(" ", ".")) for name in names & _INERT]
        with torch.serialization.safe_globals(inert):
            return torch.load(file, map_location="cpu", weights_only=True)
    except GrokscopeError:
        raise
    # torch and zipfile say in many ways that a file is damaged; what they advise is not for a stranger's file.
    except Exception as error:
        reason = "" if isinstance(error, UnpicklingError) else (str(error).splitlines() or [""])[0][:120]
        raise GrokscopeError(f"{path} is damaged: {type(error).__name__} {shown(reason)}.") from error


def _require_harmless(file: BinaryIO, path: Path, size: int) -> set[str]:
    """Look through an archive and return every name in its pickle; raise GrokscopeError for anything unusual."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if odd := [one.filename for one in parts if not _PART.fullmatch(one.filename)]:
            raise GrokscopeError(f"{path} holds {shown(odd[0])}, which is no part of a file of tensors; refused.")
        roots = {one.filename.split("/")[0] for one in parts}
        names = [one.filename for one in parts]
        if len(roots) != 1 or len(set(names)) != len(names) or roots & {".", ".."}:
            raise GrokscopeError(f"{path} holds a part twice, or parts of two files; refused.")
        if any(one.compress_type != zipfile.ZIP_STORED or one.flag_bits & 1 for one in parts):
            raise GrokscopeError(f"{path} is compressed, as torch.save leaves no file; refused unread.")
        if (claimed := sum(one.file_size for one in parts)) > size:
            raise GrokscopeError(f"{path} claims {claimed:,} bytes and has {size:,}; refused unread.")
        (root,) = roots
        there = {one.filename.removeprefix(f"{root}/data/"): one.file_size for one in parts}
        pickled = archive.getinfo(f"{root}/data.pkl")
        if pickled.file_size > LARGEST_PICKLE:
            raise GrokscopeError(
                f"{path} describes its tensors in {pickled.file_size:,} bytes; allowed: up to {LARGEST_PICKLE:,}."
            )
        data = archive.read(pickled)
    named: set[str] = set()
    storages: dict[str, int] = {}
    for kind, found in _found(data, path):
        if kind == "name":
            named.add(found)
        else:
            key, n_bytes = found
            storages[key] = n_bytes
            if there.get(key) != n_bytes:
                raise GrokscopeError(f"{path} claims {n_bytes:,} bytes for {shown(key)}, which it has not; refused.")
    if len(storages) > MOST_TENSORS:
        raise GrokscopeError(f"{path} holds {len(storages):,} tensors; allowed: up to {MOST_TENSORS:,}.")
    return named


def _found(data: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ("name", "module name") and ("storage", (key, bytes)) for all that a pickle names and refers to.

    It is followed on a stack of what is known without carrying anything out: names, texts, numbers and tuples of
    them; all else is a thing. Raise GrokscopeError for what is not among `_HARMLESS` and `_INERT`, and for an
    instruction that no saved tensor needs.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def taken(n: int) -> list[Any]:
        if n > len(stack) or any(one is _MARK for one in stack[len(stack) - n :]):
            raise GrokscopeError(f"{path} is damaged: its pickle takes what is not there.")
        last = stack[len(stack) - n :]
        del stack[len(stack) - n :]
        return last

    for i, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        name = instruction.name
        if i >= MOST_INSTRUCTIONS:
            raise GrokscopeError(f"{path} has a pickle of more than {MOST_INSTRUCTIONS:,} instructions; refused.")
        if name in _CONSTANTS:
            stack.append(argument if isinstance(argument, int | str) else _THING)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1] if stack else _THING
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_TUPLE":
            stack.append(_Tuple((), 1))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            text = str(argument)
            if text not in _HARMLESS | _INERT:
                raise GrokscopeError(
                    f"{path} holds {shown(text.replace(' ', '.'))}, which is no tensor; nothing of it was run. "
                    f"Allowed: tensors, numbers, texts, lists and dicts."
                )
            yield "name", text
            stack.append(_Name(text))
        elif name == "BINPERSID":
            yield "storage", _storage(taken(1)[0], path)
            stack.append(_THING)
        elif name in _CLOSING or name in _TAKES:
            n = _TAKES[name] if name in _TAKES else len(stack) - 1 - _last_mark(stack, path)
            items = taken(n)
            if name in _CLOSING:
                stack.pop()
            if name.startswith("TUPLE"):
                size = sum(one.size if isinstance(one, _Tuple) else 1 for one in items)
                if size > _LARGEST_TUPLE:
                    raise GrokscopeError(f"{path} holds tuples within tuples without end; refused.")
                stack.append(_Tuple(tuple(items), size))
            elif name in ("REDUCE", "NEWOBJ"):
                _require_a_call(items, path)
                stack.append(_THING)
        elif name not in ("PROTO", "STOP"):
            raise GrokscopeError(
                f"{path} has a pickle with {name}, which no saved tensor needs; nothing of it was run."
            )


def _last_mark(stack: list[Any], path: Path) -> int:
    for i in range(len(stack) - 1, -1, -1):
        if stack[i] is _MARK:
            return i
    raise GrokscopeError(f"{path} is damaged: its pickle closes what it never opened.")


def _storage(reference: Any, path: Path) -> tuple[str, int]:
    """Return the key and the bytes that a reference to numbers in the archive claims."""
    items = reference.items if isinstance(reference, _Tuple) else ()
    if len(items) == 5 and items[0] == "storage" and isinstance(items[1], _Name) and isinstance(items[2], str):
        n_item = _ITEM_BYTES.get(items[1].text.removeprefix("torch "))
        if n_item is not None and type(items[4]) is int and items[4] >= 0:
            return items[2], items[4] * n_item
    raise GrokscopeError(f"{path} refers to numbers in a way that torch.save does not; nothing of it was run.")


def _require_a_call(items: list[Any], path: Path) -> None:
    """Raise GrokscopeError unless what is called is one of the names, and the one codec is that of bytes."""
    called, given = items
    is_codec = isinstance(called, _Name) and called.text == "_codecs encode"
    if not isinstance(called, _Name) or (
        is_codec and not (isinstance(given, _Tuple) and given.items[1:] == ("latin1",))
    ):
        raise GrokscopeError(f"{path} calls what is no tensor; nothing of it was run.")
