"""A run in the terminal: how it stands, losses and accuracies, and their curves over the logarithm of the step."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console, ConsoleOptions, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grokscope import phases
from grokscope.errors import quoted_name
from grokscope.notebook import LEVELS, number
from grokscope.watch.watched_run import Watched

_BLOCKS, _PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_BESIDE = 32
"""The columns that names, numbers and the spaces between them take beside a curve."""


class Screen:
    """What rich draws of a run; `line` says the same in a line, for where there is no terminal."""

    def __init__(self, run: Watched):
        self._run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        """Draw the run as wide as the terminal."""
        run, log = self._run, self._run.trajectory.log
        config = run.trajectory.config
        width = max(options.max_width - _BESIDE, 8)
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right")
        table.add_column(justify="right")
        table.add_column(no_wrap=True)
        table.add_row("step", f"{run.step:,}", ProgressBar(config.n_steps, run.step, width))
        losses = np.concatenate([log["train_loss"], log["test_loss"]])
        for name, style in (("train_loss", "blue"), ("test_loss", "yellow")):
            curve = sparkline(log.steps, log[name], _span(losses), width, is_log=True, is_plain=options.ascii_only)
            table.add_row(name.replace("_", " "), number(log[name][-1]), Text(curve, style))
        for name, style in (("train_accuracy", "blue"), ("test_accuracy", "yellow")):
            curve = sparkline(log.steps, log[name], (0.0, 1.0), width, is_plain=options.ascii_only)
            table.add_row(name.replace("_", " "), f"{log[name][-1]:.2%}", Text(curve, style))
        table.add_row("", "step", Text(_axis(log.steps, width), "dim"))
        yield Group(
            Text(f"{quoted_name(run.folder.name)}: {run.trajectory.task.formula}", "bold"),
            Text(quoted_name(run.sentence)),
            Text(self._beside()),
            table,
        )

    @property
    def line(self) -> str:
        """How the run stands, in a line."""
        last = {name: array[-1] for name, array in self._run.trajectory.log.arrays.items()}
        return (
            f"{self._run.sentence} {self._beside()} · loss {last['train_loss']:.1e} train "
            f"{last['test_loss']:.1e} test · accuracy {last['train_accuracy']:.0%} train "
            f"{last['test_accuracy']:.0%} test"
        )

    def _beside(self) -> str:
        run = self._run
        log, n, speed = run.trajectory.log, len(run.trajectory), run.steps_per_second
        stage = "memorized" if phases.memorization_step(log) else "before memorization"
        stage = "generalised" if phases.generalisation_step(log) else stage
        said = [stage, f"{n:,} checkpoint{'s' * (n != 1)} committed"]
        return " · ".join([*said, *([f"{speed:,.0f} steps/s"] if speed and not run.is_over else [])])


def sparkline(
    steps: Int[np.ndarray, " steps"],
    values: Float[np.ndarray, " steps"],
    span: tuple[float, float],
    width: int,
    *,
    is_log: bool = False,
    is_plain: bool = False,
) -> str:
    """Return a curve over the logarithm of the step in one line of `width` signs, the higher the larger.

    A sign stands for the last value up to the right end of its column; the lowest and highest for the ends of `span`
    and what lies beyond. On a logarithmic scale zero is the lowest; a value that is no number is a blank.
    """
    signs = _PLAIN if is_plain else _BLOCKS
    place = np.log1p(steps / LEVELS)
    ends = np.linspace(place[0], place[-1], width + 1)[1:]
    shown = values[np.searchsorted(place, ends + 1e-9, side="right") - 1]
    low, high = span
    if is_log:
        low, high, shown = np.log(low), np.log(high), np.log(np.maximum(shown, low))
    height = np.clip((shown - low) / (high - low or 1), 0, 1) * (len(signs) - 1)
    return "".join(" " if np.isnan(one) else signs[round(float(one))] for one in height)


def _span(values: Float[np.ndarray, " values"]) -> tuple[float, float]:
    """Return the smallest and the largest of the values that a logarithmic axis can have."""
    allowed = values[np.isfinite(values) & (values > 0)]
    return (float(allowed.min()), float(allowed.max())) if len(allowed) else (1.0, 1.0)


def _axis(steps: Int[np.ndarray, " steps"], width: int) -> str:
    """Return the steps under a curve: the first, powers of ten where there is room, and the last."""
    place = np.log1p(steps / LEVELS)
    first, last = f"{steps[0]:,}", f"{steps[-1]:,}"
    signs = list(first.ljust(width - len(last)) + last)[-width:] if steps[-1] > steps[0] else list(first)
    for power in range(1, len(str(int(steps[-1])))):
        said, share = f"{10**power:,}", (np.log1p(10**power / LEVELS) - place[0]) / (place[-1] - place[0] or 1)
        at = int(share * width) - 1
        room = signs[max(at - 1, 0) : at + len(said) + 1]
        if at > 0 and at + len(said) + 1 < width and set(room) == {" "}:
            signs[at : at + len(said)] = said
    return "".join(signs)
