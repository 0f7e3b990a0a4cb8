"""Measures side by side: processes of one thread each, over measures and over pieces of the trajectory."""

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

from grokscope import environment
from grokscope.errors import DamagedError, GrokscopeError
from grokscope.measures._cache import find, keep
from grokscope.measures._request import MeasureRequest
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_PIECES_PER_JOB = 4
"""More than one, so that no process waits long for the process with the slowest checkpoints."""
_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def measure(
    names: Sequence[str], trajectory: Trajectory, jobs: int, thin: int | None = None, **options: Any
) -> Iterator[Series]:
    """Yield each named measure of a run in turn, as `measures.saved` does; `jobs` processes evaluate what is missing.

    A measure that declares `by_checkpoint` is evaluated in pieces of consecutive checkpoints. The numbers are those of
    one process with one thread, to the bit. The exception is `sharpness`, which starts each piece afresh and differs
    within its residual. A script calls this function under `if __name__ == "__main__":`, because each process imports
    the script. If this process ends, its processes end too.

    Args:
        names: The measures' names.
        trajectory: The run's trajectory, opened from its folder.
        jobs: The number of processes of one thread each, from 1.
        thin: As in `measures.saved`.
        **options: Options of all named measures.

    Raises:
        GrokscopeError: A measure fails or a process dies; the error names the measure and the reason. Series that
            were completed before are saved.
    """
    if jobs < 1:
        raise GrokscopeError(f"jobs: {jobs}; allowed: a whole number from 1.")
    path = trajectory.path
    if path is None:
        raise GrokscopeError("A trajectory in memory cannot be handed to other processes; use `measures.evaluate`.")
    requests = {name: MeasureRequest.thinned(name, trajectory, options, thin) for name in names}
    stored = {name: find(request) for name, request in requests.items()}
    missing = {name: request for name, request in requests.items() if stored[name] is None}
    n_checkpoints = sum(len(request.checkpoints) for request in missing.values())
    with _pool(min(jobs, n_checkpoints or 1)) as pool:

        def submit(request: MeasureRequest) -> list[Future[Series]]:
            with _inherited_by_processes():
                return [
                    pool.submit(_evaluate, path, request.name, steps, request.options)
                    for steps in _pieces(request, jobs)
                ]

        futures = {name: submit(request) for name, request in missing.items()}
        for name in names:
            series = stored[name]
            if series is None:
                request = requests[name]
                try:
                    parts = [_result(name, future) for future in futures[name]]
                except DamagedError as error:
                    request = request.without_damaged(error)
                    parts = [_result(name, future) for future in submit(request)]
                series = keep(request.labelled(Series.join(parts)), request.trajectory)
            yield series


def _pieces(request: MeasureRequest, jobs: int) -> list[list[int]]:
    """Return the steps of each piece: several per process, or one piece if the measure compares checkpoints."""
    steps = request.checkpoints.steps
    n_pieces = min(jobs * _PIECES_PER_JOB, len(steps)) if request.declaration.by_checkpoint else 1
    return [piece.tolist() for piece in np.array_split(steps, n_pieces)]


def _evaluate(path: Path, name: str, steps: list[int], options: Mapping[str, Any]) -> Series:
    """Evaluate a measure at some steps, in a process of the pool."""
    environment.keep_memory()
    try:
        return MeasureRequest.of(name, Trajectory.open(path).select(steps), options).evaluate_undamaged()
    except GrokscopeError:
        raise
    except Exception as error:
        # A traceback from another process would hide the message.
        raise GrokscopeError(f"{type(error).__name__}: {error}") from None


def _result(name: str, future: "Future[Series]") -> Series:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise GrokscopeError(
            f"{name}: a process that measured it was killed, probably because memory ran out; fewer --jobs need less."
        ) from error
    except DamagedError:
        raise
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
