"""Curves on an axis of steps: the lines, the axis, the stages behind them, and panels one below the other."""

import math
import textwrap

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from grokscope import phases
from grokscope.figures._style import FONT_SIZE, GREY, PAGE_WIDTH, finish, new_figure
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
    shown = phases.stages(log) if stages is None else stages
    for name, first, last in shown:
        ax.axvspan(first, last, color=_STAGE_COLOURS[name], zorder=-10, linewidth=0)
    if named:
        _name_stages(ax, shown)
    for first, last in log["gaps"]:
        ax.axvspan(first, last, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=-5)
    ax.set_xlim(left, right)
    return ax


def _name_stages(ax: Axes, stages: Stages) -> None:
    """Write each stage's name above it, from the last to the first; where there is no room, none is written.

    A name that is wider than its stage ends with it, and one that is in the next one's way moves to the left.
    """
    frame = ax.get_window_extent()
    free = frame.x1 + 1
    for name, first, last in reversed(stages):
        start, end = (ax.transData.transform((step, 1))[0] for step in (first, last))
        text = ax.text(0, 1.02, name, ha="right", va="bottom", fontsize=FONT_SIZE - 1)
        width = text.get_window_extent().width
        reach = min((start + end + width) / 2 if width <= end - start else end, free)
        if reach - width < frame.x0 - 1 or reach < start or end - start < 0.04 * frame.width:
            text.remove()
            continue
        text.set_transform(ax.get_xaxis_transform())
        text.set_x(ax.transData.inverted().transform((reach, 0))[0])
        free = reach - width - 8


def stack_over_steps(heights: list[float], width: float = PAGE_WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of the given relative heights that share an axis of steps."""
    figure = new_figure(width, 1.55 * sum(heights) + 0.4)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    return figure, list(axes[:, 0])


def with_stages(figure: Figure, log: Series, axes: list[Axes], stages: Stages | None = None) -> Figure:
    """Return the figure with the stages shaded in all its panels, named above the first (see `shade_stages`)."""
    # A run that was killed, or still trains, has rows in its log beyond its last checkpoint.
    # An axis on which nothing can be drawn, as of a single update or of numbers that are none, reaches nowhere.
    reached = [ax.dataLim.x1 for ax in axes if np.isfinite(ax.dataLim.x1)]
    set_step_axis(axes[0], max(round(x) for x in [*reached, int(log.steps[-1])]))
    # Some 15 letters of this size are an inch, and half an inch is left of the panels.
    label = textwrap.fill(axes[-1].get_xlabel(), int(15 * (figure.get_figwidth() - 0.5)))
    for ax in axes:
        ax.set_xlabel(label if ax is axes[-1] else "")
        # A legend lies within its panel, whatever it is wide: it has no say in the panel's size.
        if (legend := ax.get_legend()) is not None:
            legend.set_in_layout(False)
    figure.draw_without_rendering()
    for i, ax in enumerate(axes):
        fit_legend(ax)
        shade_stages(log, ax=ax, named=i == 0, stages=stages)
    return figure


def fit_legend(ax: Axes) -> None:
    """Let a legend have as many columns as its panel is wide for, and room above the curves if it would lie on one.

    The figure must have been laid out.
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
    """Leave the top `share` of a panel free of curves; ticks stay where there is something to read."""
    low, high = ax.get_ylim()
    scale = ax.yaxis.get_transform()
    bottom, top = scale.transform([low, high])
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    ax.set_yticks(ticks)
    ax.set_ylim(low, float(scale.inverted().transform([bottom + (top - bottom) / (1 - share)])[0]))


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
    set_step_axis(ax, int(series.steps[-1]))
    ax.set_xlabel("step (optimizer updates)")
    return finish(ax)


def set_step_axis(ax: Axes, last: int) -> None:
    """Let the axis run from step 0, which has a place of its own left of the logarithmic part, to the last."""
    last = max(last, 10)
    ax.set_xscale("symlog", linthresh=10, linscale=0.35)
    ax.set_xticks(_with_room(ax, [0, *(10**k for k in range(int(math.log10(last)), 0, -1)), last], last))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(FixedLocator([m * 10**k for k in range(1, 10) for m in range(2, 10)]))
    ax.set_xlim(0, last)


def _with_room(ax: Axes, wanted: list[int], last: int) -> list[int]:
    """Return those of the wanted numbers, the first first, that stand apart from those before them.

    A digit is taken to be as wide as 0.7 of its size.
    """
    decade = 72 * ax.get_window_extent().width / ax.figure.dpi / (0.35 + math.log10(last / 10))
    kept: dict[int, tuple[float, float]] = {}
    for step in wanted:
        place = decade * (0.35 * step / 10 if step < 10 else 0.35 + math.log10(step / 10))
        half = 0.35 * FONT_SIZE * len(f"{step:,}")
        if all(abs(place - other) > half + its_half for other, its_half in kept.values()):
            kept[step] = place, half
    return sorted(kept)
