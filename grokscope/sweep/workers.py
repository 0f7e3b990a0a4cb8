"""The workers of a sweep: each cell in a process of its own, side by side by joblib, here or on a Ray cluster."""

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
from grokscope.training import ensemble as training_ensemble
from grokscope.training import train_ensemble
from grokscope.training.signals import InterruptedRunError, deferred_signals

BACKENDS = ("local", "ray")
MOST_ATTEMPTS = 3
"""A cell whose process dies is tried again twice."""


def run(
    plan: Sweep,
    folder: Path,
    *,
    jobs: int | None = None,
    backend: str = "local",
    retry: bool = False,
    allow_drift: bool = False,
    ensemble: int = 1,
) -> dict[str, str]:
    """Do what is left of a sweep in its folder, which `sweep.save` has made; return why cells failed, by name.

    Finished cells and those that some other process trains are left alone, cells that failed too unless `retry`, and
    those that are lost; the others are trained or gone on with, `jobs` at a time (by default one for each core; on
    Ray, one for each of the cluster's). With an `ensemble` above 1, up to that many cells that are alike train in one
    program (see `groups`). A signal is passed on to the cells, which commit, and then raises InterruptedRunError. When this
    process dies, its cells commit and stop by themselves. Raise GrokscopeError for a backend that is not there.
    """
    grouped = groups(plan, ensemble, folder)
    left = [cells for cells in grouped if any(_is_left(cell, folder, retry) for cell in cells)]
    most = max(len(left), 1)
    require(backend)
    if backend == "ray":
        with joblib.parallel_config(backend="ray"):
            reasons = joblib.Parallel(n_jobs=min(jobs, most) if jobs else -1)(
                joblib.delayed(run_cells)(cells, folder.resolve(), allow_drift) for cells in left
            )
        return _failures(reasons)
    jobs = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1
    with deferred_signals() as interrupted:
        # Threads, since each only waits for a process of its own.
        reasons = joblib.Parallel(n_jobs=min(jobs, most), backend="threading")(
            joblib.delayed(run_cells)(cells, folder, allow_drift, interrupted) for cells in left
        )
        if interrupted():
            raise InterruptedRunError(folder, interrupted())
    return _failures(reasons)


def require(backend: str) -> None:
    """Make a backend ready; raise GrokscopeError for one that is unknown or not installed."""
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


def groups(plan: Sweep, n: int, folder: Path) -> list[list[Cell]]:
    """Return the cells in groups of up to `n` that can train in one ensemble, or alone if they cannot.

    A cell that has begun stays with those it began with, or alone, so that it goes on exactly whatever `n` is now and
    however the sweep has grown since.
    """
    order = {cell.name: i for i, cell in enumerate(plan.cells)}
    new = {cell.name: cell for cell in plan.cells}
    begun: dict[str, dict[int, Cell]] = {}
    for cell in plan.cells:
        place = _place(cell, folder)
        if place:
            i, ensemble = place
            begun.setdefault(ensemble, {})[i] = new.pop(cell.name)
    found: list[list[Cell]] = []
    for ensemble, cells in begun.items():
        whole = _whole(ensemble, cells, list(new.values()), order)
        found += [whole] if whole else [[cell] for cell in cells.values()]
        for cell in whole:
            new.pop(cell.name, None)
    alike: dict[str, list[Cell]] = {}
    for cell in new.values():
        key = (
            cell.name if n == 1 or training_ensemble.faults(cell.config) else training_ensemble.likeness(cell.config)
        )
        alike.setdefault(key, []).append(cell)
    found += [cells[i : i + n] for cells in alike.values() for i in range(0, len(cells), n)]
    return sorted(found, key=lambda cells: order[cells[0].name])


def _place(cell: Cell, folder: Path) -> tuple[int, str] | None:
    """Return a cell's recorded place and ensemble, its name if it began alone, and None if it has not begun."""
    if not (folder / cell.name).is_dir():
        return None
    try:
        recorded = Record.read(folder / cell.name).environment.get("ensemble", "")
    except GrokscopeError:  # `sweep.state` says what is wrong.
        recorded = ""
    place = train_ensemble.PLACE.fullmatch(recorded)
    return (int(place["i"]), place["ensemble"]) if place else (1, cell.name)


def _whole(ensemble: str, begun: Mapping[int, Cell], new: list[Cell], order: Mapping[str, int]) -> list[Cell]:
    """Return all cells of an ensemble, in order, of which some have begun; none if some are in the plan no more.

    A process that is killed while it makes the folders leaves some of its cells new, which follow each other.
    """
    n = int(ensemble.partition(",")[0]) if "," in ensemble else 1
    n_missing = n - len(begun)
    if not n_missing:
        return [begun[i] for i in sorted(begun)]
    for i in range(len(new) - n_missing + 1):
        cells = sorted([*begun.values(), *new[i : i + n_missing]], key=lambda cell: order[cell.name])
        if train_ensemble.places([cell.config for cell in cells])[0].endswith(f" of {ensemble}"):
            return cells
    return []


def run_cells(
    cells: list[Cell], folder: Path, allow_drift: bool = False, interrupted: Callable[[], int] | None = None
) -> dict[str, str]:
    """Train a cell, or several in one ensemble, to the end in a process with one thread; return why cells failed.

    A process that dies is tried again, at most twice. What would be the same again (a cell's own reason, or three
    deaths) is noted with `sweep.mark_failed`; an I/O error is not, so that the next command tries again.
    """
    status, said = 0, ""
    for _ in range(MOST_ATTEMPTS):
        if interrupted and interrupted():
            return {}
        status, printed, said = _process(cells, folder, allow_drift, interrupted)
        if status == 0:
            failed = json.loads(printed or "{}")
            for cell in cells:
                if cell.name not in failed:
                    sweep_folder.forget_failure(cell, folder)
            return {cell.name: _marked(cell, folder, failed[cell.name]) for cell in cells if cell.name in failed}
        if status == BUSY or (interrupted and interrupted()):
            return {}
        if status == IO_ERROR:
            return {cell.name: said for cell in cells}
        if status == 1 and "Traceback" not in said:
            return {cell.name: _marked(cell, folder, said) for cell in cells}
    how = f"died {MOST_ATTEMPTS} times, by signal {-status}" if status < 0 else f"failed with status {status}"
    reason = f"Its process {how}. {said[-2000:]}".strip()
    return {cell.name: _marked(cell, folder, reason) for cell in cells}


def _marked(cell: Cell, folder: Path, reason: str) -> str:
    reason = "".join(one if one.isprintable() or one == "\n" else "?" for one in reason)
    try:
        sweep_folder.mark_failed(cell, folder, reason)
    except GrokscopeError as error:  # It must not stop the other cells.
        reason += f" ({error})"
    return reason


def _failures(reasons: Iterable[dict[str, str] | None]) -> dict[str, str]:
    return {name: reason for found in reasons if found for name, reason in found.items()}


def _process(
    cells: list[Cell], folder: Path, allow_drift: bool, interrupted: Callable[[], int] | None
) -> tuple[int, str, str]:
    """Run a process for one cell or an ensemble to its end; return its exit status, output and standard error."""
    configs = {cell.name: cell.config.to_dict() for cell in cells}
    if len(cells) == 1:
        module, place, given = "train_cell", folder / cells[0].name, json.dumps(configs[cells[0].name])
    else:
        module, place, given = "train_group", folder, json.dumps(configs)
    # -P: what lies in the current folder is no module of ours.
    command = [sys.executable, "-P", "-m", f"grokscope.sweep.{module}", str(place), str(os.getpid())]
    process = subprocess.Popen(
        command + ["--allow-drift"] * allow_drift,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Many small models on many cores: a thread each is faster than sharing, and the same bits everywhere.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        # A signal from the terminal reaches the cell through this process alone, once.
        start_new_session=True,
        text=True,
        errors="replace",
    )
    left: str | None = given
    passed_on = False
    while True:
        try:
            printed, said = process.communicate(left, timeout=0.2)
            return process.returncode, printed, said
        except subprocess.TimeoutExpired:
            left = None
            if interrupted and interrupted() and not passed_on:
                passed_on = True
                with suppress(ProcessLookupError):
                    process.send_signal(interrupted())


def _is_left(cell: Cell, folder: Path, retry: bool) -> bool:
    state = sweep_folder.state(cell, folder)
    return state.status in ("new", "unfinished") or (state.status == "failed" and retry and not state.is_lost)
