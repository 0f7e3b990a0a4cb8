"""Signals that wait for the end of a step, in this process and in a `grokscope train`; see also the harness."""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.shared import damage_of

from grokscope import Trajectory
from grokscope.config import RunConfig
from grokscope.store.run_store import RunStore
from grokscope.training import signals
from grokscope.training.signals import InterruptedRunError, deferred_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class ExitError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def exit_statuses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statuses of immediate exits, which become exceptions."""
    statuses: list[int] = []

    def exit_at_once(status: int) -> None:
        statuses.append(status)
        raise ExitError

    monkeypatch.setattr(signals.os, "_exit", exit_at_once)
    yield statuses


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_caught_and_the_block_continues(number: signal.Signals):
    with deferred_signals() as interrupted:
        assert interrupted() == 0
        signal.raise_signal(number)
        assert interrupted() == number


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_second_signal_of_either_kind_exits_at_once(
    first: signal.Signals, second: signal.Signals, exit_statuses: list[int]
):
    with pytest.raises(ExitError), deferred_signals():
        signal.raise_signal(first)
        assert exit_statuses == []
        signal.raise_signal(second)
    assert exit_statuses == [128 + second]


@pytest.mark.parametrize("number", SIGNALS)
def test_end_of_the_block_restores_the_signal_handlers(number: signal.Signals, exit_statuses: list[int]):
    before = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), deferred_signals():
        assert signal.getsignal(number) is not before
        raise ZeroDivisionError
    assert signal.getsignal(number) is before
    with deferred_signals() as interrupted:
        signal.raise_signal(number)
    with deferred_signals() as interrupted_later:
        assert (interrupted(), interrupted_later()) == (number, 0)
    assert exit_statuses == []


def test_handlers_do_not_change_outside_the_main_thread():
    before, observations = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred_signals() as interrupted:
            observations.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert observations == [(0, before)]


def test_interrupted_run_error_names_run_signal_and_command():
    error = InterruptedRunError(Path("runs/mine"), signal.SIGTERM)
    assert isinstance(error, KeyboardInterrupt)
    assert (error.folder, error.signal_number) == (Path("runs/mine"), 15)
    assert "runs/mine" in str(error) and "SIGTERM" in str(error)
    assert error.command == "grokscope resume runs/mine"
    assert InterruptedRunError(Path("runs/mine"), signal.SIGINT, "make").command == "make"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_interrupted_command_commits_and_prints_how_to_resume(
    number: signal.Signals, tiny_config: RunConfig, tmp_path: Path, toml: Callable[[dict[str, Any]], str]
):
    endless = dataclasses.replace(tiny_config, n_steps=10**6, checkpoints="every 1000")
    (tmp_path / "endless.toml").write_text(toml(endless.to_dict()))
    command = [sys.executable, "-c", "import sys; from grokscope.cli import main; main(sys.argv[1:])"]
    process = subprocess.Popen(
        [*command, "train", tmp_path / "endless.toml", "--root", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    run, deadline = tmp_path / "endless", time.monotonic() + 60
    while not run.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert re.search(rf"{run} was stopped by {number.name} and is saved", errors)
    assert re.search(rf"^ *grokscope resume {run}$", errors, re.MULTILINE)
    assert RunStore(run).last_step > 0 and damage_of(RunStore(run)) == []
    assert Trajectory.open(run).first.step == 0


def test_command_that_continues_a_run_quotes_its_path():
    command = InterruptedRunError(Path("my runs/it's"), signal.SIGTERM).command
    assert shlex.split(command) == ["grokscope", "resume", "my runs/it's"]
