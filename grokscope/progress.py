"""The progress of a training run on the terminal, as an observer that `train` calls after every step."""

import time

import rich.progress
from rich.console import Console

from grokscope.phases import LEVEL


class Progress:
    """A bar with step, losses, accuracies, speed, time left and stage; plain lines where there is no terminal."""

    def __init__(self, n_steps: int, start: int = 0):
        console = Console(stderr=True)
        self._every = 0.2 if console.is_terminal else 10.0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._console, self._n_steps = console, n_steps
        self._task = self._bar.add_task("", total=n_steps, completed=start)
        self._stage = "before memorization"
        self._last = (time.monotonic(), start)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """Show a step; does nothing most of the time, so that it costs nothing."""
        then, before = self._last
        now = time.monotonic()
        if now - then < self._every and step < self._n_steps:
            return
        self._last = (now, step)
        said = f"{(step - before) / max(now - then, 1e-9):,.0f} steps/s"
        if row:
            if row["test_accuracy"] >= LEVEL:
                self._stage = "generalised"
            elif row["train_accuracy"] >= LEVEL and self._stage == "before memorization":
                self._stage = "memorized"
            said = (
                f"loss {row['train_loss']:.1e} train {row['test_loss']:.1e} test · accuracy "
                f"{row['train_accuracy']:.0%} train {row['test_accuracy']:.0%} test · {said} · {self._stage}"
            )
        self._bar.update(self._task, completed=step, description=said)
        if not self._console.is_terminal:
            self._console.print(f"step {step:,}/{self._n_steps:,} · {said}", soft_wrap=True, highlight=False)
