"""Threads that compute whole parts of a batch, instead of sharing every small operation.

torch divides each operation among its threads and waits for the slowest. Beside another busy process, each of the
hundreds of operations of a step then waits for a thread that is not running. Here a thread computes a whole part,
with torch's own threads switched off, so a step waits once or twice. A part gives the same bits in any thread.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

_CGROUPS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
"""The files with a container's share of the cores, in version 2 and in version 1 of cgroups."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Threads:
    """A number of threads, and what they share: the parts of a batch, or torch's single operations."""

    n: int
    over_parts: bool
    """Whether the threads compute parts. Otherwise torch divides each operation among them."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use these threads inside a `with` block."""
        global _n_active
        before, n_before = _n_active, torch.get_num_threads()
        _n_active, n_torch = (self.n, 1) if self.over_parts else (1, self.n)
        if n_before != n_torch:
            torch.set_num_threads(n_torch)
        try:
            yield
        finally:
            _n_active = before
            if n_before != n_torch:
                torch.set_num_threads(n_before)


def compute(parts: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return the results of functions, in order, computed by the active threads.

    Torch's grad mode is local to a thread, so each function must set it.
    """
    if _n_active == 1 or len(parts) == 1:
        return [part() for part in parts]
    workers = _workers(_n_active, os.getpid())
    return [future.result() for future in [workers.submit(part) for part in parts]]


def n_active() -> int:
    """Return the number of threads that compute parts now."""
    return _n_active


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path in _CGROUPS:
        with suppress(OSError, ValueError, IndexError):
            n = min(n, max(_quota(path), 1))
    return n


@cache
def available_cores() -> int:
    """Return how many cores this process may use for threads: the usable cores, at most OMP_NUM_THREADS."""
    n = usable_cores()
    with suppress(KeyError, ValueError):
        n = min(n, max(int(os.environ["OMP_NUM_THREADS"]), 1))
    return n


def _quota(path: Path) -> int:
    """Return the whole cores of a cgroup's quota; raise ValueError if it has no limit."""
    if path.name == "cpu.max":
        quota, period = path.read_text().split()[:2]
    else:
        quota, period = path.read_text(), path.with_name("cpu.cfs_period_us").read_text()
    if int(quota) < 0:
        raise ValueError("no limit")
    return int(quota) // int(period)


@cache
def _workers(n: int, process: int) -> ThreadPoolExecutor:
    """Return `n` threads of a process; a forked process gets its own."""
    return ThreadPoolExecutor(n, thread_name_prefix="part")


_n_active = 1
"""The number of threads of the innermost active `Threads` that compute parts."""
