"""Watch a run from a process of its own, `grokscope watch`, so that nothing can disturb the training."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Observer = Callable[[int, dict[str, float]], None]
_GRACE_SECONDS = 30.0
"""How long the watcher may run after the training has ended, so that open pages show the last step."""


class BackgroundWatcher:
    """Start `grokscope watch` next to a training, at its first step, when the run's folder exists.

    Use it as a context manager around the training. If the block ends normally, the watcher first shows the last step
    and then ends, or with `stay` runs until Ctrl-C. If the block fails, the watcher ends at once. A watcher that
    fails never affects the training: its output, and the reason why it could not start, are passed to `say`.

    Args:
        folder: The run's folder.
        say: Called with each line of the watcher's output.
        stay: Whether to watch until Ctrl-C after the training has ended.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], stay: bool = False):
        self._folder, self._say, self._stay = folder, say, stay
        self._process: subprocess.Popen[str] | None = None
        self._was_started = False

    def __enter__(self) -> "BackgroundWatcher":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._process is None:
            return
        try:
            if kind is None:
                # The training has ended, so a Ctrl-C now ends only the watcher.
                with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    self._process.wait(None if self._stay else _GRACE_SECONDS)
        finally:
            self._process.terminate()
            self._process.wait()

    def wrap(self, observer: Observer) -> Observer:
        """Return an observer of the training that starts the watcher at its first call, then calls `observer`."""

        def observe(step: int, row: dict[str, float]) -> None:
            self._start_once()
            observer(step, row)

        return observe

    def _start_once(self) -> None:
        if self._was_started:
            return
        self._was_started = True
        try:
            self._start()
        except OSError as error:
            self._say(f"The run cannot be watched: {error.strerror}. Training continues.")

    def _start(self) -> None:
        command = [sys.executable, "-m", "grokscope", "watch", str(self._folder.resolve())]
        self._process = subprocess.Popen(
            command if self._stay else [*command, "--until-end"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # A Ctrl-C in the terminal must reach only the training.
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)
        threading.Thread(target=self._relay_output, args=(self._process,), daemon=True).start()

    def _relay_output(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._say(line.rstrip("\n"))
