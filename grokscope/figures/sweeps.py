"""Figures over many runs: steps and accuracies against a setting, scatter plots, and curves by kind.

Their data are rows of a sweep's tables, each a mapping from column names to values.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from grokscope.figures._axes import STEP_LABEL, set_step_axis
from grokscope.figures._style import (
    DARK_GREY,
    FONT_SIZE,
    PAGE_WIDTH,
    PARTS,
    RUN_LOOKS,
    SETTING_MAP,
    Look,
    finish_axes,
    loss_label,
    new_figure,
    numbered,
)
from grokscope.series import Series

Row = Mapping[str, Any]
Curve = tuple[Int[np.ndarray, " steps"], Float[np.ndarray, " steps"]]
"""Steps, and the values at them."""


def plot_median_steps(rows: Sequence[Row], event: str, *, ax: Axes, axis: str, label: str, line: int = 0) -> Axes:
    """Draw the median step of an event against a setting, with its interval over seeds.

    An open marker at the top means that the median is beyond the budget. A bar to the top means that the interval is.

    Args:
        rows: The summary of a sweep, a row for each value of the setting.
        event: "memorized" or "generalised".
        axis: The setting, a column such as "task.train_fraction".
        label: The legend's entry.
        line: The number of the look, from 0 to 20 (`RUN_LOOKS`).
    """
    colour, style, marker = RUN_LOOKS[line % len(RUN_LOOKS)]
    x = np.array([row[axis] for row in rows], float)
    median, low, high = (np.array([row[f"{event}_{part}"] for row in rows]) for part in ("median", "low", "high"))
    finite = np.where(np.isfinite(median), median, np.nan)
    ax.plot(x, finite, color=colour, linestyle=style, marker=marker, markersize=4, label=label)
    top = ax.get_xaxis_transform()
    for setting, value, start, end in zip(x, median, low, high, strict=True):
        if np.isfinite(start) and start != end:
            if np.isfinite(end):
                ax.plot([setting, setting], [start, end], color=colour, linewidth=0.8)
            else:
                # An annotation, because the limits of the vertical axis are not known yet.
                bar = {"arrowstyle": "-", "color": colour}
                ax.annotate("", (setting, 1), (setting, start), ("data", "axes fraction"), "data", bar)
        if not np.isfinite(value):
            ax.plot(setting, 0.97, marker=marker, color=colour, markerfacecolor="white", transform=top, markersize=5)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel(STEP_LABEL)
    ax.set_xlabel(setting_label(axis))
    return finish_axes(ax)


def plot_against(
    rows: Sequence[Row], column: str, *, ax: Axes, axis: str, label: str, ylabel: str, line: int = 0
) -> Axes:
    """Draw a column of a sweep's rows against a setting. An accuracy is in percent.

    Args:
        rows: The rows of the curve, in any order.
        column: The column to draw.
        axis: The setting, a column such as "task.train_fraction".
        label: The legend's entry.
        ylabel: The label of the vertical axis.
        line: The number of the look, from 0 to 20 (`RUN_LOOKS`).
    """
    colour, style, marker = RUN_LOOKS[line % len(RUN_LOOKS)]
    scale = display_scale(column)
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
    ax.set_xlabel(setting_label(axis))
    return finish_axes(ax)


def figure_against(groups: Mapping[str, Sequence[Row]], column: str, *, axis: str, ylabel: str, title: str) -> Figure:
    """Return a column against a setting, with a curve for each group of rows and the legend on the right.

    Args:
        groups: The legend's entry → the rows of a curve.
        column, axis, ylabel: As in `plot_against`.
        title: The figure's title.
    """
    figure = new_figure(PAGE_WIDTH, 3.6)
    ax = figure.subplots()
    for line, (label, rows) in enumerate(groups.items()):
        plot_against(rows, column, ax=ax, axis=axis, label=label, ylabel=ylabel, line=line)
    ax.legend(frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def plot_curve(log: Series, name: str, *, ax: Axes, label: str, line: int = 0, ylabel: str = "") -> Axes:
    """Draw a column of a run's log on a logarithmic step axis, without step 0. An accuracy is in percent.

    Args:
        log: The run's log.
        name: The column.
        label: The legend's entry.
        line: The number of the look, from 0 to 20 (`RUN_LOOKS`).
        ylabel: The label of the vertical axis.
    """
    return _draw_log_curve(log, name, ax, label, RUN_LOOKS[line % len(RUN_LOOKS)], ylabel)


def plot_train_and_test(log: Series, quantity: str, *, ax: Axes) -> Axes:
    """Draw a run's train and test curve on a logarithmic step axis, without step 0.

    Args:
        log: The run's log.
        quantity: "accuracy" or "loss".
    """
    for part, look in PARTS.items():
        _draw_log_curve(log, f"{part}_{quantity}", ax, part, look, quantity_label(quantity, log))
    if quantity == "loss":
        ax.set_yscale("log")
    return ax


def figure_train_and_test(logs: Mapping[str, Series], quantity: str, *, title: str) -> Figure:
    """Return train and test curves of several runs, side by side on one vertical scale.

    Args:
        logs: The title of a panel → the log of its run.
        quantity: "accuracy" or "loss".
        title: The figure's title.
    """
    figure = new_figure(PAGE_WIDTH, 2.4)
    axes = figure.subplots(1, len(logs), sharey=True, squeeze=False)[0]
    for (name, log), ax in zip(logs.items(), axes, strict=True):
        plot_train_and_test(log, quantity, ax=ax)
        ax.set_title(name, fontsize=FONT_SIZE)
        ax.label_outer()
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def plot_runs(kinds: Mapping[str, Sequence[Curve]], *, ax: Axes, ylabel: str, is_log: bool = True) -> list[Line2D]:
    """Draw one quantity of many runs, a thin curve for each; return a line of each kind for a legend.

    Args:
        kinds: A kind of run → its curves. Values that are not finite are left out.
        ylabel: The label of the vertical axis.
        is_log: Whether the vertical axis is logarithmic.
    """
    lines: list[Line2D] = []
    for i, curves in enumerate(kinds.values()):
        colour, style, _ = numbered(i)
        for steps, values in curves:
            ax.plot(steps, values, color=colour, linestyle=style, linewidth=0.8, alpha=0.8)
        lines += ax.plot([], [], color=colour, linestyle=style)
    if is_log:
        ax.set_yscale("log", nonpositive="mask")
    last = int(max(steps[-1] for curves in kinds.values() for steps, _ in curves))
    set_step_axis(ax, last)
    ax.set_xticks([0, *(10**k for k in range(1, int(np.log10(last)) + 1))])
    ax.set_ylabel(ylabel)
    finish_axes(ax)
    return lines


def figure_runs(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], *, title: str, linear: Collection[str] = ()
) -> Figure:
    """Return the curves of many runs, with a panel for each quantity.

    Args:
        panels: The vertical label of a panel → its curves by kind of run (`plot_runs`).
        title: The figure's title.
        linear: The labels of the panels with a linear vertical axis. The others are logarithmic.
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
        ax.set_xlabel(STEP_LABEL)
        ax.tick_params(labelbottom=True)
    names = list(next(iter(panels.values())))
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=FONT_SIZE)
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure


def plot_scatter(
    x: Sequence[float], y: Sequence[float], *, ax: Axes, xlabel: str, ylabel: str, shade: Sequence[float], shaded: str
) -> Axes:
    """Draw a point for each run, coloured by a third quantity with its colour bar.

    Args:
        x: The horizontal position of each run.
        y: The vertical position of each run.
        xlabel: The label of the horizontal axis.
        ylabel: The label of the vertical axis.
        shade: The quantity that colours each run.
        shaded: The label of the colour bar.
    """
    points = ax.scatter(x, y, c=shade, cmap=SETTING_MAP, s=18, edgecolors=DARK_GREY, linewidths=0.3)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    bar = ax.figure.colorbar(points, ax=ax)
    bar.set_label(shaded, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    return finish_axes(ax)


def quantity_label(quantity: str, *logs: Series) -> str:
    """Return the label of an axis with the "accuracy" or the "loss" of some logs."""
    return loss_label(*logs) if quantity == "loss" else "accuracy (%)"


def _draw_log_curve(log: Series, name: str, ax: Axes, label: str, look: Look, ylabel: str) -> Axes:
    rows = log.steps > 0
    values = log[name][rows] * display_scale(name)
    ax.plot(log.steps[rows], values, color=look.colour, linestyle=look.linestyle, linewidth=1.2, label=label)
    ax.set_xscale("log")
    ax.set_xlabel(STEP_LABEL)
    ax.set_ylabel(ylabel)
    return finish_axes(ax)


def display_scale(name: str) -> int:
    """Return 100 for an accuracy, which is drawn in percent, and 1 for anything else."""
    return 100 if "accuracy" in name else 1


def setting_label(setting: str) -> str:
    """Return the label of a setting's axis, such as "weight decay"."""
    return setting.rpartition(".")[2].replace("_", " ")
