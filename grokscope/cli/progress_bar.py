"""The progress of a sweep on the terminal."""

import threading
from pathlib import Path

import rich.progress
from rich.console import Console

from grokscope.cli.arguments import counted
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep
from grokscope.training.run_progress import can_draw


class SweepProgress:
    """A progress bar over all steps of all cells. It reads the cells' files, so the cells may train anywhere."""

    def __init__(self, plan: Sweep, folder: Path):
        self._console = Console(stderr=True)
        self._is_drawn = can_draw(self._console)
        self._interval = 1.0 if self._is_drawn else 30.0
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
        while not self._ended.wait(self._interval):
            self._show()

    def _show(self) -> None:
        counts = {"finished": len(self._steps), "running": 0, "failed": 0}
        steps = sum(self._steps.values())
        for cell in self._plan.cells:
            if cell.name in self._steps:
                continue
            state = sweep_folder.cell_state(cell, self._folder)
            steps += state.step
            if state.status in counts:
                counts[state.status] += 1
            if state.status == "finished":  # A finished cell never changes.
                self._steps[cell.name] = cell.config.n_steps
        description = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n or status == "finished")
        description += f" of {counted(len(self._plan.cells), 'cell')}"
        self._bar.update(self._task, completed=steps, description=description)
        if not self._is_drawn:
            self._console.print(description, highlight=False)
