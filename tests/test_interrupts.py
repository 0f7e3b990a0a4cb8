"""Signals that wait for the end of a step; what they do to a real run in a process of its own is in test_training."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from grokscope import interrupts
from grokscope.interrupts import Interrupted, deferred_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class Exited(BaseException):
    """The process would have ended here."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Turn an immediate exit into an exception, and note its status."""
    statuses: list[int] = []

    def exit_at_once(status: int) -> None:
        statuses.append(status)
        raise Exited

    monkeypatch.setattr(interrupts.os, "_exit", exit_at_once)
    yield statuses


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_block_goes_on(number: signal.Signals):
    with deferred_signals() as interrupted:
        assert interrupted() == 0
        signal.raise_signal(number)
        assert interrupted() == number


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_of_either_kind_exits_at_once(
    first: signal.Signals, second: signal.Signals, exits: list[int]
):
    with pytest.raises(Exited), deferred_signals():
        signal.raise_signal(first)
        assert exits == []
        signal.raise_signal(second)
    assert exits == [128 + second]


@pytest.mark.parametrize("number", SIGNALS)
def test_after_the_block_signals_do_what_they_did_before(number: signal.Signals, exits: list[int]):
    before = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), deferred_signals():
        assert signal.getsignal(number) is not before
        raise ZeroDivisionError
    assert signal.getsignal(number) is before
    with deferred_signals() as interrupted:
        signal.raise_signal(number)
    with deferred_signals() as again:
        assert (interrupted(), again()) == (number, 0)
    assert exits == []


def test_outside_the_main_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred_signals() as interrupted:
            seen.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


def test_an_interruption_names_the_run_and_the_signal_and_is_caught_as_any_other():
    error = Interrupted(Path("runs/mine"), signal.SIGTERM)
    assert isinstance(error, KeyboardInterrupt)
    assert (error.folder, error.signal_number) == (Path("runs/mine"), 15)
    assert "runs/mine" in str(error) and "SIGTERM" in str(error)
