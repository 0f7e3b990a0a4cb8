"""Segments written while training continues: in order, one at a time, and never lost without an error."""

import dataclasses
import errno
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import pytest
import torch
from support.shared import Saved, damage_of, quick, writing

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.disk.syscalls import disk_error
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training import checkpointer
from grokscope.training.background_writer import BackgroundWriter
from grokscope.training.optimizers import Optimizer
from grokscope.training.signals import InterruptedRunError
from grokscope.training.state import NotFiniteError

Read = Callable[[Path], Saved]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check after every test that no writer is running, however its run ended."""
    yield
    assert writing() == []


@pytest.fixture
def dense(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A config with a checkpoint at every step, committed five at a time."""
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 5)
    return dataclasses.replace(tiny_config, checkpoints="every 1")


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each write last until training waits for it, which is the slowest possible disk."""
    waiting, wait = Event(), BackgroundWriter.wait

    def signalling_wait(self: BackgroundWriter) -> None:
        waiting.set()
        try:
            wait(self)
        finally:
            waiting.clear()

    monkeypatch.setattr(BackgroundWriter, "wait", signalling_wait)
    before_each_write(monkeypatch, lambda path: current_thread() in writing() and waiting.wait(30))


def before_each_write(monkeypatch: pytest.MonkeyPatch, function: Callable[[Path], object]) -> None:
    """Call a function before every write of a file."""
    write = atomic.write_atomic

    def patched_write(path: Path, *parts: bytes | memoryview) -> None:
        function(path)
        write(path, *parts)

    monkeypatch.setattr(atomic, "write_atomic", patched_write)


def full_disk_at(*numbers: int) -> Callable[[Path], None]:
    """Return a function that raises for a full disk at the segments with these numbers."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(path: Path) -> None:
        if path.stem.isdecimal() and int(path.stem) in numbers:
            raise disk_error(full, "write", path, 1000)

    return fail


def test_writes_run_in_order_and_one_at_a_time():
    finished, running = [], []

    def job(number: int) -> None:
        assert len(running) == 0
        running.append(number)
        time.sleep(random.Random(number).uniform(0, 0.01))
        finished.append(running.pop())

    with BackgroundWriter() as writer:
        for number in range(20):
            writer.submit(lambda number=number: job(number))
            assert finished in (list(range(number)), list(range(number + 1)))
    assert finished == list(range(20))


def test_submit_returns_while_the_write_still_runs():
    has_returned, in_time = Event(), []
    with BackgroundWriter() as writer:
        writer.submit(lambda: in_time.append(has_returned.wait(10)))
        has_returned.set()
    assert in_time == [True]


def test_failed_write_stops_later_writes_and_every_call_raises():
    finished, failure = [], GrokscopeError("Could not write")

    def fail() -> None:
        raise failure

    with pytest.raises(GrokscopeError) as at_the_end, BackgroundWriter() as writer:
        writer.submit(fail)
        writing()[0].join()
        for call in (writer.raise_failure, lambda: writer.submit(lambda: finished.append(1)), writer.raise_failure):
            with pytest.raises(GrokscopeError) as raised:
                call()
            assert raised.value is failure
    assert at_the_end.value is failure and finished == []


def test_exception_in_the_block_is_raised_after_the_write():
    finished: list[int] = []

    def job() -> None:
        time.sleep(0.05)
        finished.append(1)

    with pytest.raises(ZeroDivisionError), BackgroundWriter() as writer:
        writer.submit(job)
        raise ZeroDivisionError
    assert finished == [1]


@pytest.mark.usefixtures("slow_disk")
def test_training_is_at_most_one_segment_ahead_of_the_disk(dense: RunConfig, tmp_path: Path):
    unwritten = []

    def count_unwritten(step: int, row: dict[str, float]) -> None:
        unwritten.append(step + 1 - len(RunStore(tmp_path / "run").steps))

    training.train(dense, "run", tmp_path, observer=count_unwritten)
    # Five are being written and four are in memory; with the fifth, training waits.
    assert max(unwritten) == 9

    segments = sorted(RunStore(tmp_path / "run").segments, key=lambda segment: segment.path)
    coverages = [segment.coverage or (0, 0) for segment in segments]
    assert len(coverages) == 13 and coverages[0] == (-1, 0) and coverages[-1][1] == 60
    assert all(before[1] == after[0] for before, after in itertools.pairwise(coverages)), "the order is wrong"


@pytest.mark.usefixtures("slow_disk")
def test_slow_disk_does_not_change_saved_data(
    dense: RunConfig, tmp_path: Path, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    training.train(dense, "slow", tmp_path)
    monkeypatch.setattr(BackgroundWriter, "submit", lambda self, write: write())
    training.train(dense, "immediate", tmp_path)
    assert saved(tmp_path / "slow") == saved(tmp_path / "immediate")


@pytest.mark.parametrize("numbers", quick([(2,), (7,), (13,), tuple(range(7, 99))], [(7,)]), ids=len)
def test_full_disk_leaves_no_gap(
    numbers: tuple[int, ...], dense: RunConfig, tmp_path: Path, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    """No segment may follow a failed one: a resume from its state would leave the gap forever."""
    training.train(dense, "whole", tmp_path)
    with monkeypatch.context() as patch:
        before_each_write(patch, full_disk_at(*numbers))
        with pytest.raises(GrokscopeError, match=r"Could not write .*No space left on device \(.* bytes needed"):
            training.train(dense, "run", tmp_path)
    run = RunStore(tmp_path / "run")
    assert run.steps.tolist() == list(range(5 * (numbers[0] - 2) + 1)) and damage_of(run) == []
    assert not is_locked(tmp_path / "run")
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("step", quick([16, 17, 19], [17]))
def test_signal_while_a_segment_is_written_commits_everything(
    step: int, dense: RunConfig, tmp_path: Path, saved: Read
):
    in_flight = []

    def raise_signal(now: int, row: dict[str, float]) -> None:
        if now == step:
            in_flight.extend(writing())
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        training.train(dense, "run", tmp_path, observer=raise_signal)
    assert in_flight and writing() == [], "the signal must come during a write"
    run = RunStore(tmp_path / "run")
    assert run.steps.tolist() == list(range(step + 1)) and run.last_step == step
    training.resume(tmp_path / "run")
    training.train(dense, "whole", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.parametrize("number", [4, 5])
def test_signal_with_a_failed_write_raises_the_write_error(
    number: int, dense: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The fourth segment is being written when the signal comes; the signal itself commits the fifth."""
    fail = full_disk_at(number)
    before_each_write(monkeypatch, lambda path: (time.sleep(0.05), fail(path))[1])
    with pytest.raises(GrokscopeError, match="No space left on device"):
        training.train(
            dense, "run", tmp_path, observer=lambda step, row: signal.raise_signal(2) if step == 17 else None
        )
    assert RunStore(tmp_path / "run").last_step == {4: 10, 5: 15}[number]


@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("ending", ["observer raises", "weight is not finite"])
def test_run_that_ends_early_waits_for_the_segment_in_flight(
    ending: str, dense: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    update, observations = Optimizer.update, []

    def poisoned_update(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 17:
            self._parameters["unembed.W_U"].data[2, 1] = torch.nan

    def fail(step: int, row: dict[str, float]) -> None:
        if step == 17:
            observations.append((is_locked(tmp_path / "run"), len(writing())))
            raise ZeroDivisionError

    if ending == "observer raises":
        with pytest.raises(ZeroDivisionError):
            training.train(dense, "run", tmp_path, observer=fail)
        assert observations == [(True, 1)]
    else:
        monkeypatch.setattr(Optimizer, "update", poisoned_update)
        with pytest.raises(NotFiniteError):
            training.train(dense, "run", tmp_path)
    assert writing() == [] and not is_locked(tmp_path / "run")
    # Both runs stop after step 17, and keep what they took since the commit at step 15.
    assert len(Trajectory.open(tmp_path / "run")) == 18


@pytest.mark.usefixtures("slow_disk")
def test_run_appears_only_after_step_0_is_written(tiny_config: RunConfig, tmp_path: Path):
    def stored_steps(building: Path) -> list[int]:
        return RunStore(building).steps.tolist() if building.exists() else []

    steps_at_renaming = []
    rename = atomic.os.rename

    def watched_rename(source: Path, target: Path) -> None:
        steps_at_renaming.append(stored_steps(source))
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic.os, "rename", watched_rename)
        training.train(tiny_config, "run", tmp_path)
    assert steps_at_renaming == [[0]]
