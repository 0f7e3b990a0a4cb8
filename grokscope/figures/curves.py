"""The basic curves of a run: losses, accuracies, norms, circularity, parallelograms and sharpness."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import (
    draw_band,
    draw_controls,
    draw_line,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
    use_log_scale_if_positive,
)
from grokscope.figures._style import BLACK, FONT_SIZE, LOOKS, PAGE_WIDTH, loss_label, loss_name, numbered
from grokscope.series import Series


def plot_losses(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test loss on logarithmic axes; the loss over all equations if the training set is unknown.

    Args:
        series: The run's log, or the measure `loss`.
    """
    if "train_loss" in series:
        draw_line(series, "train_loss", ax, "train")
        draw_line(series, "test_loss", ax, "test")
    else:
        draw_line(series, "loss", ax, "all")
    ax.set_yscale("log")
    return finish_step_axes(series, ax, loss_label(series))


def plot_accuracies(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test accuracy in percent; the accuracy over all equations if the training set is unknown.

    Args:
        series: The run's log, or the measure `loss`.
    """
    if "train_accuracy" in series:
        draw_line(series, "train_accuracy", ax, "train", scale=100.0)
        draw_line(series, "test_accuracy", ax, "test", scale=100.0)
    else:
        draw_line(series, "accuracy", ax, "all", scale=100.0)
    ax.set_ylim(-3, 103)
    return finish_step_axes(series, ax, "accuracy (%)")


def plot_weight_norm(series: Series, *, ax: Axes) -> Axes:
    """Draw the norm of all weights and their distance from initialization.

    Args:
        series: The measure `weight_norm`.
    """
    draw_line(series, "weight_norm", ax, "weight norm ‖w‖")
    draw_line(series, "distance_from_initialization", ax, "distance from initialization ‖w − w₀‖")
    ax.set_ylim(bottom=0)
    return finish_step_axes(series, ax, "L2 norm")


def plot_parameter_norms(series: Series, *, ax: Axes) -> Axes:
    """Draw the norm of each weight matrix, without biases and LayerNorm parameters.

    Args:
        series: The measure `weight_norm`.
    """
    names = [name for name in series.arrays if name.startswith("weight_norm.") and ".W_" in name]
    has_layers = any(".blocks.1." in name for name in names)
    for i, name in enumerate(names):
        module, _, matrix = name.removeprefix("weight_norm.").rpartition(".")
        layer = module.split(".")[1] if module.startswith("blocks.") else ""
        label = f"{matrix}, layer {layer}" if layer and has_layers else matrix
        draw_line(series, name, ax, label, numbered(i))
    finish_step_axes(series, ax, "L2 norm per matrix")
    # Room above the curves for the legend.
    ax.set_ylim(0, 1.45 * max(np.nanmax(series[name]) for name in names))
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=5, loc="upper left")
    return ax


def plot_circularity(series: Series, *, ax: Axes) -> Axes:
    """Draw the circularity of the embedding and the variance in its key frequencies, with their controls.

    Args:
        series: The measure `embedding` of a task with a circle.
    """
    labels = {"circularity": "circularity of PCs 1–4", "key_frequency_share": "variance in key frequencies"}
    for name, label in labels.items():
        draw_line(series, name, ax, label)
    for name, label in labels.items():
        draw_controls(series, name, ax, label)
    ax.set_ylim(-0.03, 1.03)
    return finish_step_axes(series, ax, "share")


def plot_sharpness(series: Series, *, ax: Axes) -> Axes:
    """Draw the top eigenvalue of the Hessian, and its trace with two standard errors.

    The vertical axis is logarithmic if all values are positive.

    Args:
        series: The measure `sharpness`.
    """
    draw_line(series, "sharpness", ax, "top eigenvalue λ₁")
    draw_line(series, "hessian_trace", ax, "trace ± 2 s.e.")
    trace, error = series["hessian_trace"], 2 * series["hessian_trace_stderr"]
    draw_band(series, trace - error, trace + error, ax, LOOKS["hessian_trace"].colour)
    use_log_scale_if_positive(ax, series["sharpness"], trace)
    return finish_step_axes(series, ax, f"Hessian, {loss_name(series, name='train loss')}")


def plot_keskar_sharpness(series: Series, *, ax: Axes) -> Axes:
    """Draw Keskar's φ, the value from each start, and the ascent that remained when the search stopped.

    Args:
        series: The measure `keskar_sharpness`.
    """
    by_start, look = series["keskar_sharpness_by_start"], LOOKS["keskar_sharpness_by_start"]
    for i in range(by_start.shape[1]):
        draw_values(series, by_start[:, i], ax, None if i else "φ from each start", look)
    draw_line(series, "keskar_sharpness", ax, "φ, the largest (a lower bound)")
    draw_line(series, "keskar_sharpness_residual", ax, "remaining ascent", linewidth=1)
    values = np.concatenate([series["keskar_sharpness"], series["keskar_sharpness_residual"]])
    # The residual is zero at a maximum, so zero needs a position below the logarithmic range.
    smallest = values[values > 0].min() if (values > 0).any() else 1.0
    ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)), linscale=0.3)
    return finish_step_axes(series, ax, f"φ of the {loss_name(series, name='train loss')}")


def plot_rqi(series: Series, *, ax: Axes) -> Axes:
    """Draw the representation quality index (RQI), the share of closed parallelograms, with its controls.

    Two indices are drawn: over sums on the circle, and over sums of whole numbers, as Liu et al. define it.

    Args:
        series: The measure `parallelograms`.
    """
    labels = {"rqi": "sums on the circle (RQI)", "whole_number_rqi": "sums of whole numbers (RQI of Liu et al.)"}
    for name, label in labels.items():
        draw_line(series, name, ax, label)
        draw_controls(series, name, ax, label)
    ax.set_ylim(-0.03, 1.03)
    return finish_step_axes(series, ax, "share of parallelograms")


def plot_parallelogram_distances(series: Series, *, ax: Axes) -> Axes:
    """Draw the first percentile of the parallelograms' mean squared distances, with its controls.

    Args:
        series: The measure `parallelograms`.
    """
    draw_line(series, "percentile_distance", ax, "1st percentile")
    draw_controls(series, "percentile_distance", ax, "1st percentile")
    threshold = float(series.options["threshold"])
    ax.axhline(threshold, color=BLACK, linewidth=0.7, linestyle="-.", label="threshold of the RQI")
    ax.set_yscale("log")
    return finish_step_axes(series, ax, "mean squared distance")


def figure_accuracies(log: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return train and test accuracy.

    Args:
        log: The run's log.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.3], width)
    plot_accuracies(log, ax=axes[0])
    return finish_stack(figure, log, axes)


def figure_losses(log: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above the accuracies.

    Args:
        log: The run's log.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.4, 1], width)
    plot_losses(log, ax=axes[0])
    plot_accuracies(log, ax=axes[1])
    return finish_stack(figure, log, axes)


def figure_weight_norms(log: Series, norms: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above the norm of all weights and the norm of each matrix.

    Args:
        log: The run's log.
        norms: The measure `weight_norm`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1, 1.3], width)
    plot_losses(log, ax=axes[0])
    plot_weight_norm(norms, ax=axes[1])
    plot_parameter_norms(norms, ax=axes[2])
    return finish_stack(figure, log, axes)


def figure_sharpness(log: Series, sharpness: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above the top eigenvalue and the trace of the Hessian.

    Args:
        log: The run's log.
        sharpness: The measure `sharpness`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1], width)
    plot_losses(log, ax=axes[0])
    plot_sharpness(sharpness, ax=axes[1])
    return finish_stack(figure, log, axes)


def figure_circularity(log: Series, embedding: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the circularity of the embedding.

    Args:
        log: The run's log.
        embedding: The measure `embedding` of a task with a circle.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.3], width)
    plot_accuracies(log, ax=axes[0])
    plot_circularity(embedding, ax=axes[1])
    return finish_stack(figure, log, axes)


def figure_keskar_sharpness(log: Series, keskar: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above Keskar's φ.

    Args:
        log: The run's log.
        keskar: The measure `keskar_sharpness`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.2], width)
    plot_losses(log, ax=axes[0])
    plot_keskar_sharpness(keskar, ax=axes[1])
    return finish_stack(figure, log, axes)


def figure_parallelograms(log: Series, parallelograms: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the RQI and the distances of the parallelograms.

    Args:
        log: The run's log.
        parallelograms: The measure `parallelograms`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1, 1], width)
    plot_accuracies(log, ax=axes[0])
    plot_rqi(parallelograms, ax=axes[1])
    plot_parallelogram_distances(parallelograms, ax=axes[2])
    return finish_stack(figure, log, axes)
