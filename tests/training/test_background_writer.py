"""Segments that are written while training goes on: in order, one at a time, and none is lost without a word."""

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
from support.shared import writing

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.disk.syscalls import disk_error
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training import checkpointer, loop
from grokscope.training.background_writer import Writer
from grokscope.training.loop import NotFiniteError
from grokscope.training.signals import InterruptedRunError


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Every test here ends with no writer at work, however the run in it ended."""
    yield
    assert writing() == []


@pytest.fixture
def dense(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A config with a checkpoint at every step, committed five at a time."""
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 5)
    return dataclasses.replace(tiny_config, checkpoints="every 1")


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each write last until somebody waits for it: as slow a disk as can be, whatever else the machine does."""
    waited, wait = Event(), Writer.wait

    def awaited(self: Writer) -> None:
        waited.set()
        try:
            wait(self)
        finally:
            waited.clear()

    monkeypatch.setattr(Writer, "wait", awaited)
    instead_of_write(monkeypatch, lambda path: current_thread() in writing() and waited.wait(30))


def instead_of_write(monkeypatch: pytest.MonkeyPatch, before: Callable[[Path], object]) -> None:
    """Call a function before every write of a file."""
    write = atomic.write_atomic

    def written(path: Path, *parts: bytes | memoryview) -> None:
        before(path)
        write(path, *parts)

    monkeypatch.setattr(atomic, "write_atomic", written)


def failing_at(*numbers: int) -> Callable[[Path], None]:
    """Return what a disk does that is full when the segments with these numbers are written."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(path: Path) -> None:
        if path.stem.isdecimal() and int(path.stem) in numbers:
            raise disk_error(full, "write", path, 1000)

    return fail


def test_what_is_handed_over_is_done_in_order_and_one_at_a_time():
    done, at_work = [], []

    def job(number: int) -> None:
        assert len(at_work) == 0
        at_work.append(number)
        time.sleep(random.Random(number).uniform(0, 0.01))
        done.append(at_work.pop())

    with Writer() as writer:
        for number in range(20):
            writer.begin(lambda number=number: job(number))
            assert done in (list(range(number)), list(range(number + 1)))
    assert done == list(range(20))


def test_the_one_who_hands_over_goes_on_while_it_is_written():
    went_on, came_in_time = Event(), []
    with Writer() as writer:
        writer.begin(lambda: came_in_time.append(went_on.wait(10)))
        went_on.set()
    assert came_in_time == [True]


def test_after_a_failure_nothing_more_is_written_and_whoever_asks_is_told():
    done, failure = [], GrokscopeError("Could not write")

    def fail() -> None:
        raise failure

    with pytest.raises(GrokscopeError) as at_the_end, Writer() as writer:
        writer.begin(fail)
        writing()[0].join()
        for ask in (writer.check, lambda: writer.begin(lambda: done.append(1)), writer.check):
            with pytest.raises(GrokscopeError) as told:
                ask()
            assert told.value is failure
    assert at_the_end.value is failure and done == []


def test_what_ends_the_block_is_raised_after_all_is_written():
    done: list[int] = []

    def job() -> None:
        time.sleep(0.05)
        done.append(1)

    with pytest.raises(ZeroDivisionError), Writer() as writer:
        writer.begin(job)
        raise ZeroDivisionError
    assert done == [1]


@pytest.mark.usefixtures("slow_disk")
def test_training_goes_on_while_a_segment_is_written_but_never_by_more_than_one_segment(
    dense: RunConfig, tmp_path: Path
):
    unwritten = []

    def look(step: int, row: dict[str, float]) -> None:
        unwritten.append(step + 1 - len(RunStore(tmp_path / "run").steps))

    training.train(dense, "run", tmp_path, observer=look)
    # Five that are being written, and four taken meanwhile: with the fifth, training waits.
    assert max(unwritten) == 9

    segments = sorted(RunStore(tmp_path / "run").segments, key=lambda segment: segment.path)
    covered = [segment.coverage or (0, 0) for segment in segments]
    assert len(covered) == 13 and covered[0] == (-1, 0) and covered[-1][1] == 60
    assert all(before[1] == after[0] for before, after in itertools.pairwise(covered)), "they are in order"


@pytest.mark.usefixtures("slow_disk")
def test_a_slow_disk_changes_nothing_that_is_saved(
    dense: RunConfig, tmp_path: Path, saved: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
):
    training.train(dense, "slow", tmp_path)
    monkeypatch.setattr(Writer, "begin", lambda self, write: write())
    training.train(dense, "here", tmp_path)
    assert saved(tmp_path / "slow") == saved(tmp_path / "here")


@pytest.mark.parametrize("numbers", [(2,), (7,), (13,), tuple(range(7, 99))], ids=len)
def test_a_disk_that_is_full_for_a_while_or_for_good_leaves_no_gap(
    numbers: tuple[int, ...], dense: RunConfig, tmp_path: Path, saved: Callable, monkeypatch: pytest.MonkeyPatch
):
    """Had a segment followed the one that failed, a resume from its state would leave the gap for ever."""
    training.train(dense, "whole", tmp_path)
    with monkeypatch.context() as patch:
        instead_of_write(patch, failing_at(*numbers))
        with pytest.raises(GrokscopeError, match=r"Could not write .*No space left on device \(.* bytes needed"):
            training.train(dense, "run", tmp_path)
    run = RunStore(tmp_path / "run")
    assert run.steps.tolist() == list(range(5 * (numbers[0] - 2) + 1)) and list(run.damage()) == []
    assert not is_locked(tmp_path / "run")
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("step", [16, 17, 19])
def test_a_signal_while_a_segment_is_written_commits_everything(
    step: int, dense: RunConfig, tmp_path: Path, saved: Callable[[Path], Any]
):
    in_flight = []

    def stop(at: int, row: dict[str, float]) -> None:
        if at == step:
            in_flight.extend(writing())
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        training.train(dense, "run", tmp_path, observer=stop)
    assert in_flight and writing() == [], "the case is meant to be telling"
    run = RunStore(tmp_path / "run")
    assert run.steps.tolist() == list(range(step + 1)) and run.last_step == step
    training.resume(tmp_path / "run")
    training.train(dense, "whole", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.parametrize("number", [4, 5])
def test_a_signal_is_not_reported_as_saved_when_the_last_segments_could_not_be_written(
    number: int, dense: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The fourth segment is being written when the signal comes; the fifth is the signal's own."""
    fail = failing_at(number)
    instead_of_write(monkeypatch, lambda path: (time.sleep(0.05), fail(path))[1])
    with pytest.raises(GrokscopeError, match="No space left on device"):
        training.train(
            dense, "run", tmp_path, observer=lambda step, row: signal.raise_signal(2) if step == 17 else None
        )
    assert RunStore(tmp_path / "run").last_step == {4: 10, 5: 15}[number]


@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("ending", ["an observer that fails", "a weight that is not finite"])
def test_whatever_ends_a_run_waits_for_the_segment_in_flight(
    ending: str, dense: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    update, locked = loop.Optimizer.update, []

    def poisoned(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 17:
            self._parameters["unembed.W_U"].data[2, 1] = torch.nan

    def fail(step: int, row: dict[str, float]) -> None:
        if step == 17:
            locked.append((is_locked(tmp_path / "run"), len(writing())))
            raise ZeroDivisionError

    if ending == "an observer that fails":
        with pytest.raises(ZeroDivisionError):
            training.train(dense, "run", tmp_path, observer=fail)
        assert locked == [(True, 1)]
    else:
        monkeypatch.setattr(loop.Optimizer, "update", poisoned)
        with pytest.raises(NotFiniteError):
            training.train(dense, "run", tmp_path)
    assert writing() == [] and not is_locked(tmp_path / "run")
    # Both are stopped after step 17, and what was taken since the commit at step 15 is kept.
    assert len(Trajectory.open(tmp_path / "run")) == 18


@pytest.mark.usefixtures("slow_disk")
def test_a_run_appears_only_once_step_0_is_written(tiny_config: RunConfig, tmp_path: Path):
    def look(building: Path) -> list[int]:
        return RunStore(building).steps.tolist() if building.exists() else []

    seen = []
    rename = atomic.os.rename
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic.os, "rename", lambda source, target: (seen.append(look(source)), rename(source, target)))
        training.train(tiny_config, "run", tmp_path)
    assert seen == [[0]]
