"""Progress on the terminal: of a run, as an observer that `train` calls after every step, and of a sweep."""

import threading
import time
from pathlib import Path

import rich.progress
from rich.console import Console

from grokscope.phases import LEVEL
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep

_LONGEST_BAR, _SHORTEST_BAR = 20, 6
_BESIDE = len("step / ") + len(" ") + len(" 0:00:00")
"""The columns that a run's line has besides two step numbers, the bar, and what is said of the step."""


def can_draw(console: Console) -> bool:
    """Return whether a console is a terminal on which what stands there can be drawn over."""
    return console.is_terminal and not console.is_dumb_terminal


class Progress:
    """A bar with step, losses, accuracies, speed, time left and stage; plain lines where nothing can be drawn over.

    A narrow terminal has less of it: the step, the bar, the accuracies, the speed and the time left stay longest.
    """

    def __init__(self, n_steps: int, start: int = 0):
        console = Console(stderr=True)
        self._is_drawn = can_draw(console)
        self._every = 0.2 if self._is_drawn else 10.0
        self._length = rich.progress.BarColumn(bar_width=_LONGEST_BAR)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            self._length,
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=not self._is_drawn,
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
        speed = (step - before) / max(now - then, 1e-9)
        said = [f"{speed:,.0f} steps/s"]
        if row:
            if row["test_accuracy"] >= LEVEL:
                self._stage = "generalised"
            elif row["train_accuracy"] >= LEVEL and self._stage == "before memorization":
                self._stage = "memorized"
            said = self._sentences(row, speed)
        if not self._is_drawn:
            self._console.print(f"step {step:,}/{self._n_steps:,} · {said[0]}", soft_wrap=True, highlight=False)
            return
        room = self._console.width - _BESIDE - len(f"{step:,}{self._n_steps:,}")
        fitting = next((one for one in said if len(one) + _SHORTEST_BAR <= room), said[-1])
        self._length.bar_width = min(max(room - len(fitting), 1), _LONGEST_BAR)
        self._bar.update(self._task, completed=step, description=fitting)

    def _sentences(self, row: dict[str, float], speed: float) -> list[str]:
        """Return what is said of a step, from the longest to the shortest."""
        losses = [f"{row[name]:.1e}" for name in ("train_loss", "test_loss")]
        shares = [f"{row[name]:.0%}" for name in ("train_accuracy", "test_accuracy")]
        steps = f"{speed:,.0f} steps/s"
        accuracies, both = f"accuracy {shares[0]} train {shares[1]} test", f"accuracy {'/'.join(shares)}"
        return [
            f"loss {losses[0]} train {losses[1]} test · {accuracies} · {steps} · {self._stage}",
            f"{accuracies} · {steps} · {self._stage}",
            f"{both} · {steps} · {self._stage}",
            f"{accuracies} · {steps}",
            f"{both} · {steps}",
            f"{both} · {speed:,.0f}/s",
        ]


class SweepProgress:
    """A bar over all steps of all cells, from the cells' own files, so that it does not matter where they train."""

    def __init__(self, plan: Sweep, folder: Path):
        self._console = Console(stderr=True)
        self._is_drawn = can_draw(self._console)
        self._every = 1.0 if self._is_drawn else 30.0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._is_drawn,
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
            state = sweep_folder.state(cell, self._folder)
            steps += state.step
            if state.status in counts:
                counts[state.status] += 1
            if state.status == "finished":  # It will not change any more.
                self._steps[cell.name] = cell.config.n_steps
        said = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n or status == "finished")
        said += f" of {len(self._plan.cells):,} cells"
        self._bar.update(self._task, completed=steps, description=said)
        if not self._is_drawn:
            self._console.print(said, highlight=False)
