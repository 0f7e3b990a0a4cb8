"""Measures side by side: processes of one thread each, over measures and over pieces of the trajectory."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from grokscope import measures, plugins
from grokscope.errors import DamagedError, GrokscopeError
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_PIECES_A_JOB = 4
"""So that no process waits long for the one that got the slowest checkpoints."""
_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def measure(
    names: Sequence[str], trajectory: Trajectory, jobs: int, thin: int | None = None, **options: Any
) -> Iterator[Series]:
    """Yield each named measure of a run in turn, as `measures.saved` does, what is missing by `jobs` processes.

    A measure that is declared `by_checkpoint` is measured in pieces of consecutive checkpoints. The numbers are
    those that one process of one thread gives, to the bit; only `sharpness` begins each piece afresh, and differs
    within its residual. A script calls it under `if __name__ == "__main__":`, since each process imports the script.
    Raise GrokscopeError that names the measure and the reason if one fails or a process
    dies; what was measured till then is saved. Whatever ends this process ends the others.
    """
    if jobs < 1:
        raise GrokscopeError(f"jobs: {jobs}; allowed: a whole number from 1.")
    path = trajectory.path
    if path is None:
        raise GrokscopeError("A trajectory in memory cannot be handed to other processes; use `measures.evaluate`.")
    there = {name: measures.found(name, trajectory, thin, **options) for name in names}
    missing = [name for name in names if there[name] is None]
    with _pool(min(jobs, sum(len(measures.wanted(name, trajectory, thin)) for name in missing) or 1)) as pool:

        def begin(name: str) -> list[Future[Series]]:
            with _inherited_by_processes():
                pieces = _pieces(name, measures.wanted(name, trajectory, thin), jobs)
                return [pool.submit(_evaluate, path, name, one, options) for one in pieces]

        waiting = {name: begin(name) for name in missing}
        for name in names:
            series = there[name]
            if series is None:
                try:
                    parts = [_result(name, one) for one in waiting[name]]
                except DamagedError as error:
                    # Each process knows its own checkpoints alone.
                    if not measures.leave_out(measures.wanted(name, trajectory, thin), error):
                        raise
                    parts = [_result(name, one) for one in begin(name)]
                digest = measures.wanted(name, trajectory, thin).digest
                joined = Series.join(parts)
                constants = {**joined.constants, "gaps": measures.gaps_of(trajectory)}
                series = dataclasses.replace(joined, digest=digest, constants=constants)
                series = measures.keep(series, trajectory)
            yield series


def _pieces(name: str, wanted: Trajectory, jobs: int) -> list[list[int]]:
    """Return the steps of each piece: some for each process, or all at once if the measure looks at more than one."""
    is_by_checkpoint = getattr(plugins.load("measures", name), "by_checkpoint", False)
    n_pieces = min(jobs * _PIECES_A_JOB, len(wanted)) if is_by_checkpoint else 1
    return [piece.tolist() for piece in np.array_split(wanted.steps, n_pieces)]


def _evaluate(path: Path, name: str, steps: list[int], options: Mapping[str, Any]) -> Series:
    trajectory = Trajectory.open(path).select(steps)
    try:
        series = measures.evaluate(name, trajectory, **options)
        if len(trajectory) < len(steps):
            raise DamagedError(trajectory.damaged[-1])
        return series
    except GrokscopeError:
        raise
    except Exception as error:
        # A traceback from another process would hide what it says.
        raise GrokscopeError(f"{type(error).__name__}: {error}") from None


def _result(name: str, future: "Future[Series]") -> Series:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise GrokscopeError(
            f"{name}: a process that measured it was killed, as where memory runs out; fewer --jobs need less."
        ) from error
    except GrokscopeError as error:
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that ends with the block, at once if that ends by an exception."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        # It waits for the processes, which the pool alone may do: two that wait for one process miss its end.
        pool.shutdown(cancel_futures=True)


@contextmanager
def _inherited_by_processes() -> Iterator[None]:
    """Start processes within the block with one thread each and deaf to Ctrl-C, which is this process's to handle."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(_THREADS)
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    """End this process when the one that started it has died, however it died: else it would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
