"""Measures side by side: processes of one thread each, over measures and over pieces of the trajectory."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor

from grokscope import environment
from grokscope.errors import DamagedError, GrokscopeError
from grokscope.measures._cache import find, keep
from grokscope.measures._request import MeasureRequest, is_refusal
from grokscope.series import Series
from grokscope.trajectory import Trajectory

_PIECES_PER_JOB = 4
"""More than one, so that no process waits long for the process with the slowest checkpoints."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_WATCH_SECONDS = 0.5
"""The time between two looks at the parent process."""


class CrashError(GrokscopeError):
    """A process died, or code of grokscope failed in it."""


def measure(
    names: Sequence[str], trajectory: Trajectory, jobs: int, thin: int | None = None, **options: Any
) -> Iterator[Series]:
    """Yield the series of `results`; raise the first error instead of yielding it."""
    for result in results(names, trajectory, jobs, thin, **options):
        if isinstance(result, GrokscopeError):
            raise result
        yield result


def results(
    names: Sequence[str], trajectory: Trajectory, jobs: int, thin: int | None = None, **options: Any
) -> Iterator[Series | GrokscopeError]:
    """Yield each named measure of a run in turn, as `measures.saved` does; `jobs` processes evaluate what is missing.

    A measure that refuses the run yields its error, and the next one follows.

    A measure that declares `by_checkpoint` is evaluated in pieces of consecutive checkpoints. The numbers are those
    of one process with one thread, to the bit. The exception is `sharpness`, which starts each piece afresh and
    differs within its residual. If this process ends, its processes end too.

    Args:
        names: The measures' names.
        trajectory: The run's trajectory, opened from its folder.
        jobs: The number of processes of one thread each, from 1.
        thin: As in `measures.saved`.
        **options: Options of all named measures.

    Raises:
        GrokscopeError: A process dies or the run cannot be read; the error names the measure and the reason. Series
            that were completed before are saved.
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
            with _without_interrupts():
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
                    try:
                        parts = [_result(name, future) for future in futures[name]]
                    except DamagedError as error:
                        request = request.without_damaged(error)
                        parts = [_result(name, future) for future in submit(request)]
                except GrokscopeError as error:
                    if isinstance(error, CrashError) or not is_refusal(error):
                        raise
                    yield error
                    continue
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
        raise CrashError(f"{type(error).__name__}: {error}") from None


def _result(name: str, future: "Future[Series]") -> Series:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise CrashError(
            f"{name}: a process that measured it was killed, probably because memory ran out; fewer --jobs need less."
        ) from error
    except DamagedError:
        raise
    except GrokscopeError as error:
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes of one thread each that ends with the block, at once if an exception ends it."""
    threads = dict.fromkeys(_THREAD_VARIABLES, "1")
    pool = ProcessPoolExecutor(jobs, initializer=_end_with_parent, initargs=(os.getpid(),), env=threads)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes within the block that ignore Ctrl-C, because this process handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _end_with_parent(parent: int) -> None:
    """End this process once the process that started it has died, even if it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
