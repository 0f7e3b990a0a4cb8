"""The workers of a sweep: each cell trains in its own process, in parallel by joblib, locally or on a Ray cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import joblib

from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Cell, Sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR
from grokscope.threads import usable_cores
from grokscope.training import ensemble_settings, train_ensemble
from grokscope.training.signals import InterruptedRunError, deferred_signals

BACKENDS = ("local", "ray")
MOST_ATTEMPTS = 3
"""The attempts at a cell whose process crashes."""


def run_sweep(
    plan: Sweep,
    folder: Path,
    *,
    jobs: int | None = None,
    backend: str = "local",
    retry: bool = False,
    allow_drift: bool = False,
    ensemble: int = 1,
) -> dict[str, str]:
    """Train the cells of a sweep that are left, and return the reasons of failed cells, by name.

    New and unfinished cells are trained. Finished cells, cells that another process trains, and cells that cannot be
    read are skipped. A signal reaches the cells, which commit and stop. If this process dies, its cells commit and
    stop too.

    Args:
        plan: The sweep, or a shard of it.
        folder: The sweep's folder, with the record that `sweep_folder.save` wrote.
        jobs: The number of cells, or ensembles, at a time; by default one per core (on Ray, of the cluster).
        backend: "local" for processes on this machine, "ray" for a Ray cluster.
        retry: Whether to train failed cells again.
        allow_drift: Whether to continue cells whose environment has changed; each run records the change.
        ensemble: The most cells that train together in one program (see `group_cells`); 1 trains each alone.

    Raises:
        GrokscopeError: The backend is unknown or not installed.
        InterruptedRunError: A signal stopped the sweep, after the cells have committed.
    """
    grouped = group_cells(plan, ensemble, folder)
    remaining = [cells for cells in grouped if any(_needs_training(cell, folder, retry) for cell in cells)]
    most_jobs = max(len(remaining), 1)
    require_backend(backend)
    if backend == "ray":
        with joblib.parallel_config(backend="ray"):
            reasons = joblib.Parallel(n_jobs=min(jobs, most_jobs) if jobs else -1)(
                joblib.delayed(train_cells)(cells, folder.resolve(), allow_drift) for cells in remaining
            )
        return _merged(reasons)
    jobs = jobs or usable_cores()
    with deferred_signals() as interrupted:
        # Threads are enough: each waits for a process.
        reasons = joblib.Parallel(n_jobs=min(jobs, most_jobs), backend="threading")(
            joblib.delayed(train_cells)(cells, folder, allow_drift, interrupted) for cells in remaining
        )
        if interrupted():
            raise InterruptedRunError(folder, interrupted())
    return _merged(reasons)


def require_backend(backend: str) -> None:
    """Register a backend with joblib; raise GrokscopeError if it is unknown or not installed."""
    if backend not in BACKENDS:
        raise GrokscopeError(f"backend: {backend!r}; allowed: {' or '.join(map(repr, BACKENDS))}.")
    if backend == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise GrokscopeError(
                "backend: 'ray' is not installed; `pip install 'grokscope[ray]'` adds it."
            ) from error
        register_ray()


def group_cells(plan: Sweep, n: int, folder: Path) -> list[list[Cell]]:
    """Return the cells in groups of up to `n` that train in one ensemble; a cell that cannot join one is alone.

    A cell that has started stays with the cells it started with, so that it resumes exactly, also if `n` has changed
    or the sweep has grown.

    Args:
        plan: The sweep.
        n: The most cells in a group, at least 1.
        folder: The sweep's folder.
    """
    order = {cell.name: i for i, cell in enumerate(plan.cells)}
    new = {cell.name: cell for cell in plan.cells}
    started: dict[str, dict[int, Cell]] = {}
    for cell in plan.cells:
        position = _recorded_position(cell, folder)
        if position:
            i, ensemble = position
            started.setdefault(ensemble, {})[i] = new.pop(cell.name)
    groups: list[list[Cell]] = []
    for ensemble, cells in started.items():
        complete = _complete_ensemble(ensemble, cells, list(new.values()), order)
        groups += [complete] if complete else [[cell] for cell in cells.values()]
        for cell in complete:
            new.pop(cell.name, None)
    cells_by_key: dict[str, list[Cell]] = {}
    for cell in new.values():
        is_alone = n == 1 or ensemble_settings.unsupported_settings(cell.config)
        key = cell.name if is_alone else ensemble_settings.shared_settings_digest(cell.config)
        cells_by_key.setdefault(key, []).append(cell)
    groups += [cells[i : i + n] for cells in cells_by_key.values() for i in range(0, len(cells), n)]
    return sorted(groups, key=lambda cells: order[cells[0].name])


def _recorded_position(cell: Cell, folder: Path) -> tuple[int, str] | None:
    """Return a cell's position and its ensemble (its own name if it trains alone); None if it has not started."""
    if not (folder / cell.name).is_dir():
        return None
    try:
        recorded = Record.read(folder / cell.name).environment.get("ensemble", "")
    except GrokscopeError:  # `cell_state` reports the damage.
        recorded = ""
    position = train_ensemble.POSITION.fullmatch(recorded)
    return (int(position["i"]), position["ensemble"]) if position else (1, cell.name)


def _complete_ensemble(
    ensemble: str, started: Mapping[int, Cell], new: list[Cell], order: Mapping[str, int]
) -> list[Cell]:
    """Return all cells of an ensemble that has started, in order; an empty list if the plan lacks some of them.

    A process that is killed while it makes the cells' folders leaves consecutive cells without a folder.
    """
    n = int(ensemble.partition(",")[0]) if "," in ensemble else 1
    n_missing = n - len(started)
    if not n_missing:
        return [started[i] for i in sorted(started)]
    for i in range(len(new) - n_missing + 1):
        cells = sorted([*started.values(), *new[i : i + n_missing]], key=lambda cell: order[cell.name])
        if train_ensemble.ensemble_positions([cell.config for cell in cells])[0].endswith(f" of {ensemble}"):
            return cells
    return []


def train_cells(
    cells: list[Cell], folder: Path, allow_drift: bool = False, interrupted: Callable[[], int] | None = None
) -> dict[str, str]:
    """Train a cell, or an ensemble of cells, to the end in a process with one thread.

    A process that crashes is started again, at most `MOST_ATTEMPTS` times in all. A failure that a retry repeats (an
    error of the training, or as many crashes) is recorded with `sweep_folder.mark_failed`. An I/O error is not
    recorded, so the next command tries the cell again.

    Args:
        cells: One cell, or several that `group_cells` put together.
        folder: The sweep's folder.
        allow_drift: Whether to continue cells whose environment has changed.
        interrupted: A function that returns the number of a signal that arrived, or 0.

    Returns:
        The reasons of failed cells, by name.
    """
    status, errors = 0, ""
    for _ in range(MOST_ATTEMPTS):
        if interrupted and interrupted():
            return {}
        status, output, errors = _run_process(cells, folder, allow_drift, interrupted)
        if status == 0:
            failed = json.loads(output or "{}")
            for cell in cells:
                if cell.name not in failed:
                    sweep_folder.forget_failure(cell, folder)
            return {cell.name: _mark_failed(cell, folder, failed[cell.name]) for cell in cells if cell.name in failed}
        if status == BUSY or (interrupted and interrupted()):
            return {}
        if status == IO_ERROR:
            return {cell.name: errors for cell in cells}
        if status == 1 and "Traceback" not in errors:
            return {cell.name: _mark_failed(cell, folder, errors) for cell in cells}
    end = f"was killed {MOST_ATTEMPTS} times, by signal {-status}" if status < 0 else f"failed with status {status}"
    reason = f"Its process {end}. {errors[-2000:]}".strip()
    return {cell.name: _mark_failed(cell, folder, reason) for cell in cells}


def _mark_failed(cell: Cell, folder: Path, reason: str) -> str:
    """Record a cell's failure, and return its reason in printable characters."""
    reason = "".join(character if character.isprintable() or character == "\n" else "?" for character in reason)
    try:
        sweep_folder.mark_failed(cell, folder, reason)
    except GrokscopeError as error:  # A full disk must not stop the other cells.
        reason += f" ({error})"
    return reason


def _merged(reasons: Iterable[dict[str, str] | None]) -> dict[str, str]:
    return {name: reason for by_name in reasons if by_name for name, reason in by_name.items()}


def _run_process(
    cells: list[Cell], folder: Path, allow_drift: bool, interrupted: Callable[[], int] | None
) -> tuple[int, str, str]:
    """Run a process for one cell or an ensemble to its end; return its exit status, output and standard error."""
    configs = {cell.name: cell.config.to_dict() for cell in cells}
    if len(cells) == 1:
        module, path, text = "train_cell", folder / cells[0].name, json.dumps(configs[cells[0].name])
    else:
        module, path, text = "train_group", folder, json.dumps(configs)
    # -P keeps files in the current folder from shadowing modules.
    command = [sys.executable, "-P", "-m", f"grokscope.sweep.{module}", str(path), str(os.getpid())]
    if allow_drift:
        command.append("--allow-drift")
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # One thread per small model is faster than sharing the cores, and gives the same bits everywhere.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        # In its own session, the cell gets a signal of the terminal only once, from this process.
        start_new_session=True,
        text=True,
        errors="replace",
    )
    unsent: str | None = text
    is_signalled = False
    while True:
        try:
            output, errors = process.communicate(unsent, timeout=0.2)
            return process.returncode, output, errors
        except subprocess.TimeoutExpired:
            unsent = None
            if interrupted and interrupted() and not is_signalled:
                is_signalled = True
                with suppress(ProcessLookupError):
                    process.send_signal(interrupted())


def _needs_training(cell: Cell, folder: Path, retry: bool) -> bool:
    state = sweep_folder.cell_state(cell, folder)
    return state.status in ("new", "unfinished") or (state.status == "failed" and retry and not state.is_lost)
