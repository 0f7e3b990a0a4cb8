"""Signals that wait for the end of a step, so that a run commits before it stops."""

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(KeyboardInterrupt):
    """A signal stopped a run or a sweep, after it had committed.

    Attributes:
        folder: The folder of the run or the sweep.
        signal_number: The number of the signal.
        command: The command that continues the run or the sweep.
    """

    def __init__(self, folder: Path, signal_number: int, command: str = ""):
        super().__init__(f"{folder} was stopped by {signal.Signals(signal_number).name} and is saved.")
        self.folder = folder
        self.signal_number = signal_number
        self.command = command or f"grokscope resume {shlex.quote(str(folder))}"


@contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Catch SIGINT and SIGTERM inside the block.

    A second signal ends the process at once. Outside the main thread Python cannot catch signals, so the function
    always returns 0 there.

    Yields:
        A function that returns the number of the caught signal, or 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    caught = 0

    def catch(number: int, _frame: FrameType | None) -> None:
        nonlocal caught
        if caught:
            os._exit(128 + number)
        caught = number

    previous = {number: signal.signal(number, catch) for number in _SIGNALS}
    try:
        yield lambda: caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
