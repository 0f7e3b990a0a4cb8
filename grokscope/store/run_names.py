"""The names of runs, and the folder of a new run. No torch here."""

import re
from pathlib import Path

from grokscope.disk import atomic
from grokscope.errors import BusyError, GrokscopeError

IS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")
"""The valid names of runs: a name is not a path and does not hide the folder."""


def checked_name(name: str) -> str:
    """Return a run's name; raise GrokscopeError if it could be a path or hide a folder."""
    if not IS_NAME.fullmatch(name):
        raise GrokscopeError(
            f"{name[:120]!r} is not a valid name for a run. Allowed: up to 100 letters, digits and _ . + = -, of "
            f"which the first is a letter, a digit or _."
        )
    return name


def valid_name(text: str) -> str:
    """Return a text as a valid name: other characters become "-", as in "my-run" for "my run"."""
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", text).lstrip("-.+=")[:90].rstrip("-") or "run"


def free_name(base: str, root: Path) -> str:
    """Return `base`, or the first of base-2, base-3, … that does not exist in `root`."""
    name, number = base, 1
    while atomic.path_exists(root / name):
        number += 1
        name = f"{base}-{number}"
    return name


def new_run_folder(root: Path, run: str | None, default: str) -> Path:
    """Return the folder of a new run, which does not exist yet.

    Args:
        root: The folder that contains the runs.
        run: The run's name; None for the first free one of default, default-2, default-3, …
        default: The name to use without `run`, such as the stem of a file; `valid_name` makes it valid.

    Returns:
        The folder root/name.

    Raises:
        GrokscopeError: The name is not valid for a run.
        BusyError: The name is taken.
    """
    name = valid_name(default) if run is None else checked_name(run)
    folder = root / (free_name(name, root) if run is None else name)
    if atomic.path_exists(folder):
        raise BusyError(
            f"{folder} already exists. Choose another name with --run, or continue that run with `grokscope resume "
            f"{folder}`."
        )
    return folder
