"""Runs in child processes that are killed or stopped by signals, and then resumed to the end."""

import dataclasses
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import KINDS, damage_of, of_kind, quick

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from harness.fork_server import ForkServer
from harness.scenarios import report

ReadSaved = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]

pytestmark = pytest.mark.usefixtures("one_thread")


def read_committed(run: Path, saved: ReadSaved) -> dict:
    """Return the committed checkpoints and log of a run, which must be undamaged; empty without a run."""
    if not run.exists():
        return {}
    store = RunStore(run)
    assert store.damaged == [] and damage_of(store) == []
    assert Trajectory.open(run).first.step == 0
    return {key: value for key, value in saved(run).items() if key[0] in ("checkpoint", "log")}


@pytest.mark.parametrize("n_chains", [1, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", quick(KINDS, ["adaptive"]))
def test_run_killed_at_random_instants_ends_the_same(
    kind: str, n_chains: int, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    config = of_kind(tiny_config, kind)
    durations = []
    for name in ("whole", "warm-up"):
        started = time.monotonic()
        assert run_child(tmp_path / name, config) == 0
        durations.append(time.monotonic() - started)
    expected = saved(tmp_path / "whole" / "run")
    training.train(config, "here", tmp_path)
    assert saved(tmp_path / "here") == expected, "this process computes different bits than the children"

    generator, n_killed, root = random.Random(f"{kind} {n_chains}"), 0, tmp_path / "killed"
    for _ in range(n_chains):
        before = {}
        for _ in range(5):
            seconds = generator.uniform(0, 0.4 * min(durations))
            n_killed += run_child(root, config, kill_after=seconds) == -signal.SIGKILL
            after = read_committed(root / "run", saved)
            assert before.items() <= after.items(), "committed data is lost or changed"
            before = after
        assert run_child(root, config) == 0
        assert saved(root / "run") == expected
        shutil.rmtree(root)
    counts = {"chains": n_chains, "kills during training": n_killed}
    report(f"{kind}, chains of five kills, 0 lost, 0 differ", counts)
    assert n_killed >= 2 * n_chains, "too few kills came while the run was training"


@pytest.mark.parametrize("n_chains", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_during_densify_ends_the_same(
    n_chains: int, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    root, whole, window = tmp_path / "killed", tmp_path / "whole", (5, 25)
    assert run_child(whole, tiny_config, segment_seconds=1e9) == 0
    origin = shutil.copytree(whole / "run", tmp_path / "origin")
    run_child(whole, tiny_config, densify=window)
    expected = saved(whole / "run")
    shutil.copytree(origin, tmp_path / "timed" / "run")
    started = time.monotonic()
    assert run_child(tmp_path / "timed", tiny_config, densify=window) == 0
    duration = time.monotonic() - started
    assert len(expected) > len(saved(origin))

    generator, n_killed = random.Random(n_chains), 0
    for _ in range(n_chains):
        before = saved(shutil.copytree(origin, root / "run"))
        for _ in range(5):
            seconds = generator.uniform(0, duration)
            n_killed += run_child(root, tiny_config, densify=window, kill_after=seconds) == -signal.SIGKILL
            read_committed(root / "run", saved)
            after = saved(root / "run")
            assert before.items() <= after.items() and after.items() <= expected.items()
            before = after
        assert run_child(root, tiny_config, densify=window) == 0
        assert saved(root / "run") == expected
        shutil.rmtree(root)
    counts = {"chains": n_chains, "kills during training": n_killed}
    report("densify, chains of five kills, 0 lost, 0 differ", counts)
    assert n_killed >= n_chains


MOMENTS = [*range(1, 36, 8), 64]


@pytest.mark.parametrize("moments", [MOMENTS, pytest.param([*range(1, 100)], marks=pytest.mark.slow)], ids=len)
def test_run_killed_at_any_operation_ends_the_same(
    moments: list[int], run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    config = dataclasses.replace(tiny_config, n_steps=10, checkpoints="every 3")
    training.train(config, "whole", tmp_path)
    expected = saved(tmp_path / "whole")
    for n in moments:
        root = tmp_path / str(n)
        assert run_child(root, config, kill_at_moment=n) == -signal.SIGKILL or n > 80, (
            "the run has fewer moments than expected"
        )
        read_committed(root / "run", saved)
        # Kill the resumed run too.
        if run_child(root, config, kill_at_moment=n) == -signal.SIGKILL:
            before = read_committed(root / "run", saved)
            assert run_child(root, config) == 0
            assert before.items() <= read_committed(root / "run", saved).items()
        assert saved(root / "run") == expected
        assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == ["run"]


def test_writer_that_is_not_atomic_is_detected(
    run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    """The control: a run that is killed during a plain write is damaged, and the checks detect it."""
    n_detected = 0
    for n in range(12, 30, 2):
        root = tmp_path / str(n)
        run_child(root, tiny_config, kill_at_moment=n, naive=True)
        try:
            read_committed(root / "run", saved)
        except (AssertionError, GrokscopeError):
            n_detected += 1
    assert n_detected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_commits_the_current_step(
    number: int, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    training.train(tiny_config, "whole", tmp_path)
    assert run_child(tmp_path, tiny_config, step_signals=((17, number),), segment_seconds=1e9) == 128 + number
    assert RunStore(tmp_path / "run").last_step == 17
    assert run_child(tmp_path, tiny_config, step_signals=((41, number),), segment_seconds=1e9) == 128 + number
    assert RunStore(tmp_path / "run").last_step == 41
    assert run_child(tmp_path, tiny_config) == 0
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.parametrize("second", quick([signal.SIGINT, signal.SIGTERM], [signal.SIGINT]))
def test_second_signal_exits_immediately_without_damage(
    second: int, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path, saved: ReadSaved
):
    signals = ((17, signal.SIGINT), (17, second))
    assert run_child(tmp_path, tiny_config, step_signals=signals, segment_seconds=1e9) == 128 + second
    read_committed(tmp_path / "run", saved)
    assert RunStore(tmp_path / "run").last_step == 0, "the second signal waited for a commit"
    assert run_child(tmp_path, tiny_config) == 0
    training.train(tiny_config, "whole", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
