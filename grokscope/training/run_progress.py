"""The progress of a training: the observer's type, and the bar that a terminal or a notebook shows."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from grokscope import rng
from grokscope.crossings import LEVEL
from grokscope.training.evaluation import Row

with rng.unchanged_global_generator():  # The import of rich draws from it.
    import rich.progress
    from rich.console import Console

Observer = Callable[[int, Row], None]
"""A function that is called after every step, with the step and the latest log row.

It cannot change the training. If it raises, the step is committed, and the exception ends the training.
"""
Display = Callable[[int, int], AbstractContextManager[Observer]]
"""A function of the last and the first step that returns an observer, to be used as a context manager."""

_LONGEST_BAR, _SHORTEST_BAR = 20, 6
_FIXED_COLUMNS = len("step / ") + len(" ") + len(" 0:00:00")
"""The width of a run's line without the two step numbers, the bar and the description."""
_NOTEBOOK_WIDTH = 150
"""The length of a notebook's line in characters; a shorter text is padded, so that it covers the text before."""


def can_draw(console: Console) -> bool:
    """Return whether a console is a terminal that can overwrite its lines."""
    return console.is_terminal and not console.is_dumb_terminal


class Progress:
    """A progress bar of a training, with step, losses, accuracies, speed, time left and stage.

    A narrow terminal shows less: the step, the bar, the accuracies, the speed and the time left have priority. A
    notebook shows one line of text that changes. Any other output gets a plain line every ten seconds.

    Args:
        n_steps: The last step.
        start: The first step.
        loss: The run's loss function, "softmax" or "stablemax", which the text states.
    """

    def __init__(self, n_steps: int, start: int = 0, loss: str = ""):
        self._loss_name = f"{loss} loss".lstrip()
        self._marimo = _marimo()
        self._is_notebook = Console().is_jupyter or self._marimo is not None
        # In a notebook, standard error is red, and rich's own bar needs ipywidgets.
        console = Console(stderr=not self._is_notebook, force_jupyter=False)
        self._is_drawn = can_draw(console) and not self._is_notebook
        self._interval = 0.2 if self._is_drawn else 1.0 if self._is_notebook else 10.0
        self._bar_column = rich.progress.BarColumn(bar_width=_LONGEST_BAR)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            self._bar_column,
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
        if self._is_notebook and self._marimo is None:
            self._console.print()

    def say(self, sentence: str) -> None:
        """Print a message above the bar."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """Show a step; most calls return at once, so that training is not slowed down."""
        last_time, last_step = self._last
        now = time.monotonic()
        if now - last_time < self._interval and step < self._n_steps:
            return
        self._last = (now, step)
        speed = (step - last_step) / max(now - last_time, 1e-9)
        descriptions = [f"{speed:,.0f} steps/s"]
        if row:
            if row["test_accuracy"] >= LEVEL:
                self._stage = "generalised"
            elif row["train_accuracy"] >= LEVEL and self._stage == "before memorization":
                self._stage = "memorized"
            descriptions = self._descriptions(row, speed)
        if not self._is_drawn:
            line = f"step {step:,}/{self._n_steps:,} · {descriptions[0]}"
            end = "\n"
            if self._is_notebook:
                line, end = line.ljust(_NOTEBOOK_WIDTH), "\r"
            if self._marimo is not None:
                self._marimo.output.replace(line)
                return
            self._console.print(line, soft_wrap=True, highlight=False, end=end)
            return
        width = self._console.width - _FIXED_COLUMNS - len(f"{step:,}{self._n_steps:,}")
        description = next((text for text in descriptions if len(text) + _SHORTEST_BAR <= width), descriptions[-1])
        self._bar_column.bar_width = min(max(width - len(description), 1), _LONGEST_BAR)
        self._bar.update(self._task, completed=step, description=description)

    def _descriptions(self, row: dict[str, float], speed: float) -> list[str]:
        """Return descriptions of a step, from the longest to the shortest."""
        losses = [f"{row[name]:.1e}" for name in ("train_loss", "test_loss")]
        shares = [f"{row[name]:.0%}" for name in ("train_accuracy", "test_accuracy")]
        steps = f"{speed:,.0f} steps/s"
        accuracies, both = f"accuracy {shares[0]} train {shares[1]} test", f"accuracy {'/'.join(shares)}"
        return [
            f"{self._loss_name} {losses[0]} train {losses[1]} test · {accuracies} · {steps} · {self._stage}",
            f"{accuracies} · {steps} · {self._stage}",
            f"{both} · {steps} · {self._stage}",
            f"{accuracies} · {steps}",
            f"{both} · {steps}",
            f"{both} · {speed:,.0f}/s",
        ]


@contextmanager
def displayed(
    display: Display | bool, n_steps: int, start: int, observer: Observer | None = None, loss: str = ""
) -> Iterator[Observer | None]:
    """Show the progress of a training inside the block.

    Args:
        display: True shows a `Progress` in a terminal or a notebook and nothing elsewhere; False shows nothing. A
            function makes the context manager whose value observes the training.
        n_steps: The last step.
        start: The first step.
        observer: A further observer, called after the display.
        loss: The run's loss function, which a `Progress` states.

    Yields:
        The observer of the training, or None if there is nothing to call.
    """
    if display is True and not _is_interactive() or display is False:
        yield observer
        return
    with (partial(Progress, loss=loss) if display is True else display)(n_steps, start) as shown:

        def both(step: int, row: Row) -> None:
            shown(step, row)
            if observer:
                observer(step, row)

        yield both


def _is_interactive() -> bool:
    """Return whether a person sees the output now: in a notebook, or in a terminal that can overwrite its lines."""
    if Console().is_jupyter or _marimo() is not None:
        return True
    # FORCE_COLOR makes rich take a pipe for a terminal.
    return sys.stderr is not None and sys.stderr.isatty() and can_draw(Console(stderr=True))


def _marimo() -> Any:
    """Return the module marimo if this code runs in one of its notebooks, otherwise None."""
    module = sys.modules.get("marimo")
    return module if module is not None and module.running_in_notebook() else None
