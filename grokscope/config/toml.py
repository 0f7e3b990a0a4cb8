"""Read RunConfigs from TOML files."""

import dataclasses
import errno
import stat
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from grokscope.config import unused
from grokscope.config.presets import get
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.errors import GrokscopeError

LARGEST_TEXT = 2**25
"""The largest text of a table or TOML file, in characters. The largest table needs 18 million."""


def read(path: Path) -> RunConfig:
    """Read a valid RunConfig from a TOML file.

    Args:
        path: The file. Its top-level key ``preset`` names the config that provides all other settings. The value
            ``task.table = "@FILE"`` is replaced by the text of FILE, relative to the folder of the TOML file, and so
            is ``task.data``.

    Raises:
        GrokscopeError: The file cannot be read, or a setting is invalid or changed without effect. One error names
            the file and every fault.
    """
    config, given = read_settings(path)
    try:
        return config.validate(given)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def read_settings(path: Path, without: Collection[str] = ()) -> tuple[RunConfig, set[str]]:
    """Read a RunConfig from a TOML file, and the dotted names of the settings that the file changes.

    Args:
        path: The file, as in `read`.
        without: The dotted names of settings that are ignored in the file.

    Raises:
        GrokscopeError: As `read`, but a setting may have no effect.
    """
    values = _without_settings(read_toml(path), without)
    if "sweep" in values:
        raise GrokscopeError(f"{path} is a sweep, not a run; `grokscope sweep {path}` trains it.")
    try:
        base = get(values.pop("preset")) if "preset" in values else RunConfig()
        config = from_dict(load_table_file(values, path.parent), base)
        return config, unused.changed_in(values, config)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values in a TOML file; raise GrokscopeError that names a file that cannot be read."""
    try:
        return tomllib.loads(_read_text(path, "utf-8"))
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
    # Invalid UTF-8 and a number of too many digits are a ValueError too.
    except (ValueError, RecursionError) as error:
        raise GrokscopeError(f"{path} is not a TOML file: {error}.") from error


def load_table_file(values: Any, folder: Path) -> Any:
    """Return a config whose ``task.table = "@FILE"`` and ``task.data = "@FILE"`` are replaced by the content of FILE.

    Args:
        values: A RunConfig, or the nested values of a RunConfig.
        folder: The folder that FILE is relative to.

    Raises:
        GrokscopeError: FILE cannot be read. The error names the setting and the file.
    """
    is_config = isinstance(values, RunConfig)
    task = values.task if is_config else values.get("task")
    for name, read_content in (("table", _read_table), ("data", _read_examples)):
        text = getattr(task, name) if is_config else task.get(name) if isinstance(task, dict) else None
        if isinstance(text, str) and text.startswith("@"):
            content = {name: read_content(folder / text.removeprefix("@"))}
            if is_config:
                return dataclasses.replace(values, task=dataclasses.replace(values.task, **content))
            return {**values, "task": {**values["task"], **content}}
    return values


def _read_examples(path: Path) -> str:
    from grokscope.config import own_data  # It needs NumPy, which `--help` does without.

    return own_data.read_file(path)


def _read_table(path: Path) -> str:
    """Return the text of a table's file; raise GrokscopeError that names the setting and the file."""
    try:
        return _read_text(path, "utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise GrokscopeError(f"task.table: {path} cannot be read: {reason}.") from error


def _without_settings(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return nested values without the settings of these dotted names."""
    remaining = {}
    for key, value in values.items():
        if key in names:
            continue
        deeper = [name.removeprefix(f"{key}.") for name in names if name.startswith(f"{key}.")]
        remaining[key] = _without_settings(value, deeper) if isinstance(value, dict) else value
    return remaining


def _read_text(path: Path, encoding: str) -> str:
    """Return the text of a regular file; raise OSError for another kind of file or for too large a file."""
    # A device or a pipe may never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a directory or a device, not a file")
    with open(path, encoding=encoding) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST_TEXT:,} characters, the largest size allowed")
    return text
