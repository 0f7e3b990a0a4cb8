"""Curves on an axis of steps: the lines, the axis, the stages behind them, and panels one below the other."""

import math

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from grokscope import phases
from grokscope.figures.style import FONT_SIZE, GREY, PAGE_WIDTH, finish, new_figure
from grokscope.series import Series

Stages = list[tuple[str, int, int]]
"""Names with their first and last steps."""

_STAGE_COLOURS = {
    "before memorization": "#F4F4F4",
    "memorized": "#FBEBD9",
    "generalised": "#DFF1EA",
    "memorization": "#F4F4F4",
    "circuit formation": "#FBEBD9",
    "cleanup": "#E3EDF9",
    "after cleanup": "#DFF1EA",
}


def shade_stages(log: Series, *, ax: Axes, named: bool = True, stages: Stages | None = None) -> Axes:
    """Shade stages behind the curves, by default those that accuracy tells (`phases.stages`), and the log's gaps."""
    left, right = ax.get_xlim()
    taken = 0.0
    for name, first, last in phases.stages(log) if stages is None else stages:
        ax.axvspan(first, last, color=_STAGE_COLOURS[name], zorder=-10, linewidth=0)
        if named:
            taken = _name_stage(ax, name, first, last, taken)
    for first, last in log["gaps"]:
        ax.axvspan(first, last, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=-5)
    ax.set_xlim(left, right)
    return ax


def _name_stage(ax: Axes, name: str, first: int, last: int, taken: float) -> float:
    """Write a stage's name above it, clear of what is written up to the pixel `taken`; return how far it reaches.

    A name that is wider than its stage ends with it, and is left out where that is over the one before.
    """
    start, end = (ax.transData.transform((step, 1))[0] for step in (first, last))
    text = ax.text(0, 1.02, name, ha="center", va="bottom", fontsize=FONT_SIZE - 1)
    width = text.get_window_extent().width
    middle = (start + end) / 2 if width <= end - start else end - width / 2
    if middle - width / 2 < taken or end - start < 0.04 * ax.get_window_extent().width:
        text.remove()
        return taken
    text.set_x(ax.transData.inverted().transform((middle, 0))[0])
    text.set_transform(ax.get_xaxis_transform())
    return middle + width / 2 + 4


def stack_over_steps(heights: list[float], width: float = PAGE_WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of the given relative heights that share an axis of steps."""
    figure = new_figure(width, 1.55 * sum(heights) + 0.4)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    return figure, list(axes[:, 0])


def with_stages(figure: Figure, log: Series, axes: list[Axes], stages: Stages | None = None) -> Figure:
    """Return the figure with the stages shaded in all its panels, named above the first (see `shade_stages`)."""
    # A run that was killed, or still trains, has rows in its log beyond its last checkpoint.
    _set_step_axis(axes[0], max(round(ax.dataLim.x1) for ax in axes))
    figure.draw_without_rendering()
    for i, ax in enumerate(axes):
        shade_stages(log, ax=ax, named=i == 0, stages=stages)
        if i + 1 < len(axes):
            ax.set_xlabel("")
    return figure


def draw_line(
    series: Series,
    name: str,
    ax: Axes,
    colour: str,
    label: str,
    *,
    scale: float = 1.0,
    linestyle: str = "-",
    linewidth: float = 1.4,
    marker: str = "",
) -> None:
    """Draw one of a series' arrays over its steps, broken where checkpoints are lost."""
    steps, values = broken_at_gaps(series, series[name] * scale)
    ax.plot(
        steps,
        values,
        color=colour,
        label=label,
        linestyle=linestyle,
        linewidth=linewidth,
        marker=marker,
        markersize=3,
    )


def broken_at_gaps(
    series: Series, values: Float[np.ndarray, " steps"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return steps and values with a break in each gap, so that no line is drawn across what is lost."""
    gaps = series["gaps"] if "gaps" in series else np.empty((0, 2))
    places = [int(np.searchsorted(series.steps, first)) for first, _ in gaps]
    return (
        np.insert(series.steps.astype(float), places, [float(first) for first, _ in gaps]),
        np.insert(values.astype(float), places, np.nan),
    )


def finish_over_steps(series: Series, ax: Axes) -> Axes:
    """Give an Axes the axis of a series' steps and the common look."""
    _set_step_axis(ax, int(series.steps[-1]))
    ax.set_xlabel("step (optimizer updates)")
    return finish(ax)


def _set_step_axis(ax: Axes, last: int) -> None:
    """Let the axis run from step 0, which has a place of its own left of the logarithmic part, to the last."""
    last = max(last, 10)
    ax.set_xscale("symlog", linthresh=10, linscale=0.35)
    ticks = [0, *(10**k for k in range(1, int(math.log10(last)) + 1))]
    if last > 2 * ticks[-1]:
        ticks.append(last)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(FixedLocator([m * 10**k for k in range(1, 10) for m in range(2, 10)]))
    ax.set_xlim(0, last)
