"""The workers of a sweep: each cell in a process of its own, side by side by joblib, here or on a Ray cluster."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import joblib

from grokscope import sweep
from grokscope.errors import GrokscopeError
from grokscope.interrupts import Interrupted, deferred_signals
from grokscope.sweep import BUSY, IO_ERROR, Cell, Sweep

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
) -> dict[str, str]:
    """Do what is left of a sweep in its folder, which `sweep.save` has made; return why cells failed, by name.

    Finished cells and those that some other process trains are left alone, cells that failed too unless `retry`;
    the others are trained or gone on with, `jobs` at a time (by default one for each core; on Ray, one for each of
    the cluster's). A signal is passed on to the cells, which commit, and then raises Interrupted. When this
    process dies, its cells commit and stop by themselves. Raise GrokscopeError for a backend that is not there.
    """
    cells = [cell for cell in plan.cells if _is_left(cell, folder, retry)]
    require(backend)
    if backend == "ray":
        with joblib.parallel_config(backend="ray"):
            reasons = joblib.Parallel(n_jobs=jobs or -1)(
                joblib.delayed(run_cell)(cell, folder.resolve(), allow_drift) for cell in cells
            )
        return _failures(cells, reasons)
    jobs = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1
    with deferred_signals() as interrupted:
        # Threads, since each only waits for a process of its own.
        reasons = joblib.Parallel(n_jobs=jobs, backend="threading")(
            joblib.delayed(run_cell)(cell, folder, allow_drift, interrupted) for cell in cells
        )
        if interrupted():
            raise Interrupted(folder, interrupted())
    return _failures(cells, reasons)


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


def run_cell(
    cell: Cell, folder: Path, allow_drift: bool = False, interrupted: Callable[[], int] | None = None
) -> str:
    """Train one cell to its end in a process with one thread; return why it failed, or nothing if it did not.

    A process that dies is tried again, at most twice. What would be the same again (the cell's own reason, or three
    deaths) is noted with `sweep.mark_failed`; an I/O error is not, so that the next command tries again.
    """
    status, said = 0, ""
    for _ in range(MOST_ATTEMPTS):
        if interrupted and interrupted():
            return ""
        status, said = _process(cell, folder, allow_drift, interrupted)
        if status == 0:
            sweep.forget_failure(cell, folder)
            return ""
        if status == BUSY or (interrupted and interrupted()):
            return ""
        if status == IO_ERROR:
            return said
        if status == 1 and "Traceback" not in said:
            return _marked(cell, folder, said)
    how = f"died {MOST_ATTEMPTS} times, by signal {-status}" if status < 0 else f"failed with status {status}"
    return _marked(cell, folder, f"Its process {how}. {said[-2000:]}".strip())


def _marked(cell: Cell, folder: Path, reason: str) -> str:
    reason = "".join(one if one.isprintable() or one == "\n" else "?" for one in reason)
    try:
        sweep.mark_failed(cell, folder, reason)
    except GrokscopeError as error:  # It must not stop the other cells.
        reason += f" ({error})"
    return reason


def _failures(cells: list[Cell], reasons: Iterable[str | None]) -> dict[str, str]:
    return {cell.name: reason for cell, reason in zip(cells, reasons, strict=True) if reason}


def _process(cell: Cell, folder: Path, allow_drift: bool, interrupted: Callable[[], int] | None) -> tuple[int, str]:
    """Run a cell's process to its end; return its exit status and what it said on standard error."""
    # -P: what lies in the current folder is no module of ours.
    command = [sys.executable, "-P", "-m", "grokscope.sweep.cell", str(folder / cell.name), str(os.getpid())]
    process = subprocess.Popen(
        command + ["--allow-drift"] * allow_drift,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Many small models on many cores: a thread each is faster than sharing, and the same bits everywhere.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        # A signal from the terminal reaches the cell through this process alone, once.
        start_new_session=True,
        text=True,
        errors="replace",
    )
    given: str | None = json.dumps(cell.config.to_dict())
    passed_on = False
    while True:
        try:
            _, said = process.communicate(given, timeout=0.2)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            given = None
            if interrupted and interrupted() and not passed_on:
                passed_on = True
                with suppress(ProcessLookupError):
                    process.send_signal(interrupted())


def _is_left(cell: Cell, folder: Path, retry: bool) -> bool:
    status = sweep.state(cell, folder).status
    return status in ("new", "unfinished") or (status == "failed" and retry)
