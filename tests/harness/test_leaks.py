"""Nothing leaks: files, threads, hooks and memory."""

import ctypes
import dataclasses
import os
import threading
from pathlib import Path

import pytest

from grokscope import Trajectory, measures, training
from grokscope.config import ModelConfig, RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import Lock, _held
from harness.scenarios import fake_computation, report, small_config

N_SNAPSHOTS = 1_000


def n_open_files() -> int:
    """Return the number of files that this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Mallinfo2(ctypes.Structure):
    """The memory statistics of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*"abcd", "hblkhd", *"ef", "uordblks", *"gh"))


def allocated_megabytes() -> float:
    """Return the megabytes that are allocated now, without the memory that glibc reserves for later."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs a glibc with mallinfo2")
    libc.mallinfo2.restype = Mallinfo2
    statistics = libc.mallinfo2()
    return (statistics.uordblks + statistics.hblkhd) / 1e6


def test_thousand_snapshots_leak_no_file_thread_or_hook(tiny_run: Path):
    trajectory = Trajectory.open(tiny_run)
    model = trajectory.first.model
    before = n_open_files(), threading.active_count()
    for i in range(N_SNAPSHOTS):
        snapshot = trajectory[i % len(trajectory)]
        assert len(snapshot.parameters)
        if i % 250 == 0:
            model = snapshot.model
            model.run_with_cache(trajectory.task.inputs[:2])
            assert not any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values())
    after = n_open_files(), threading.active_count()
    counts = {"additional files": after[0] - before[0], "additional threads": after[1] - before[1]}
    report(f"{N_SNAPSHOTS:,} snapshots", counts)
    assert after == before


def test_thousand_locks_leak_no_file_or_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hook at fork cannot be removed, so the module registers a single one at import."""
    registered = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    before = n_open_files()
    for _ in range(1_000):
        with Lock(tmp_path):
            assert len(_held) == 1
        atomic.write_atomic(tmp_path / "file", b"x")
    assert (registered, _held, n_open_files()) == ([], set(), before)


def dense_config(n_checkpoints: int) -> RunConfig:
    """Return a config with a checkpoint of 130 kB at every step."""
    model = ModelConfig(d_model=64, n_heads=2, d_mlp=128)
    steps = n_checkpoints - 1
    return dataclasses.replace(
        small_config(),
        model=model,
        n_steps=steps,
        checkpoints="every 1",
        max_checkpoints=n_checkpoints,
        evaluate_every=steps,
    )


def memory_growth(n_checkpoints: int, root: Path, leaks: bool = False) -> tuple[float, float]:
    """Train, and return the megabytes of growth in the second half of the run, and the peak above the start."""
    leaked, levels, start = [], [], allocated_megabytes()

    def observe(step: int, row: dict[str, float]) -> None:
        if leaks:
            leaked.append(bytes(os.urandom(1)) * 130_000)
        levels.append(allocated_megabytes())

    training.train(dense_config(n_checkpoints), "run", root, observer=observe)
    half = len(levels) // 2
    # Segments are allocated and freed, so compare the lowest levels of the last two quarters.
    return min(levels[-half // 2 :]) - min(levels[half : half + half // 2]), max(levels) - start


@pytest.mark.parametrize("n_checkpoints", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_of_long_run_and_its_analysis_is_flat(
    n_checkpoints: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_computation(monkeypatch)
    growth, peak = memory_growth(n_checkpoints, tmp_path)
    trajectory, before = Trajectory.open(tmp_path / "run"), allocated_megabytes()
    measures.evaluate("weight_norm", trajectory)
    analysis = allocated_megabytes() - before
    megabytes = {"peak": peak, "growth in the second half": growth, "growth by an analysis": analysis}
    counts = {name: round(value) for name, value in megabytes.items()}
    report(f"{n_checkpoints:,} checkpoints of 0.13 MB, MB in use", counts)
    assert growth < 8 and analysis < 8 and peak < 60


@pytest.mark.slow
def test_leaking_observer_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: an observer that keeps the bytes of a checkpoint at every step."""
    fake_computation(monkeypatch)
    growth, _ = memory_growth(400, tmp_path, leaks=True)
    assert growth > 8
