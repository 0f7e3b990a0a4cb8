"""Runs killed by SIGKILL or stopped by signals, in processes of their own, resumed to the end: every bit is there."""

import dataclasses
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import KINDS, of_kind

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from harness.forebear import Forebear
from harness.lives import said

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]

pytestmark = pytest.mark.usefixtures("one_thread")


def committed(run: Path, saved: Read) -> dict:
    """Return the checkpoints and log rows of a run that must open and be sound; nothing if there is none yet."""
    if not run.exists():
        return {}
    opened = RunStore(run)
    assert opened.damaged == [] and list(opened.damage()) == []
    assert Trajectory.open(run).first.step == 0
    return {key: value for key, value in saved(run).items() if key[0] in ("checkpoint", "log")}


@pytest.mark.parametrize("n_chains", [1, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_instant_again_and_again_a_run_loses_nothing_and_ends_the_same(
    kind: str, n_chains: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = of_kind(tiny_config, kind)
    durations = []
    for name in ("whole", "warm"):
        started = time.monotonic()
        assert live(tmp_path / name, config) == 0
        durations.append(time.monotonic() - started)
    expected = saved(tmp_path / "whole" / "run")
    training.train(config, "here", tmp_path)
    assert saved(tmp_path / "here") == expected, "this process computes other bits than the children"

    choose, killed, root = random.Random(f"{kind} {n_chains}"), 0, tmp_path / "killed"
    for _ in range(n_chains):
        before = {}
        for _ in range(5):
            killed += live(root, config, kill_after=choose.uniform(0, 0.4 * min(durations))) == -signal.SIGKILL
            after = committed(root / "run", saved)
            assert before.items() <= after.items(), "something committed is lost or was changed"
            before = after
        assert live(root, config) == 0
        assert saved(root / "run") == expected
        shutil.rmtree(root)
    said(f"{kind}, chains of five kills, 0 lost, 0 differ", {"chains": n_chains, "kills that came in time": killed})
    assert killed >= 2 * n_chains, "the kills are meant to come while the run trains"


@pytest.mark.parametrize("n_chains", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_while_it_is_densified_a_run_loses_nothing_and_ends_the_same(
    n_chains: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    root, whole, window = tmp_path / "killed", tmp_path / "whole", (5, 25)
    assert live(whole, tiny_config, seconds=1e9) == 0
    origin = shutil.copytree(whole / "run", tmp_path / "origin")
    live(whole, tiny_config, densify=window)
    expected = saved(whole / "run")
    shutil.copytree(origin, tmp_path / "once" / "run")
    started = time.monotonic()
    assert live(tmp_path / "once", tiny_config, densify=window) == 0
    duration = time.monotonic() - started
    assert len(expected) > len(saved(origin))

    choose, killed = random.Random(n_chains), 0
    for _ in range(n_chains):
        before = saved(shutil.copytree(origin, root / "run"))
        for _ in range(5):
            wait = choose.uniform(0, duration)
            killed += live(root, tiny_config, densify=window, kill_after=wait) == -signal.SIGKILL
            committed(root / "run", saved)
            after = saved(root / "run")
            assert before.items() <= after.items() and after.items() <= expected.items()
            before = after
        assert live(root, tiny_config, densify=window) == 0
        assert saved(root / "run") == expected
        shutil.rmtree(root)
    said("densify, chains of five kills, 0 lost, 0 differ", {"chains": n_chains, "kills that came in time": killed})
    assert killed >= n_chains


OPERATIONS = [*range(1, 36, 8), 64]


@pytest.mark.parametrize("operations", [OPERATIONS, pytest.param([*range(1, 100)], marks=pytest.mark.slow)], ids=len)
def test_killed_at_any_operation_on_the_disk_a_run_opens_and_ends_the_same(
    operations: list[int], live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = dataclasses.replace(tiny_config, n_steps=10, checkpoints="every 3")
    training.train(config, "whole", tmp_path)
    expected = saved(tmp_path / "whole")
    for n in operations:
        root = tmp_path / str(n)
        assert live(root, config, operations=n) == -signal.SIGKILL or n > 80, "there are fewer operations than that"
        committed(root / "run", saved)
        # And once more, while it goes on.
        if live(root, config, operations=n) == -signal.SIGKILL:
            before = committed(root / "run", saved)
            assert live(root, config) == 0
            assert before.items() <= committed(root / "run", saved).items()
        assert saved(root / "run") == expected
        assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == ["run"]


def test_a_writer_that_is_not_atomic_is_caught(live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read):
    """The control of the test above: killed in the middle of a plain write, a run is damaged, and that is seen."""
    caught = 0
    for n in range(12, 30, 2):
        root = tmp_path / str(n)
        live(root, tiny_config, operations=n, naive=True)
        try:
            committed(root / "run", saved)
        except (AssertionError, GrokscopeError):
            caught += 1
    assert caught


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_the_present_step(
    number: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    training.train(tiny_config, "whole", tmp_path)
    assert live(tmp_path, tiny_config, signals=((17, number),), seconds=1e9) == 128 + number
    assert RunStore(tmp_path / "run").last_step == 17
    assert live(tmp_path, tiny_config, signals=((41, number),), seconds=1e9) == 128 + number
    assert RunStore(tmp_path / "run").last_step == 41
    assert live(tmp_path, tiny_config) == 0
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_exits_at_once_and_the_run_still_opens(
    second: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    signals = ((17, signal.SIGINT), (17, second))
    assert live(tmp_path, tiny_config, signals=signals, seconds=1e9) == 128 + second
    committed(tmp_path / "run", saved)
    assert RunStore(tmp_path / "run").last_step == 0, "at once is without a commit"
    assert live(tmp_path, tiny_config) == 0
    training.train(tiny_config, "whole", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
