"""Flatness: what the families of sharpness say of one run, each beneath the losses on the same axis of steps."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from grokscope import phases
from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import BLUE, FONT_SIZE, GREEN, PAGE_WIDTH, PURPLE, VERMILLION
from grokscope.figures.curves import plot_accuracies, plot_losses
from grokscope.series import Series

Line = tuple[Series, str, str]
"""A series, the name of one of its arrays, and what the line is called."""

_LOOKS = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))


def plot_flatness(lines: Sequence[Line], *, ax: Axes, unit: str = "rise of the train loss (nats)") -> Axes:
    """Draw measures of flatness on a logarithmic axis, each with two standard errors where it has one.

    Where a search was cut off at its limit, its interval a point, there is no value to draw.
    """
    for (series, name, label), (colour, style) in zip(lines, cycle(_LOOKS), strict=False):
        values = phases.known(series, name)
        error = 2 * series[f"{name}_stderr"] if f"{name}_stderr" in series else np.zeros_like(values)
        shown = replace(series, arrays={name: values})
        draw_line(shown, name, ax, colour, label, linestyle=style, marker="o")
        if error.any():
            # Below zero there is no logarithm: the band then ends at a hundredth of the value.
            steps, low = broken_at_gaps(series, np.maximum(values - error, values / 100))
            high = broken_at_gaps(series, values + error)[1]
            ax.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
    if any((series[name] > 0).any() for series, name, _ in lines):
        ax.set_yscale("log", nonpositive="mask")
        low, high = ax.get_ylim()
        if high < 100 * low:
            # Powers of ten alone would be too few numbers.
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel(unit)
    finish_over_steps(lines[0][0], ax)
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, loc="best")
    return ax


def figure_flatness(
    log: Series, sam: Series, average: Series, fisher_rao: Series, relative: Series, *, width: float = PAGE_WIDTH
) -> Figure:
    """Return losses and accuracies over worst-case and average-case sharpness, radii, and what no rescaling changes.

    The series are the measures `sam_sharpness`, `average_sharpness`, `fisher_rao_norm` and `relative_flatness`. Bands
    are two standard errors. In the third and fourth panel high is sharp, in the fifth low is, in the last high.
    """
    figure, axes = stack_over_steps([1.2, 0.8, 1.3, 1.3, 1, 1.3], width)
    plot_losses(log, ax=axes[0])
    plot_accuracies(log, ax=axes[1])
    worst = [
        (sam, "sam_sharpness", "worst case in a ball"),
        (sam, "sam_sharpness_step", "after one gradient step"),
        (sam, "adaptive_sam_sharpness", "worst case, adaptive"),
        (sam, "adaptive_sam_sharpness_step", "one step, adaptive"),
    ]
    plot_flatness(worst, ax=axes[2], unit="worst rise (nats)")
    mean = [
        (average, "average_sharpness", "Gaussian noise ± 2 s.e."),
        (average, "adaptive_average_sharpness", "adaptive noise ± 2 s.e."),
    ]
    plot_flatness(mean, ax=axes[3], unit="mean rise (nats)")
    radii = [
        (average, "perturbation_radius", "σ that costs a tenth of the answers"),
        (average, "adaptive_perturbation_radius", "the same, in units of |w|"),
    ]
    plot_flatness(radii, ax=axes[4], unit="radius σ")
    free = [
        (fisher_rao, "fisher_rao_norm", "Fisher–Rao norm"),
        (fisher_rao, "empirical_fisher_rao_norm", "Fisher–Rao norm, of the labels"),
        (relative, "relative_flatness", "relative flatness κ of W_U"),
    ]
    plot_flatness(free, ax=axes[5], unit="rescaling-invariant")
    return with_stages(figure, log, axes)
