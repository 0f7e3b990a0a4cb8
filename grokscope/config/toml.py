"""RunConfigs from TOML files."""

import dataclasses
import errno
import stat
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from grokscope.config.presets import get
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.errors import GrokscopeError

LARGEST_TEXT = 2**25
"""In characters, of a table or a TOML file: a table of the largest order needs 18 million."""


def read(path: Path, without: Collection[str] = ()) -> RunConfig:
    """Read a RunConfig from a TOML file; its top-level key ``preset`` names what it starts from.

    ``task.table = "@FILE"`` stands for the text of a file beside it. The settings `without`, by dotted name, are left
    as if the file did not have them. Raise one GrokscopeError that names the TOML file and every fault in it.
    """
    values = _lacking(read_toml(path), without)
    if "sweep" in values:
        raise GrokscopeError(f"{path} is a sweep, not a run; `grokscope sweep {path}` trains it.")
    try:
        base = get(values.pop("preset")) if "preset" in values else RunConfig()
        return from_dict(with_table(values, path.parent), base)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def _lacking(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return nested values without those of some dotted names."""
    deeper = {key: [name.removeprefix(f"{key}.") for name in names if name.startswith(f"{key}.")] for key in values}
    return {
        key: _lacking(value, deeper[key]) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in names
    }


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; raise GrokscopeError that names it if it cannot be read or is none."""
    try:
        return tomllib.loads(_text(path, "utf-8"))
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # Also for no UTF-8, and for a number of too many digits.
        raise GrokscopeError(f"{path} is no TOML file: {error}.") from error


def with_table(values: Any, folder: Path) -> Any:
    """Return a RunConfig, or the nested values of one, with the file's text where ``task.table`` is "@FILE"."""
    is_config = isinstance(values, RunConfig)
    task = values.task if is_config else values.get("task")
    name = task.table if is_config else task.get("table") if isinstance(task, dict) else None
    if not isinstance(name, str) or not name.startswith("@"):
        return values
    path = folder / name.removeprefix("@")
    try:
        text = _text(path, "utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise GrokscopeError(f"task.table: {path} cannot be read: {reason}.") from error
    if is_config:
        return dataclasses.replace(values, task=dataclasses.replace(values.task, table=text))
    return {**values, "task": {**values["task"], "table": text}}


def _text(path: Path, encoding: str) -> str:
    """Return a file's text; raise OSError if it is no regular file, which may have no end, or larger than allowed."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a directory or a device, and no file")
    with open(path, encoding=encoding) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST_TEXT:,} characters, which is the most that is read")
    return text
