"""Curves with bands over seeds."""

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import STEP_LABEL
from grokscope.figures._style import FONT_SIZE, PAGE_WIDTH, PARTS, finish_axes, new_figure
from grokscope.figures.sweeps import display_scale, quantity_label
from grokscope.series import Series


def plot_bands(logs: Sequence[Series], quantity: str, *, ax: Axes) -> Axes:
    """Draw train and test curves of runs that differ in seeds: the median, and a band from the lowest to the highest.

    Only the steps that every log contains are drawn, on a logarithmic axis without step 0.

    Args:
        logs: The logs of the runs, at least one.
        quantity: "accuracy" or "loss".
    """
    steps = reduce(np.intersect1d, [log.steps[log.steps > 0] for log in logs])
    for part, look in PARTS.items():
        name = f"{part}_{quantity}"
        values = np.stack([log[name][np.isin(log.steps, steps)] for log in logs]) * display_scale(name)
        label = f"{part}, median of {len(logs)} runs"
        ax.plot(steps, np.median(values, 0), color=look.colour, linestyle=look.linestyle, linewidth=1.2, label=label)
        ax.fill_between(steps, values.min(0), values.max(0), color=look.colour, alpha=0.2, linewidth=0)
    ax.set_xscale("log")
    if quantity == "loss":
        ax.set_yscale("log")
    ax.set_xlabel(STEP_LABEL)
    ax.set_ylabel(quantity_label(quantity, *logs))
    return finish_axes(ax)


def figure_bands(kinds: Mapping[str, Sequence[Series]], quantity: str, *, title: str) -> Figure:
    """Return the curves of several kinds of runs with bands over seeds, side by side on one vertical scale.

    Args:
        kinds: The title of a panel → the logs of its runs (`plot_bands`).
        quantity: "accuracy" or "loss".
        title: The figure's title.
    """
    figure = new_figure(PAGE_WIDTH, 2.4)
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for (name, logs), ax in zip(kinds.items(), axes, strict=True):
        plot_bands(logs, quantity, ax=ax)
        ax.legend(frameon=False, fontsize=FONT_SIZE)
        ax.set_title(name, fontsize=FONT_SIZE)
        ax.label_outer()
    figure.suptitle(title, fontsize=FONT_SIZE, parse_math=False)
    return figure
