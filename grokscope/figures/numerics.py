"""Numerics over the steps: softmax collapse and gradients by precision, naive loss minimization, and margins."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import (
    draw_band,
    draw_columns,
    draw_line,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
)
from grokscope.figures._style import BLACK, FONT_SIZE, PAGE_WIDTH, PARTS, WHOLE, loss_name, numbered
from grokscope.figures.curves import plot_losses
from grokscope.series import Series


def plot_collapse(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the percentage of train examples whose softmax has collapsed, for each precision.

    Args:
        numerics: The measure `numerics`.
    """
    for i, dtype in enumerate(numerics.words("dtypes")):
        draw_values(numerics, 100 * numerics["collapse_share"][:, i], ax, dtype, numbered(i))
    ax.set_ylim(-3, 103)
    return finish_step_axes(numerics, ax, "collapsed (%)")


def plot_gradient_norms(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the norm of the gradient of the train loss, with the loss computed in each precision.

    Args:
        numerics: The measure `numerics`.
    """
    draw_columns(numerics, "gradient_norm", numerics.words("dtypes"), ax)
    if (numerics["gradient_norm"] > 0).any():
        ax.set_yscale("log", nonpositive="mask")
    return finish_step_axes(numerics, ax, f"‖∇L‖, {loss_name(numerics)}")


def plot_naive_loss(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the cosine of −∇L with all weights and with each component. Above 0, scaling up lowers the loss.

    Args:
        numerics: The measure `numerics`.
    """
    draw_line(numerics, "naive_loss_cosine", ax, "all weights", WHOLE, linewidth=1)
    draw_columns(numerics, "component_naive_loss_cosines", numerics.words("components"), ax)
    ax.axhline(0, color=BLACK, linewidth=0.5)
    finish_step_axes(numerics, ax, f"cos(−∇L, w), {loss_name(numerics)}")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=6, loc="best")
    return ax


def plot_margins(numerics: Series, *, ax: Axes) -> Axes:
    """Draw the median margin on train and test, with bands from the 25% to the 75% and the 1% to the 99% quantile.

    Args:
        numerics: The measure `numerics`. The test margins may be missing.
    """
    columns = {quantile: i for i, quantile in enumerate(np.round(numerics["quantiles"], 3).tolist())}
    for part, look in PARTS.items():
        if f"{part}_margins" not in numerics:
            continue
        margins = numerics[f"{part}_margins"]
        draw_values(numerics, margins[:, columns[0.5]], ax, part, look)
        for low, high, alpha in ((0.25, 0.75, 0.3), (0.01, 0.99, 0.15)):
            draw_band(numerics, margins[:, columns[low]], margins[:, columns[high]], ax, look.colour, alpha=alpha)
    ax.axhline(0, color=BLACK, linewidth=0.5)
    return finish_step_axes(numerics, ax, "margin (logits)")


def figure_numerics(log: Series, numerics: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above softmax collapse, gradient norms, naive loss minimization and margins.

    Args:
        log: The run's log.
        numerics: The measure `numerics`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 0.8, 0.9, 1.1, 1.1], width)
    plot_losses(log, ax=axes[0])
    plot_collapse(numerics, ax=axes[1])
    plot_gradient_norms(numerics, ax=axes[2])
    plot_naive_loss(numerics, ax=axes[3])
    plot_margins(numerics, ax=axes[4])
    return finish_stack(figure, log, axes)
