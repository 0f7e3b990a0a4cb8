"""Figures over many runs: steps and accuracies against a setting, the phase diagram, a scatter of two quantities.

Their data are the rows of a sweep's tables: mappings from a column's name to a value.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from grokscope.figures._axes import set_step_axis
from grokscope.figures._style import (
    BLUE,
    FONT_SIZE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    SKY,
    VERMILLION,
    finish,
    new_figure,
)
from grokscope.series import Series

Row = Mapping[str, Any]
Curve = tuple[Int[np.ndarray, " steps"], Float[np.ndarray, " steps"]]
"""Steps and what was measured at them."""

LINES = [
    (colour, style, marker)
    for style, marker in (("-", "o"), ("--", "s"), (":", "^"))
    for colour in (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)
]
"""Colour, line style and marker of each of 21 lines; then they begin again."""

KINDS = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))
"""Colour and line style of each of four kinds of run; then they begin again."""

_PHASES = {
    "comprehension": (GREEN, "C"),
    "grokking": (ORANGE, "G"),
    "memorization": (SKY, "M"),
    "confusion": ("#BBBBBB", "–"),
}


def plot_median_steps(rows: Sequence[Row], event: str, *, ax: Axes, axis: str, label: str, line: int = 0) -> Axes:
    """Draw an event's median step with its interval against a setting; an open mark on top is later than the budget.

    `rows` are a sweep's summary, `event` is "memorized" or "generalised".
    """
    colour, style, marker = LINES[line % len(LINES)]
    x = np.array([row[axis] for row in rows], float)
    median, low, high = (np.array([row[f"{event}_{part}"] for row in rows]) for part in ("median", "low", "high"))
    shown = np.where(np.isfinite(median), median, np.nan)
    ax.plot(x, shown, color=colour, linestyle=style, marker=marker, markersize=4, label=label)
    top = ax.get_xaxis_transform()
    for at, value, start, end in zip(x, median, low, high, strict=True):
        if np.isfinite(start) and start != end:
            # An interval without an end reaches to the top of the plot, wherever that will be.
            if np.isfinite(end):
                ax.plot([at, at], [start, end], color=colour, linewidth=0.8)
            else:
                ax.annotate(
                    "", (at, 1), (at, start), ("data", "axes fraction"), "data", {"arrowstyle": "-", "color": colour}
                )
        if not np.isfinite(value):
            ax.plot(at, 0.97, marker=marker, color=colour, markerfacecolor="white", transform=top, markersize=5)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel("step (optimizer updates)")
    ax.set_xlabel(axis.rpartition(".")[2].replace("_", " "))
    return finish(ax)


def plot_against(
    rows: Sequence[Row], column: str, *, ax: Axes, axis: str, label: str, ylabel: str, line: int = 0
) -> Axes:
    """Draw a column of a sweep's rows against a setting, in percent if it is an accuracy."""
    colour, style, marker = LINES[line % len(LINES)]
    scale = 100 if "accuracy" in column else 1
    ordered = sorted(rows, key=lambda row: row[axis])
    ax.plot(
        [row[axis] for row in ordered],
        [row[column] * scale for row in ordered],
        color=colour,
        linestyle=style,
        marker=marker,
        markersize=3.5,
        linewidth=1.2,
        label=label,
    )
    ax.set_ylabel(ylabel)
    ax.set_xlabel(axis.rpartition(".")[2].replace("_", " "))
    return finish(ax)


def figure_against(groups: Mapping[str, Sequence[Row]], column: str, *, axis: str, ylabel: str, title: str) -> Figure:
    """Return a column against a setting, a line for each named group of rows, their names beside the plot."""
    figure = new_figure(PAGE_WIDTH, 3.6)
    ax = figure.subplots()
    for line, (label, rows) in enumerate(groups.items()):
        plot_against(rows, column, ax=ax, axis=axis, label=label, ylabel=ylabel, line=line)
    ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def figure_train_and_test(logs: Mapping[str, Series], quantity: str, *, title: str) -> Figure:
    """Return train and test "accuracy" or "loss" over the decades of steps, a panel for each named run's log."""
    figure = new_figure(PAGE_WIDTH, 2.4)
    axes = figure.subplots(1, len(logs), sharey=True, squeeze=False)[0]
    for (name, log), ax in zip(logs.items(), axes, strict=True):
        plot_train_and_test(log, quantity, ax=ax)
        ax.set_title(name, fontsize=FONT_SIZE)
        ax.label_outer()
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def plot_train_and_test(log: Series, quantity: str, *, ax: Axes) -> Axes:
    """Draw a run's train and test "accuracy" or "loss" on a logarithmic step axis."""
    ylabel = {"accuracy": "accuracy (%)", "loss": "cross-entropy (nats)"}[quantity]
    for line, part in enumerate(("train", "test")):
        plot_curve(log, f"{part}_{quantity}", ax=ax, label=part, line=8 * line, ylabel=ylabel)
    if quantity == "loss":
        ax.set_yscale("log")
    return ax


def plot_phase_diagram(rows: Sequence[Row], *, ax: Axes, x: str, y: str) -> Axes:
    """Draw Liu et al.'s phase of each cell over two settings: the colour and letter of most of its seeds.

    Where seeds differ, the cell says how many of them are in that phase.
    """
    columns, lines = (sorted({row[axis] for row in rows}) for axis in (x, y))
    for row, at_y in enumerate(lines):
        for column, at_x in enumerate(columns):
            found = Counter(one["phase"] for one in rows if (one[x], one[y]) == (at_x, at_y))
            if not found:
                continue
            phase, count = found.most_common(1)[0]
            colour, letter = _PHASES[phase]
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
            text = letter if count == found.total() else f"{letter} {count}/{found.total()}"
            ax.text(column, row, text, ha="center", va="center", fontsize=FONT_SIZE)
    ax.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    ax.set_yticks(range(len(lines)), [f"{value:g}" for value in lines])
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(-0.5, len(lines) - 0.5)
    ax.set_xlabel(x.rpartition(".")[2].replace("_", " "))
    ax.set_ylabel(y.rpartition(".")[2].replace("_", " "))
    finish(ax)
    handles = [Patch(color=colour, label=f"{letter}  {phase}") for phase, (colour, letter) in _PHASES.items()]
    ax.legend(handles=handles, frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1))
    return ax


def plot_runs(kinds: Mapping[str, Sequence[Curve]], *, ax: Axes, ylabel: str, is_log: bool = True) -> list[Line2D]:
    """Draw a quantity of many runs over their steps, a thin line each; return a line of each kind for a legend.

    Kinds of run have a colour and a style of their own. What is not a number is left out.
    """
    lines: list[Line2D] = []
    for runs, (colour, style) in zip(kinds.values(), cycle(KINDS), strict=False):
        for steps, values in runs:
            ax.plot(steps, values, color=colour, linestyle=style, linewidth=0.8, alpha=0.8)
        lines += ax.plot([], [], color=colour, linestyle=style)
    if is_log:
        ax.set_yscale("log", nonpositive="mask")
    last = int(max(steps[-1] for runs in kinds.values() for steps, _ in runs))
    set_step_axis(ax, last)
    ax.set_xticks([0, *(10**k for k in range(1, int(np.log10(last)) + 1))])
    ax.set_ylabel(ylabel)
    finish(ax)
    return lines


def figure_runs(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], *, title: str, linear: Collection[str] = ()
) -> Figure:
    """Return a panel for each quantity, named by its axis, with the curves of all runs (`plot_runs`).

    The axes are logarithmic but for those named `linear`.
    """
    n_rows = -(-len(panels) // 3)
    figure = new_figure(PAGE_WIDTH, 1.7 * n_rows + 0.6)
    axes = figure.subplots(n_rows, 3, sharex=True, squeeze=False).flatten()
    lines: list[Line2D] = []
    for (ylabel, kinds), ax in zip(panels.items(), axes, strict=False):
        lines = plot_runs(kinds, ax=ax, ylabel=ylabel, is_log=ylabel not in linear)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[max(len(panels) - 3, 0) : len(panels)]:
        ax.set_xlabel("step (optimizer updates)")
        ax.tick_params(labelbottom=True)
    names = list(next(iter(panels.values())))
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE)
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def plot_scatter(
    x: Sequence[float], y: Sequence[float], *, ax: Axes, xlabel: str, ylabel: str, shade: Sequence[float], shaded: str
) -> Axes:
    """Draw one point a run, its shade a third quantity, and a colour bar that says which."""
    points = ax.scatter(x, y, c=shade, cmap="cividis", s=18, edgecolors="#404040", linewidths=0.3)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    bar = ax.figure.colorbar(points, ax=ax)
    bar.set_label(shaded, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    return finish(ax)


def plot_curve(log: Series, name: str, *, ax: Axes, label: str, line: int = 0, ylabel: str = "") -> Axes:
    """Draw one column of a run's log on a logarithmic step axis, as one of several runs."""
    colour, style, _ = LINES[line % len(LINES)]
    scale = 100 if "accuracy" in name else 1
    positive = log.steps > 0
    ax.plot(
        log.steps[positive],
        log[name][positive] * scale,
        color=colour,
        linestyle=style,
        linewidth=1.2,
        label=label,
    )
    ax.set_xscale("log")
    ax.set_xlabel("step (optimizer updates)")
    ax.set_ylabel(ylabel)
    return finish(ax)
