"""Nothing is left behind: no open file, thread, hook or memory."""

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
from harness.lives import compute_little, said, small_config

N_SNAPSHOTS = 1_000


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Mallinfo2(ctypes.Structure):
    """What glibc says of its memory."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*"abcd", "hblkhd", *"ef", "uordblks", *"gh"))


def memory() -> float:
    """Return the MB that are allocated now; not those that glibc keeps for later, which it does on purpose."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this is no glibc that tells how much memory is in use")
    libc.mallinfo2.restype = Mallinfo2
    found = libc.mallinfo2()
    return (found.uordblks + found.hblkhd) / 1e6


def test_a_thousand_snapshots_leave_no_open_file_thread_or_hook(tiny_run: Path):
    trajectory = Trajectory.open(tiny_run)
    model = trajectory.first.model
    before = open_files(), threading.active_count()
    for i in range(N_SNAPSHOTS):
        snapshot = trajectory[i % len(trajectory)]
        assert len(snapshot.parameters)
        if i % 250 == 0:
            model = snapshot.model
            model.run_with_cache(trajectory.task.inputs[:2])
            assert not any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values())
    after = open_files(), threading.active_count()
    said(f"{N_SNAPSHOTS:,} snapshots", {"files more": after[0] - before[0], "threads more": after[1] - before[1]})
    assert after == before


def test_a_thousand_locks_register_nothing_and_leave_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hook at fork cannot be taken back: there is one, made when the module is imported."""
    registered = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.append(hooks))
    before = open_files()
    for _ in range(1_000):
        with Lock(tmp_path):
            assert len(_held) == 1
        atomic.write_atomic(tmp_path / "file", b"x")
    assert (registered, _held, open_files()) == ([], set(), before)


def dense(n_checkpoints: int) -> RunConfig:
    """Return a run with a checkpoint of 130 kB at every step."""
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


def grown(n_checkpoints: int, root: Path, leaks: bool = False) -> tuple[float, float]:
    """Train, and return by how many MB the memory grew in the last half of the run, and its peak above the start."""
    kept, levels, begin = [], [], memory()

    def look(step: int, row: dict[str, float]) -> None:
        if leaks:
            kept.append(bytes(os.urandom(1)) * 130_000)
        levels.append(memory())

    training.train(dense(n_checkpoints), "run", root, observer=look)
    half = len(levels) // 2
    # Segments come and go: the lowest level of each quarter is what stays.
    return min(levels[-half // 2 :]) - min(levels[half : half + half // 2]), max(levels) - begin


@pytest.mark.parametrize("n_checkpoints", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_memory_of_a_long_run_and_its_analysis_is_flat(
    n_checkpoints: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compute_little(monkeypatch)
    slope, peak = grown(n_checkpoints, tmp_path)
    trajectory, before = Trajectory.open(tmp_path / "run"), memory()
    measures.evaluate("weight_norm", trajectory)
    analysis = memory() - before
    figures = {"at most": peak, "more in the last half": slope, "more after an analysis": analysis}
    said(f"{n_checkpoints:,} checkpoints of 0.13 MB, MB in use", {name: round(mb) for name, mb in figures.items()})
    assert slope < 8 and analysis < 8 and peak < 60


@pytest.mark.slow
def test_a_run_that_keeps_what_it_has_taken_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: an observer that keeps as much as a checkpoint of every step."""
    compute_little(monkeypatch)
    slope, _ = grown(400, tmp_path, leaks=True)
    assert slope > 8
