"""The files of an import: single files, sharded state dicts, and folders of transformers and accelerate."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokscope.errors import GrokscopeError, quoted_name, quoted_value
from grokscope.interop import safe_load

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_INDEX = ".index.json"
_IN_FOLDER = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""The files that the packages transformers and accelerate save in a folder, in the order of preference."""


@dataclass(frozen=True)
class Source:
    """A checkpoint file, or the parts of a sharded one."""

    path: Path
    """The file, for messages, its steps and its config; of a sharded state dict, the first part."""
    parts: tuple[Path, ...]
    """The files to read."""

    def read(self) -> Any:
        """Return the content of the file, or of all parts.

        Raises:
            GrokscopeError: A part cannot be read, or a name is in two parts.
        """
        if len(self.parts) == 1:
            return safe_load.read(self.parts[0])
        tensors: dict[Any, Any] = {}
        for part in self.parts:
            content = safe_load.read(part)
            twice = sorted(map(str, content.keys() & tensors.keys()))
            if twice:
                raise GrokscopeError(f"{part}: {quoted_name(twice[0])} is in another part too.")
            tensors |= content
        return tensors


def find(paths: Sequence[Path | str]) -> list[Source]:
    """Return the checkpoint files that some paths name, in their order.

    A path is a file, one part or the index of a sharded state dict, or a folder of transformers or accelerate.
    Several parts of the same state dict count once.

    Raises:
        GrokscopeError: A part of a sharded state dict is missing, or a folder contains no state dict.
    """
    sources = {}
    for path in map(Path, paths):
        source = _find(path)
        sources.setdefault(source.parts, source)
    return list(sources.values())


def _find(path: Path) -> Source:
    if path.is_dir():
        name = next((name for name in _IN_FOLDER if (path / name).is_file()), None)
        if name is None:
            raise GrokscopeError(
                f"{quoted_value(str(path))} is a folder without {', '.join(_IN_FOLDER[1::2])}. Name its files."
            )
        path = path / name
    if path.name.endswith(_INDEX):
        return _sharded(path, _parts_of_index(path))
    if match := _SHARD.fullmatch(path.name):
        n_parts = int(match[3])
        names = [f"{match[1]}-{i:05d}-of-{match[3]}{match[4]}" for i in range(1, min(n_parts, 10_000) + 1)]
        return _sharded(path, names)
    return Source(path, (path,))


def _sharded(path: Path, names: list[str]) -> Source:
    parts = tuple(path.parent / name for name in names)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise GrokscopeError(
            f"{path} belongs to a state dict of {len(parts)} parts, of which {len(missing)} are missing, such as "
            f"{quoted_name(missing[0])}. Put all parts in one folder."
        )
    return Source(parts[0], parts)


def _parts_of_index(path: Path) -> list[str]:
    """Return the names of the files in an index, each once."""
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise GrokscopeError(f"{path} is not the index of a sharded state dict.") from error
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise GrokscopeError(f"{path} names files outside its folder; allowed: names of files beside it.")
    return names
