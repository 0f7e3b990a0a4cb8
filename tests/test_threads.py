"""Threads over parts: their order, what they restore, and the cores that a process may use."""

import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from grokscope import threads
from grokscope.threads import Threads


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function of a quota file's text that counts the cores of a process with eight."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_CGROUPS", (tmp_path / "cpu.max", tmp_path / "v1" / "cpu.cfs_quota_us"))
    (tmp_path / "v1").mkdir()

    def count(quota: str | None = None, *, period: str | None = None) -> int:
        if quota is not None and period is None:
            (tmp_path / "cpu.max").write_text(quota)
        elif quota is not None:
            (tmp_path / "v1" / "cpu.cfs_quota_us").write_text(quota)
            (tmp_path / "v1" / "cpu.cfs_period_us").write_text(period or "")
        threads.available_cores.cache_clear()
        return threads.available_cores()

    yield count
    threads.available_cores.cache_clear()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_results_are_in_the_order_of_the_parts(n: int):
    with Threads(n, over_parts=True).active():
        results = threads.compute([partial(lambda i: (i, threading.get_ident()), i) for i in range(9)])
    assert [i for i, _ in results] == list(range(9))
    assert (n == 1) == all(ident == threading.get_ident() for _, ident in results)


def test_error_of_a_part_reaches_the_caller():
    def fail() -> int:
        raise ValueError("part")

    with Threads(2, over_parts=True).active(), pytest.raises(ValueError, match="part"):
        threads.compute([fail, fail])


def test_block_restores_torch_and_outer_threads():
    before = torch.get_num_threads()
    with Threads(3, over_parts=False).active():
        assert torch.get_num_threads() == 3 and threads.n_active() == 1
        with Threads(2, over_parts=True).active():
            assert torch.get_num_threads() == 1 and threads.n_active() == 2
        assert torch.get_num_threads() == 3 and threads.n_active() == 1
    assert torch.get_num_threads() == before


def test_workers_use_one_thread_of_torch():
    with Threads(2, over_parts=True).active():
        assert threads.compute([torch.get_num_threads] * 4) == [1] * 4


@pytest.mark.parametrize(
    ("quota", "n"), [(None, 8), ("max 100000", 8), ("300000 100000", 3), ("150000 100000", 1), ("50000 100000", 1)]
)
def test_cores_respect_the_quota_of_a_cgroup(cores, quota: str | None, n: int):
    assert cores(quota) == n


def test_cores_respect_the_quota_of_an_old_cgroup(cores):
    assert cores("-1", period="100000") == 8 and cores("400000", period="100000") == 4


def test_cores_respect_affinity_and_omp_num_threads(cores, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cores() == 5 and threads.usable_cores() == 8
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1})
    assert cores() == 2
