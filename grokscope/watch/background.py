"""Watching beside a training: `grokscope watch` in a process of its own, so that nothing can disturb the run."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Observer = Callable[[int, dict[str, float]], None]
_PATIENCE = 30.0
"""The seconds that the page has, when the training has ended, to show its end."""


class Beside:
    """Begins `grokscope watch` beside a training, at its first step, when the run's folder is there.

    Use as a context manager round the training. When the block ends well the page has a moment to show the last step
    and then ends; with `stay` it goes on until Ctrl-C. When the block fails it ends at once. Whatever happens to the
    watching process, what it says or why it could not begin is told to `say`, and the training goes on.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], stay: bool = False):
        self._folder, self._say, self._stay = folder, say, stay
        self._process: subprocess.Popen[str] | None = None
        self._has_begun = False

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._process is None:
            return
        try:
            if kind is None:
                # A Ctrl-C here is meant for the page: the training has ended.
                with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    self._process.wait(None if self._stay else _PATIENCE)
        finally:
            self._process.terminate()
            self._process.wait()

    def before(self, observer: Observer) -> Observer:
        """Return an observer that begins to watch, the first time, and does what another does."""

        def observe(step: int, row: dict[str, float]) -> None:
            self._begin_once()
            observer(step, row)

        return observe

    def _begin_once(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            try:
                self._begin()
            except OSError as error:
                self._say(f"The run cannot be watched: {error.strerror}. Training goes on.")

    def _begin(self) -> None:
        command = [sys.executable, "-m", "grokscope", "watch", str(self._folder.resolve())]
        self._process = subprocess.Popen(
            command if self._stay else [*command, "--until-end"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in the terminal is for the training.
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._say(line.rstrip("\n"))
