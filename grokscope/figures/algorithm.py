"""Clock or pizza: what tells them apart, and what each explains of the circles, over the steps."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures.curves import plot_accuracies
from grokscope.figures.steps import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures.style import BLUE, PAGE_WIDTH, PALETTE, VERMILLION
from grokscope.series import Series


def plot_algorithm(series: Series, *, ax: Axes) -> Axes:
    """Draw gradient symmetricity, with two standard errors, and distance irrelevance, with their controls."""
    draw_line(series, "gradient_symmetricity", ax, BLUE, "gradient symmetricity ± 2 s.e.")
    error = 2 * series["gradient_symmetricity_stderr"]
    steps, low = broken_at_gaps(series, series["gradient_symmetricity"] - error)
    high = broken_at_gaps(series, series["gradient_symmetricity"] + error)[1]
    ax.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0)
    draw_line(series, "distance_irrelevance", ax, VERMILLION, "distance irrelevance", linestyle="--")
    label = "distance irrelevance, shuffled"
    draw_line(series, "distance_irrelevance_shuffled", ax, VERMILLION, label, linestyle=":", linewidth=1)
    for name, colour in (("gradient_symmetricity", BLUE), ("distance_irrelevance", VERMILLION)):
        ax.axhline(float(series[f"{name}_initialization"]), color=colour, linewidth=0.7, alpha=0.6)
    ax.set_ylim(min(-0.03, float(low[np.isfinite(low)].min())), 1.03)
    ax.set_ylabel("sign (thin line: untrained)")
    return finish_over_steps(series, ax)


def plot_explained_variance(series: Series, *, ax: Axes) -> Axes:
    """Draw for each isolated circle the share that the clock's (solid) and the pizza's formula (dashed) explain."""
    for i, frequency in enumerate(series["circle_frequencies"]):
        for name, style in (("clock", "-"), ("pizza", "--")):
            steps, values = broken_at_gaps(series, series[f"{name}_explained_variance"][:, i])
            label = f"k = {frequency}" if name == "clock" else None
            ax.plot(steps, values, color=PALETTE[i % len(PALETTE)], linestyle=style, linewidth=1.2, label=label)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("explained (— clock, - - pizza)")
    return finish_over_steps(series, ax)


def figure_algorithm(log: Series, algorithm: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the signs of clock and pizza, and what each explains of the circles, under the accuracies."""
    figure, axes = stack_over_steps([1, 1.3, 1.3], width)
    plot_accuracies(log, ax=axes[0])
    plot_algorithm(algorithm, ax=axes[1])
    plot_explained_variance(algorithm, ax=axes[2])
    return with_stages(figure, log, axes)
