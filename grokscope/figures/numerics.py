"""Numerics over the step: collapsed examples and gradients in each precision, naive loss minimization, margins."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import BLUE, FONT_SIZE, PAGE_WIDTH, VERMILLION
from grokscope.figures.curves import plot_losses
from grokscope.figures.norms import columns, plot_columns
from grokscope.series import Series


def plot_collapse(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the share of train examples whose softmax has collapsed in each precision, in percent."""
    names = numerics.words("dtypes")
    percent = Series(
        "numerics", numerics.steps, {"share": 100 * numerics["collapse_share"]}, {"gaps": numerics["gaps"]}
    )
    plot_columns(columns(percent, "share", names), names, ax=ax)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("collapsed (%)")
    return ax


def plot_gradient_norms(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the norm of the train loss's gradient, the loss being computed in each precision."""
    names = numerics.words("dtypes")
    plot_columns(columns(numerics, "gradient_norm", names), names, ax=ax)
    if (numerics["gradient_norm"] > 0).any():
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("gradient ‖∇L‖")
    return ax


def plot_naive_loss(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the cosine of −∇L with all weights and with each component's: above 0, scaling up lowers the loss."""
    names = numerics.words("components")
    draw_line(numerics, "naive_loss_cosine", ax, "black", "all", linewidth=1)
    plot_columns(columns(numerics, "component_naive_loss_cosines", names), names, ax=ax)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_ylabel("cosine of −∇L and w")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=6, loc="best")
    return ax


def plot_margins(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the median margin on train and test, between the quartiles and between the 1% and 99% quantiles."""
    quantiles = np.round(numerics["quantiles"], 3).tolist()
    for part, colour, style in (("train", BLUE, "-"), ("test", VERMILLION, "--")):
        if f"{part}_margins" not in numerics:
            continue
        every = columns(numerics, f"{part}_margins", [str(q) for q in quantiles])
        draw_line(every, "0.5", ax, colour, part, linestyle=style)
        for low, high, alpha in (("0.25", "0.75", 0.3), ("0.01", "0.99", 0.15)):
            steps, lower = broken_at_gaps(every, every[low])
            upper = broken_at_gaps(every, every[high])[1]
            ax.fill_between(steps, lower, upper, color=colour, alpha=alpha, linewidth=0)
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_ylabel("margin (logits)")
    return finish_over_steps(numerics, ax)


def figure_numerics(log: Series, numerics: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses, collapse, gradients, naive loss minimization and margins on one step axis, the stages shaded."""
    figure, axes = stack_over_steps([1, 0.8, 0.9, 1.1, 1.1], width)
    plot_losses(log, ax=axes[0])
    plot_collapse(numerics, ax=axes[1])
    plot_gradient_norms(numerics, ax=axes[2])
    plot_naive_loss(numerics, ax=axes[3])
    plot_margins(numerics, ax=axes[4])
    return with_stages(figure, log, axes)
