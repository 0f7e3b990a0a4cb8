"""A sweep's folder: its record, and the state of each cell."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokscope.config import RunConfig, from_dict
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_names import IS_NAME
from grokscope.store.run_store import Record, RunStore
from grokscope.sweep.plan import Cell, Sweep

FORMAT = 1
BUSY, IO_ERROR = 75, 74
"""Exit statuses of a cell's process: EX_TEMPFAIL and EX_IOERR of sysexits.h."""
_RECORD, _FAILURES = "sweep.json", "failures"


@dataclass(frozen=True)
class State:
    """The state of a cell, read from its files."""

    status: str
    """"new", "unfinished", "finished", "failed", or "running" in any process."""
    step: int
    """The last committed step, from which training can continue."""
    reason: str = ""
    """The reason of a failure."""
    is_lost: bool = False
    """Whether every retry fails until the cell's folder is moved away."""

    @property
    def condition(self) -> str:
        """The status, or "diverged" if the cell failed because a number was not finite."""
        return "diverged" if self.status == "failed" and "not finite" in self.reason else self.status


def load(folder: Path, varies: Iterable[str] = ()) -> Sweep:
    """Return the sweep that is stored in a folder.

    Args:
        folder: The sweep's folder.
        varies: The dotted names of settings that must vary in the sweep.

    Raises:
        GrokscopeError: The folder is not a sweep, its record is damaged, or a setting does not vary.
    """
    path = folder / _RECORD
    if not path.is_file():
        raise GrokscopeError(f"{folder} is not a sweep: it has no {_RECORD}. `grokscope sweep SWEEP.toml` makes one.")
    try:
        values = json.loads(path.read_bytes())
        if values["format"] > FORMAT:
            raise GrokscopeError(f"{path} has format {values['format']}; this grokscope reads up to {FORMAT}.")
        if values.pop("digest") != _digest(values):
            raise GrokscopeError(f"{path} is damaged or was edited: it does not match its digest.")
        cells = [Cell(item["name"], item["settings"], _config(path, item["config"])) for item in values["cells"]]
        if not all(IS_NAME.fullmatch(cell.name) and isinstance(cell.settings, dict) for cell in cells):
            raise ValueError("the name or the settings of a cell are invalid")
        plan = Sweep(tuple(cells), str(values["about"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GrokscopeError(f"{path} is damaged: it does not contain a sweep ({error}).") from error
    missing = [name for name in varies if name not in plan.axes]
    if missing:
        raise GrokscopeError(f"{folder} does not vary {', '.join(missing)}; it varies {', '.join(plan.axes)}.")
    return plan


def _config(path: Path, values: Mapping[str, Any]) -> RunConfig:
    try:
        return from_dict(values)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def save(sweep: Sweep, folder: Path) -> None:
    """Write a sweep's record into its folder; raise GrokscopeError as `require_compatible` does.

    Cells of an earlier record that are not in this sweep stay in the folder as runs.
    """
    require_compatible(sweep, folder)
    cells = [
        {"name": cell.name, "settings": dict(cell.settings), "config": cell.config.to_dict()} for cell in sweep.cells
    ]
    record = {"format": FORMAT, "about": sweep.about, "cells": cells}
    atomic.make_folder(folder)
    text = json.dumps({**record, "digest": _digest(record)}, ensure_ascii=False)
    atomic.write_atomic(folder / _RECORD, text.encode())


def require_compatible(sweep: Sweep, folder: Path) -> None:
    """Raise GrokscopeError if the folder is a run, or a cell in it has other settings or more steps than planned."""
    if (folder / "config.json").exists():
        raise GrokscopeError(f"{folder} is a run, not a sweep; choose another --run name.")
    conflicts = [cell.name for cell in sweep.cells if _conflicts(cell, folder)]
    if conflicts:
        raise GrokscopeError(
            f"{folder} has {len(conflicts)} cells of these names with other settings or more steps, such as "
            f"{conflicts[0]}. Choose another --run name."
        )


def cell_state(cell: Cell, folder: Path) -> State:
    """Return the state of a cell in the sweep's folder, from its files alone."""
    step = 0
    try:
        if (folder / cell.name).is_dir():
            try:
                run = RunStore(folder / cell.name)
            except GrokscopeError as error:
                return State("failed", 0, str(error), is_lost=not isinstance(error.__cause__, OSError))
            if run.record.config.digest != cell.config.digest:
                return State("failed", 0, f"{run.folder} has other settings than the sweep.", is_lost=True)
            step = run.last_step
            has_stopped = run.stopped is not None and run.stopped.step == step
            if step >= cell.config.n_steps or has_stopped:
                return State("finished", step)
            if is_locked(run.folder):
                return State("running", step)
        mark = _mark(folder, cell)
        if mark.is_file():
            return State("failed", step, str(json.loads(mark.read_bytes())["reason"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return State("failed", step, str(error))
    return State("unfinished" if (folder / cell.name).is_dir() else "new", step)


def finished_cells(plan: Sweep, folder: Path) -> list[Cell]:
    """Return the finished cells; raise GrokscopeError without any."""
    cells = [cell for cell in plan.cells if cell_state(cell, folder).status == "finished"]
    if not cells:
        raise GrokscopeError(f"{folder} has no finished cell yet. `grokscope sweep SWEEP.toml` continues it.")
    return cells


def mark_failed(cell: Cell, folder: Path, reason: str) -> None:
    """Record that a cell failed, and the reason; `forget_failure` removes the record."""
    atomic.make_folder(folder / _FAILURES)
    atomic.write_atomic(_mark(folder, cell), json.dumps({"reason": reason}, ensure_ascii=False).encode())


def forget_failure(cell: Cell, folder: Path) -> None:
    """Remove the record that `mark_failed` wrote."""
    atomic.remove_file(_mark(folder, cell))


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _mark(folder: Path, cell: Cell) -> Path:
    return folder / _FAILURES / f"{cell.name}.json"


def _conflicts(cell: Cell, folder: Path) -> bool:
    """Return whether the cell's folder contains a run with other settings or more steps."""
    if not (folder / cell.name).is_dir():
        return False
    try:
        recorded = Record.read(folder / cell.name).config
    except GrokscopeError:
        return False  # A damaged cell does not conflict: `cell_state` reports its damage.
    return recorded.digest != cell.config.digest or recorded.n_steps > cell.config.n_steps
