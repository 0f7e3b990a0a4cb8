"""Files of others: checkpoints that other programs saved, read without running anything that is in them.

A ``.pt`` file is a zip archive of raw numbers and one pickle, and a pickle is a program. So it is first looked
through, instruction by instruction, with none of them carried out (`pickles`): it may only put tensors, numbers,
texts, lists and dicts together, and each tensor's numbers must lie in the archive, at the size that is claimed. Only
what passes reaches ``torch.load(weights_only=True)``, which is a second guard and is never called without it; and it
reads what was looked through, as there is but one way to read the archive (`archives`).
"""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import safetensors
import torch

from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import pickle_scan, torch_zip

SUFFIXES = (".safetensors", ".pt", ".pth")
LARGEST_FILE = 2**32
LARGEST_PICKLE = 2**24
MOST_TENSORS = 200_000
_PART = re.compile(
    r"[^/\\]+/(data\.pkl|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|data/[0-9]+)"
)
"""What torch puts into an archive of tensors; a model saved as a program, TorchScript, has other parts too."""


class _Inert:
    """What stands in for an object that is of no use here: it takes whatever it is given and keeps nothing."""

    def __new__(cls, *arguments: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read(path: Path) -> Any:
    """Return what a file of tensors holds: a dict of them, or whatever lists and dicts of them torch has saved.

    Raise GrokscopeError that names the file if it is none, is too large or damaged, holds anything but tensors,
    numbers, texts, lists and dicts, or claims more bytes than it has. Nothing in it is run, nothing unpacked.
    """
    if path.suffix not in SUFFIXES:
        raise GrokscopeError(f"{quoted_value(str(path))} is no file of tensors; allowed: {', '.join(SUFFIXES)}.")
    try:
        if not path.is_file():
            raise GrokscopeError(f"{quoted_value(str(path))} is no file.")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise GrokscopeError(f"{path} has {size:,} bytes; allowed: up to {LARGEST_FILE:,}.")
        if path.suffix == ".safetensors":
            content = _safetensors(path)
        else:
            with open(path, "rb") as file:
                content = _torch_archive(file, path)
    except OSError as error:
        raise GrokscopeError(f"{quoted_value(str(path))} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # A path with a null byte.
        raise GrokscopeError(f"{quoted_value(str(path))} cannot be read: {error}.") from error
    _require_stored(content, path)
    return content


def _require_stored(content: Any, path: Path) -> None:
    """Raise GrokscopeError for a tensor of more numbers than are stored for it, and for what is there without end.

    What stands in several places is counted in each, as whoever goes through it meets it there.
    """
    waiting: list[tuple[object, Any]] = [("", content)]
    n_things = n_walked = n_bytes = 0
    while waiting:
        name, one = waiting.pop()
        if isinstance(one, torch.Tensor):
            n_bytes += one.nbytes
            if one.nbytes > one.untyped_storage().nbytes():
                raise GrokscopeError(
                    f"{path} claims {one.numel():,} numbers for {quoted_value(name)} and has fewer, which stand for many; "
                    f"refused. Save a clone of it."
                )
        elif isinstance(one, Mapping | list | tuple):
            n_things += len(one)
            if n_things <= pickle_scan.MOST_INSTRUCTIONS:
                named = one.items() if isinstance(one, Mapping) else ((name, each) for each in one)
                within = [pair for pair in named if isinstance(pair[1], torch.Tensor | Mapping | list | tuple)]
                n_walked += len(within)
                waiting += within
        if n_things > pickle_scan.MOST_INSTRUCTIONS or n_walked > MOST_TENSORS or n_bytes > LARGEST_FILE:
            raise GrokscopeError(
                f"{path} holds the same things again and again; allowed: {pickle_scan.MOST_INSTRUCTIONS:,} things, of "
                f"them {MOST_TENSORS:,} tensors, lists and dicts, of {LARGEST_FILE:,} bytes in all."
            )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                raise GrokscopeError(f"{path} holds {len(names):,} tensors; allowed: up to {MOST_TENSORS:,}.")
            return {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise GrokscopeError(f"{path} cannot be read as a safetensors file: {error}.") from error


def _torch_archive(file: BinaryIO, path: Path) -> Any:
    if file.read(4) != b"PK\x03\x04":
        raise GrokscopeError(
            f"{path} is no archive that torch.save writes since version 1.6; nothing of it was run. Save it again "
            f"with a newer torch, or as .safetensors."
        )
    try:
        names = _require_harmless(file, path)
        file.seek(0)
        inert: list[Any] = [(_Inert, name.replace(" ", ".")) for name in names & pickle_scan.INERT]
        with torch.serialization.safe_globals(inert):
            return torch.load(file, map_location="cpu", weights_only=True)
    except GrokscopeError:
        raise
    # torch and pickletools say in many ways that a file is damaged; what they advise is not for a stranger's file.
    except Exception as error:
        reason = "" if isinstance(error, UnpicklingError) else (str(error).splitlines() or [""])[0][:120]
        raise GrokscopeError(f"{path} is damaged: {type(error).__name__} {quoted_value(reason)}.") from error


def _require_harmless(file: BinaryIO, path: Path) -> set[str]:
    """Look through an archive and return every name in its pickle; raise GrokscopeError for anything unusual."""
    parts = torch_zip.parts(file, path)
    if odd := [name for name in parts if not _PART.fullmatch(name)]:
        raise GrokscopeError(f"{path} holds {quoted_value(odd[0])}, which is no part of a file of tensors; refused.")
    roots = {name.split("/")[0] for name in parts}
    if len(roots) != 1 or roots & {".", ".."}:
        raise GrokscopeError(f"{path} holds parts of two files, or none; refused.")
    (root,) = roots
    there = {name.removeprefix(f"{root}/data/"): part.size for name, part in parts.items()}
    pickled = parts[f"{root}/data.pkl"]
    if pickled.size > LARGEST_PICKLE:
        raise GrokscopeError(
            f"{path} describes its tensors in {pickled.size:,} bytes; allowed: up to {LARGEST_PICKLE:,}."
        )
    file.seek(pickled.start)
    data = file.read(pickled.size)
    if zlib.crc32(data) != pickled.crc:
        raise GrokscopeError(f"{path} is damaged: the checksum of its pickle is not that of what is there.")
    named: set[str] = set()
    storages: dict[str, int] = {}
    for kind, found in pickle_scan.found(data, path):
        if kind == "name":
            named.add(found)
        else:
            key, n_bytes = found
            storages[key] = n_bytes
            if there.get(key) != n_bytes:
                raise GrokscopeError(
                    f"{path} claims {n_bytes:,} bytes for {quoted_value(key)}, which it has not; refused."
                )
    if len(storages) > MOST_TENSORS:
        raise GrokscopeError(f"{path} holds {len(storages):,} tensors; allowed: up to {MOST_TENSORS:,}.")
    return named
