"""Signals that wait for the end of a step, so that a run commits before it stops."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(KeyboardInterrupt):
    """A run, or a sweep, was stopped by a signal after it committed; the command `again` goes on with it."""

    def __init__(self, folder: Path, signal_number: int, again: str = ""):
        super().__init__(f"{folder} was stopped by {signal.Signals(signal_number).name} and is saved.")
        self.folder = folder
        self.signal_number = signal_number
        self.again = again or f"grokscope resume {folder}"


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Catch SIGINT and SIGTERM within the block; yield a function that returns the one that came, or 0.

    A second signal ends the process at once. Outside the main thread, where Python cannot catch signals, the
    function always returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    came = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            os._exit(128 + number)
        came = number

    previous = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
