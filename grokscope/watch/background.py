"""Watch or track a run from a process of its own, so that nothing can disturb the training."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Observer = Callable[[int, dict[str, float]], None]
_GRACE_SECONDS = 30.0
"""How long a command may run after the training has ended, so that it processes the last step."""


class BackgroundCommand:
    """Start a command of grokscope next to a training, at its first step, when the run's folder exists.

    Use it as a context manager around the training. If the block ends normally, the command has some time to process
    the last step. If the block fails, the command ends at once. A command that fails never affects the training: its
    output, and the reason why it could not start, are passed to `say`.

    Args:
        arguments: The command and its arguments, such as ["watch", "RUN", "--until-end"].
        say: Called with each line of the command's output.
        verb: What the command does to the run, for messages, such as "watched".
        patience: The seconds that the command may take after the training has ended; None waits for its end.
    """

    def __init__(self, arguments: list[str], say: Callable[[str], None], verb: str, patience: float | None):
        self._arguments, self._say, self._verb, self._patience = arguments, say, verb, patience
        self._process: subprocess.Popen[str] | None = None
        self._was_started = False

    def __enter__(self) -> "BackgroundCommand":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._process is None:
            return
        try:
            if kind is None:
                # The training has ended, so a Ctrl-C now ends only the command.
                with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    self._process.wait(self._patience)
        finally:
            self._process.terminate()
            self._process.wait()

    def wrap(self, observer: Observer) -> Observer:
        """Return an observer of the training that starts the command at its first call, then calls `observer`."""

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
            self._say(f"The run cannot be {self._verb}: {error.strerror}. Training continues.")

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "grokscope", *self._arguments],
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


class BackgroundWatcher(BackgroundCommand):
    """Run `grokscope watch` next to a training.

    Args:
        folder: The run's folder.
        say: Called with each line of the watcher's output.
        stay: Whether to watch until Ctrl-C after the training has ended.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], stay: bool = False):
        end = [] if stay else ["--until-end"]
        super().__init__(["watch", str(folder.resolve()), *end], say, "watched", None if stay else _GRACE_SECONDS)


class BackgroundTracker(BackgroundCommand):
    """Run `grokscope track --follow` next to a training.

    Args:
        folder: The run's folder.
        say: Called with each line of the tracker's output.
        tracker: The name of the tracker.
        project: The project on the tracker.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], tracker: str, project: str):
        arguments = ["track", str(folder.resolve()), "--to", tracker, "--project", project, "--follow"]
        super().__init__(arguments, say, "tracked", _GRACE_SECONDS)
