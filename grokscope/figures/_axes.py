"""Curves over training steps: the lines, their step axis, the stages behind them, and stacks of panels."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from grokscope import phases
from grokscope.figures._style import (
    FONT_SIZE,
    GREY,
    LOOKS,
    PAGE_WIDTH,
    STAGE_COLOURS,
    Look,
    finish_axes,
    new_figure,
    numbered,
)
from grokscope.series import Series

Stages = list[tuple[str, int, int]]
"""The name, first step and last step of each stage."""
STEP_LABEL = "optimizer step"


def draw_line(
    series: Series,
    name: str,
    ax: Axes,
    label: str,
    look: Look | None = None,
    *,
    scale: float = 1.0,
    linewidth: float = 1.4,
) -> None:
    """Draw `scale` times one array over the steps, with a break in each gap.

    Args:
        series: The series that contains the array and, optionally, the constant `gaps`.
        name: The array's name.
        ax: The Axes to draw on.
        label: The legend's entry. The legend leaves out labels that start with an underscore.
        look: Colour, line style and marker. The default is `LOOKS[name]`.
        scale: A factor, such as 100 for percent.
        linewidth: The width in points.
    """
    draw_values(series, series[name] * scale, ax, label, look or LOOKS[name], linewidth=linewidth)


def draw_values(
    series: Series,
    values: Float[np.ndarray, " steps"],
    ax: Axes,
    label: str | None,
    look: Look,
    *,
    linewidth: float = 1.4,
    zorder: float = 2,
) -> None:
    """Draw values over the steps of a series, with a break in each gap."""
    steps, heights = broken_at_gaps(series, values)
    ax.plot(
        steps,
        heights,
        color=look.colour,
        label=label,
        linestyle=look.linestyle,
        marker=look.marker,
        linewidth=linewidth,
        markersize=3,
        zorder=zorder,
    )


def draw_columns(series: Series, name: str, labels: Sequence[str], ax: Axes) -> None:
    """Draw each column of an array over the steps, in the looks `numbered(0)`, `numbered(1)`, …"""
    for i, label in enumerate(labels):
        draw_values(series, series[name][:, i], ax, label, numbered(i))


def draw_band(
    series: Series,
    low: Float[np.ndarray, " steps"],
    high: Float[np.ndarray, " steps"],
    ax: Axes,
    colour: str,
    *,
    alpha: float = 0.25,
) -> None:
    """Shade between two curves over the steps, with a break in each gap."""
    steps, bottom = broken_at_gaps(series, low)
    ax.fill_between(steps, bottom, broken_at_gaps(series, high)[1], color=colour, alpha=alpha, linewidth=0)


def draw_controls(series: Series, name: str, ax: Axes, label: str, *, scale: float = 1.0) -> None:
    """Draw those controls of an array that exist: shuffled tokens dotted, the untrained model as a thin level."""
    colour = LOOKS[name].colour
    if f"{name}_shuffled" in series:
        draw_line(series, f"{name}_shuffled", ax, f"_{label}, shuffled", Look(colour, ":"), scale=scale, linewidth=1)
        add_key(ax, "shuffled tokens", Look(GREY, ":"))
    if f"{name}_initialization" in series:
        level = scale * float(series[f"{name}_initialization"])
        ax.axhline(level, color=colour, linewidth=0.7, alpha=0.6, label=f"_{label}, untrained")
        add_key(ax, "untrained model", Look(GREY), linewidth=0.7)


def draw_untrained(ax: Axes, value: float, colour: str) -> None:
    """Draw the value of the untrained model as a cross at step 0."""
    ax.plot([0], [value], color=colour, marker="x", markersize=4, linestyle="", clip_on=False, zorder=4)
    add_key(ax, "untrained model", Look(GREY, "none", "x"))


def add_key(ax: Axes, label: str, look: Look, *, linewidth: float = 1.0) -> None:
    """Add a legend entry that explains a line style, unless the legend has that entry."""
    if label not in ax.get_legend_handles_labels()[1]:
        colour, linestyle, marker = look
        ax.plot(
            [], [], color=colour, linestyle=linestyle, marker=marker, markersize=4, linewidth=linewidth, label=label
        )


def broken_at_gaps(
    series: Series, values: Float[np.ndarray, " steps"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return steps and values with a NaN in each gap, so that no line crosses lost checkpoints."""
    gaps = series["gaps"] if "gaps" in series else np.empty((0, 2))
    rows = [int(np.searchsorted(series.steps, first)) for first, _ in gaps]
    return (
        np.insert(series.steps.astype(float), rows, [float(first) for first, _ in gaps]),
        np.insert(values.astype(float), rows, np.nan),
    )


def use_log_scale_if_positive(ax: Axes, *arrays: np.ndarray) -> None:
    """Give the vertical axis a logarithmic scale if there are values and all are positive."""
    if all(array.size and (array > 0).all() for array in arrays):
        ax.set_yscale("log")


def finish_step_axes(series: Series, ax: Axes, ylabel: str) -> Axes:
    """Set the vertical label, the step axis of a series and the common look; return the Axes."""
    ax.set_ylabel(ylabel)
    ax.set_xlabel(STEP_LABEL)
    set_step_axis(ax, int(series.steps[-1]))
    return finish_axes(ax)


def set_step_axis(ax: Axes, last: int) -> None:
    """Set a step axis from 0 to `last`: linear up to step 10, so that step 0 has a position, then logarithmic."""
    last = max(last, 10)
    ax.set_xscale("symlog", linthresh=10, linscale=0.35)
    ax.set_xticks(_ticks_with_room(ax, [0, *(10**k for k in range(int(math.log10(last)), 0, -1)), last], last))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(FixedLocator([m * 10**k for k in range(1, 10) for m in range(2, 10)]))
    ax.set_xlim(0, last)


def _ticks_with_room(ax: Axes, steps: list[int], last: int) -> list[int]:
    """Return the steps whose labels do not overlap those of earlier steps in the list, assuming 0.7 em a digit."""
    decade = 72 * ax.get_window_extent().width / ax.figure.dpi / (0.35 + math.log10(last / 10))
    extents: dict[int, tuple[float, float]] = {}
    for step in steps:
        centre = decade * (0.35 * step / 10 if step < 10 else 0.35 + math.log10(step / 10))
        half_width = 0.35 * FONT_SIZE * len(f"{step:,}")
        if all(abs(centre - c) > half_width + h for c, h in extents.values()):
            extents[step] = centre, half_width
    return sorted(extents)


def shade_stages(log: Series, *, ax: Axes, named: bool = True, stages: Stages | None = None) -> Axes:
    """Shade the stages of training behind the curves, and hatch the gaps of the log.

    Args:
        log: The run's log, with the constant `gaps`.
        ax: The Axes to draw on. Its limits do not change.
        named: Whether to write the stages' names above the panel.
        stages: The stages to shade. By default those that accuracy defines (`phases.stages`).
    """
    left, right = ax.get_xlim()
    stages = phases.stages(log) if stages is None else stages
    for name, first, last in stages:
        ax.axvspan(first, last, color=STAGE_COLOURS[name], zorder=-10, linewidth=0)
    if named:
        _name_stages(ax, stages)
    for first, last in log["gaps"]:
        ax.axvspan(first, last, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=-5)
    ax.set_xlim(left, right)
    return ax


def _name_stages(ax: Axes, stages: Stages) -> None:
    """Write each stage's name above its shade, from the last to the first; skip a name without room.

    A name wider than its stage is right-aligned with it, and moves left to clear the following name.
    """
    frame = ax.get_window_extent()
    right_limit = frame.x1 + 1
    for name, first, last in reversed(stages):
        start, end = (ax.transData.transform((step, 1))[0] for step in (first, last))
        text = ax.text(0, 1.02, name, ha="right", va="bottom", fontsize=FONT_SIZE - 1)
        width = text.get_window_extent().width
        right = min((start + end + width) / 2 if width <= end - start else end, right_limit)
        if right - width < frame.x0 - 1 or right < start or end - start < 0.04 * frame.width:
            text.remove()
            continue
        text.set_transform(ax.get_xaxis_transform())
        text.set_x(ax.transData.inverted().transform((right, 0))[0])
        right_limit = right - width - 8


def stack_panels(heights: list[float], width: float = PAGE_WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, one above the other, with the given relative heights and one step axis."""
    figure = new_figure(width, 1.55 * sum(heights) + 0.4)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    return figure, list(axes[:, 0])


def finish_stack(figure: Figure, log: Series, axes: list[Axes], stages: Stages | None = None) -> Figure:
    """Set the common step axis, fit the legends and shade the stages in all panels; return the figure."""
    # The log of a killed or unfinished run reaches beyond the last checkpoint. An empty panel has no finite limits.
    last_steps = [ax.dataLim.x1 for ax in axes if np.isfinite(ax.dataLim.x1)]
    set_step_axis(axes[0], max(round(step) for step in [*last_steps, int(log.steps[-1])]))
    # About 15 letters fit into an inch, and the panels start half an inch from the left.
    label = textwrap.fill(axes[-1].get_xlabel(), int(15 * (figure.get_figwidth() - 0.5)))
    for ax in axes:
        ax.set_xlabel(label if ax is axes[-1] else "")
        ax.set_ylabel(textwrap.fill(ax.get_ylabel(), int(15 * ax.get_window_extent().height / figure.dpi)))
        # A legend must not change the size of its panel.
        if (legend := ax.get_legend()) is not None:
            legend.set_in_layout(False)
    figure.draw_without_rendering()
    for i, ax in enumerate(axes):
        fit_legend(ax)
        shade_stages(log, ax=ax, named=i == 0, stages=stages)
    return figure


def fit_legend(ax: Axes) -> None:
    """Rearrange a legend's columns to fit its panel, and make room above the curves if the legend covers one.

    Call this after the figure's layout is known.
    """
    legend = ax.get_legend()
    if legend is None:
        return
    frame, n_columns = ax.get_window_extent(), legend._ncols  # pyright: ignore[reportAttributeAccessIssue]
    size = legend.get_texts()[0].get_fontsize()
    while legend.get_window_extent().width > frame.width and n_columns > 1:
        n_columns -= 1
        legend = ax.legend(frameon=False, fontsize=size, ncols=n_columns, loc="best")
    if any(_crosses(line, legend) for line in ax.lines):
        n_columns = len(legend.get_texts())
        while True:
            legend = ax.legend(
                frameon=False, fontsize=size, ncols=n_columns, loc="upper left", borderaxespad=0.2, columnspacing=1
            )
            box = legend.get_window_extent()
            if box.width <= frame.width or n_columns == 1:
                break
            n_columns -= 1
        _raise_top(ax, min((box.height + 4) / frame.height, 0.6))
    legend.set_in_layout(False)


def _crosses(line: Line2D, legend: Legend) -> bool:
    path = line.get_transform().transform_path(line.get_path())
    return bool(np.size(path.vertices)) and path.intersects_bbox(legend.get_window_extent(), filled=False)


def _raise_top(ax: Axes, share: float) -> None:
    """Extend the vertical axis so that the top `share` of the panel is free of curves and ticks."""
    low, high = ax.get_ylim()
    scale = ax.yaxis.get_transform()
    bottom, top = scale.transform([low, high])
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    ax.set_yticks(ticks)
    ax.set_ylim(low, float(scale.inverted().transform([bottom + (top - bottom) / (1 - share)])[0]))
