"""Progress on the terminal: of a run, as an observer that `train` calls after every step, and of a sweep."""

import threading
import time
from pathlib import Path

import rich.progress
from rich.console import Console

from grokscope import sweep
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

    def say(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

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


class SweepProgress:
    """A bar over all steps of all cells, from the cells' own files, so that it does not matter where they train."""

    def __init__(self, plan: sweep.Sweep, folder: Path):
        self._console = Console(stderr=True)
        self._every = 1.0 if self._console.is_terminal else 30.0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._plan, self._folder = plan, folder
        self._steps: dict[str, int] = {}
        self._task = self._bar.add_task("", total=sum(cell.config.n_steps for cell in plan.cells))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._bar.stop()

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self._show()

    def _show(self) -> None:
        counts = {"finished": len(self._steps), "running": 0, "failed": 0}
        steps = sum(self._steps.values())
        for cell in self._plan.cells:
            if cell.name in self._steps:
                continue
            state = sweep.state(cell, self._folder)
            steps += state.step
            if state.status in counts:
                counts[state.status] += 1
            if state.status == "finished":  # It will not change any more.
                self._steps[cell.name] = cell.config.n_steps
        said = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n or status == "finished")
        said += f" of {len(self._plan.cells):,} cells"
        self._bar.update(self._task, completed=steps, description=said)
        if not self._console.is_terminal:
            self._console.print(said, highlight=False)
