"""Families of sharpness over the steps: worst case, average case, noise radii and rescaling-invariant measures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from grokscope import phases
from grokscope.figures._axes import draw_band, draw_values, finish_stack, finish_step_axes, stack_panels
from grokscope.figures._style import FONT_SIZE, PAGE_WIDTH, Look, loss_label, numbered
from grokscope.figures.curves import plot_accuracies, plot_losses
from grokscope.series import Series

Line = tuple[Series, str, str]
"""A series, the name of one of its arrays, and the label of the curve."""


def plot_flatness(
    lines: Sequence[Line],
    *,
    ax: Axes,
    unit: str = "",
    has_confidence_intervals: bool = False,
) -> Axes:
    """Draw measures of flatness on a logarithmic axis, each with two standard errors if it has them.

    A value at the limit of its search, whose interval is a point, is left out.

    Args:
        lines: The curves to draw.
        unit: The label of the vertical axis; by default that of a rise of the train loss.
        has_confidence_intervals: Whether the intervals of the curves are confidence intervals, which are then drawn
            instead of two standard errors. Intervals of a search are not drawn.
    """
    for i, (series, name, label) in enumerate(lines):
        values, look = phases.resolved_values(series, name), numbered(i)
        draw_values(series, values, ax, label, Look(look.colour, look.linestyle, "o"))
        if has_confidence_intervals:
            low, high = series[f"{name}_interval"].T
        elif f"{name}_stderr" in series and series[f"{name}_stderr"].any():
            error = 2 * series[f"{name}_stderr"]
            low, high = values - error, values + error
        else:
            continue
        # A logarithmic axis ends above zero, so the band ends at a hundredth of the value.
        draw_band(series, np.maximum(low, values / 100), high, ax, look.colour)
    if any((series[name] > 0).any() for series, name, _ in lines):
        ax.set_yscale("log", nonpositive="mask")
        low, high = ax.get_ylim()
        if high < 100 * low:
            # Less than two decades have too few powers of ten for ticks.
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
    finish_step_axes(lines[0][0], ax, unit or f"rise of the {loss_label(lines[0][0], name='train loss')}")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, loc="best")
    return ax


def figure_flatness(
    log: Series, sam: Series, average: Series, fisher_rao: Series, relative: Series, *, width: float = PAGE_WIDTH
) -> Figure:
    """Return losses and accuracies above four families of sharpness.

    The panels show the worst-case and the mean rise of the train loss, the radius of tolerated noise, and measures
    that no rescaling of layers changes. A sharp minimum is low in the radius and high in all others.

    Args:
        log: The run's log.
        sam: The measure `sam_sharpness`.
        average: The measure `average_sharpness`.
        fisher_rao: The measure `fisher_rao_norm`.
        relative: The measure `relative_flatness`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.2, 0.8, 1.3, 1.3, 1, 1.3], width)
    plot_losses(log, ax=axes[0])
    plot_accuracies(log, ax=axes[1])
    loss = loss_label(log, name="train loss")
    worst = [
        (sam, "sam_sharpness", "worst case"),
        (sam, "sam_sharpness_step", "one gradient step (SAM)"),
        (sam, "adaptive_sam_sharpness", "adaptive worst case"),
        (sam, "adaptive_sam_sharpness_step", "adaptive, one step (ASAM)"),
    ]
    plot_flatness(worst, ax=axes[2], unit=f"worst rise of {loss}")
    mean = [
        (average, "average_sharpness", "Gaussian noise, 95% interval"),
        (average, "adaptive_average_sharpness", "adaptive noise, 95% interval"),
    ]
    plot_flatness(mean, ax=axes[3], unit=f"mean rise of {loss}", has_confidence_intervals=True)
    radii = [
        (average, "perturbation_radius", "noise that costs 10% of the accuracy"),
        (average, "adaptive_perturbation_radius", "the same, relative to |w|"),
    ]
    plot_flatness(radii, ax=axes[4], unit="noise radius σ")
    invariant = [
        (fisher_rao, "fisher_rao_norm", "Fisher–Rao norm"),
        (fisher_rao, "empirical_fisher_rao_norm", "empirical Fisher–Rao norm"),
        (relative, "relative_flatness", "relative flatness κ of W_U"),
    ]
    plot_flatness(invariant, ax=axes[5], unit="rescaling-invariant")
    return finish_stack(figure, log, axes)
