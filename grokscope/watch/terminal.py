"""A run in the terminal: its status, losses and accuracies, and their curves over the logarithm of the step."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console, ConsoleOptions, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from grokscope import phases
from grokscope.errors import quoted_name
from grokscope.notebook import LINEAR_BELOW_STEP, format_number
from grokscope.series import Series
from grokscope.watch.watched_run import WatchedRun

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_VALUE_WIDTH = 14
"""The columns of a curve's last value and of the spaces around it."""
_LEAST_CURVE_WIDTH = 8
COLOURS = ("#56b4e9", "#f08030")
"""The colours of train and test: those of the page's dark theme, which are legible on black and on white."""


class Screen:
    """The run as rich draws it in a terminal; `line` is its one-line form for any other output."""

    def __init__(self, run: WatchedRun):
        self._run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        """Draw the run in the full width of the terminal."""
        run, log = self._run, self._run.trajectory.log
        config = run.trajectory.config
        labels = {name: log.variable(name).label for name in log.arrays}
        width = max(options.max_width - max(map(len, labels.values())) - _VALUE_WIDTH, _LEAST_CURVE_WIDTH)
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right")
        table.add_column(justify="right")
        table.add_column(no_wrap=True)
        table.add_row("step", f"{run.step:,}", ProgressBar(config.n_steps, run.step, width))
        limits = _log_limits(np.concatenate([log[name] for name in log.arrays if name.endswith("loss")]))
        for name, style in _styles(log, "loss"):
            curve = sparkline(log.steps, log[name], limits, width, is_log=True, is_ascii=options.ascii_only)
            table.add_row(labels[name], format_number(log[name][-1]), Text(curve, style))
        for name, style in _styles(log, "accuracy"):
            curve = sparkline(log.steps, log[name], (0.0, 1.0), width, is_ascii=options.ascii_only)
            table.add_row(labels[name], f"{log[name][-1]:.2%}", Text(curve, style))
        table.add_row("", "step", Text(_step_axis(log.steps, width), "dim"))
        yield Group(
            Text(f"{quoted_name(run.folder.name)}: {run.trajectory.task.formula}", "bold"),
            Text(quoted_name(run.status)),
            Text(self._progress()),
            table,
        )

    @property
    def line(self) -> str:
        """The status, losses and accuracies in one line."""
        last = {name: array[-1] for name, array in self._run.trajectory.log.arrays.items()}
        status = f"{self._run.status} {self._progress()} · {self._run.trajectory.config.loss} loss"
        if "train_loss" not in last:
            return f"{status} {last['loss']:.1e} all · accuracy {last['accuracy']:.0%} all"
        return (
            f"{status} {last['train_loss']:.1e} train "
            f"{last['test_loss']:.1e} test · accuracy {last['train_accuracy']:.0%} train "
            f"{last['test_accuracy']:.0%} test"
        )

    def _progress(self) -> str:
        """Return the stage, the number of checkpoints and the speed."""
        run = self._run
        log, n_checkpoints, speed = run.trajectory.log, len(run.trajectory), run.steps_per_second
        stage = "memorized" if phases.memorization_step(log) else "before memorization"
        stage = "generalised" if phases.generalisation_step(log) else stage
        stage = stage if run.trajectory.has_split else "training set unknown"
        parts = [stage, f"{n_checkpoints:,} {'checkpoint' if n_checkpoints == 1 else 'checkpoints'} committed"]
        if speed and not run.is_over:
            parts.append(f"{speed:,.0f} steps/s")
        return " · ".join(parts)


def sparkline(
    steps: Int[np.ndarray, " steps"],
    values: Float[np.ndarray, " steps"],
    limits: tuple[float, float],
    width: int,
    *,
    is_log: bool = False,
    is_ascii: bool = False,
) -> str:
    """Return a curve over the logarithm of the step as one line of text.

    Each column shows the last value up to its right end.

    Args:
        steps: The increasing steps.
        values: One value per step. NaN gives a space.
        limits: The values of the lowest and the highest block. Values beyond them get the same blocks.
        width: The number of columns.
        is_log: Whether the value axis is logarithmic; then zero gets the lowest block.
        is_ascii: Whether to use ASCII characters instead of blocks.
    """
    blocks = _ASCII_BLOCKS if is_ascii else _BLOCKS
    positions = np.log1p(steps / LINEAR_BELOW_STEP)
    ends = np.linspace(positions[0], positions[-1], width + 1)[1:]
    column_values = values[np.searchsorted(positions, ends + 1e-9, side="right") - 1]
    low, high = limits
    if is_log:
        low, high, column_values = np.log(low), np.log(high), np.log(np.maximum(column_values, low))
    heights = np.clip((column_values - low) / (high - low or 1), 0, 1) * (len(blocks) - 1)
    return "".join(" " if np.isnan(height) else blocks[round(float(height))] for height in heights)


def _styles(log: Series, kind: str) -> list[tuple[str, str]]:
    """Return the names of the log's losses or accuracies, each with its colour."""
    return list(zip([name for name in log.arrays if name.endswith(kind)], COLOURS, strict=False))


def _log_limits(values: Float[np.ndarray, " values"]) -> tuple[float, float]:
    """Return the smallest and the largest positive finite value; 1 and 1 if there is no such value."""
    positive = values[np.isfinite(values) & (values > 0)]
    return (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)


def _step_axis(steps: Int[np.ndarray, " steps"], width: int) -> str:
    """Return the labels under a curve: the first step, powers of ten where they fit, and the last step."""
    positions = np.log1p(steps / LINEAR_BELOW_STEP)
    length = positions[-1] - positions[0] or 1
    first, last = f"{steps[0]:,}", f"{steps[-1]:,}"
    characters = list((first.ljust(width - len(last)) + last)[-width:] if steps[-1] > steps[0] else first)
    for power in range(1, len(str(int(steps[-1])))):
        label = f"{10**power:,}"
        share = (np.log1p(10**power / LINEAR_BELOW_STEP) - positions[0]) / length
        start = int(share * width) - 1
        space = characters[max(start - 1, 0) : start + len(label) + 1]
        if start > 0 and start + len(label) + 1 < width and set(space) == {" "}:
            characters[start : start + len(label)] = label
    return "".join(characters)
