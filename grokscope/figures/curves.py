"""Curves over the step: losses, accuracies, norms, circularity, sharpness, with the stages shaded behind them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import BLUE, FONT_SIZE, GREY, PAGE_WIDTH, PALETTE, VERMILLION
from grokscope.series import Series


def plot_losses(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test loss (the log's, or the measure `loss`'s) on a log-log axis."""
    draw_line(series, "train_loss", ax, BLUE, "train")
    draw_line(series, "test_loss", ax, VERMILLION, "test", linestyle="--")
    ax.set_yscale("log")
    ax.set_ylabel("cross-entropy (nats)")
    return finish_over_steps(series, ax)


def plot_accuracies(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test accuracy in percent."""
    draw_line(series, "train_accuracy", ax, BLUE, "train", scale=100.0)
    draw_line(series, "test_accuracy", ax, VERMILLION, "test", linestyle="--", scale=100.0)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("accuracy (%)")
    return finish_over_steps(series, ax)


def plot_weight_norm(series: Series, *, ax: Axes) -> Axes:
    """Draw the total weight norm and the distance from initialization."""
    draw_line(series, "weight_norm", ax, BLUE, "all weights ‖w‖")
    draw_line(series, "distance_from_initialization", ax, VERMILLION, "from initialization ‖w − w₀‖", linestyle="--")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("L2 norm")
    return finish_over_steps(series, ax)


def plot_parameter_norms(series: Series, *, ax: Axes) -> Axes:
    """Draw the norm of each weight matrix; biases and LayerNorm parameters are left out."""
    names = [name for name in series.arrays if name.startswith("weight_norm.") and ".W_" in name]
    several_layers = any(".blocks.1." in name for name in names)
    styles = ("-", "--", ":")
    for i, name in enumerate(names):
        place, _, matrix = name.removeprefix("weight_norm.").rpartition(".")
        layer = place.split(".")[1] if place.startswith("blocks.") else ""
        label = f"{matrix}, layer {layer}" if layer and several_layers else matrix
        colour, style = PALETTE[i % len(PALETTE)], styles[i // len(PALETTE) % len(styles)]
        draw_line(series, name, ax, colour, label, linestyle=style)
    finish_over_steps(series, ax)
    # Room above the curves for the legend.
    ax.set_ylim(0, 1.45 * max(np.nanmax(series[name]) for name in names))
    ax.set_ylabel("L2 norm of each matrix")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=5, loc="upper left")
    return ax


def plot_circularity(series: Series, *, ax: Axes) -> Axes:
    """Draw circularity and the key frequencies' share of variance, with their controls."""
    for name, colour, label, style in (
        ("circularity", BLUE, "circularity of PCs 1–4", "-"),
        ("key_frequency_share", VERMILLION, "share of key frequencies", "--"),
    ):
        draw_line(series, name, ax, colour, label, linestyle=style)
        draw_line(series, f"{name}_shuffled", ax, colour, f"{label}, shuffled", linestyle=":", linewidth=1)
        ax.axhline(float(series[f"{name}_initialization"]), color=colour, linewidth=0.7, alpha=0.6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("share (thin line: untrained)")
    return finish_over_steps(series, ax)


def plot_sharpness(series: Series, *, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue and the Hessian's trace, the latter with two standard errors."""
    draw_line(series, "sharpness", ax, BLUE, "top eigenvalue λ₁", marker="o")
    draw_line(series, "hessian_trace", ax, VERMILLION, "trace ± 2 s.e.", linestyle="--", marker="s")
    trace, error = series["hessian_trace"], 2 * series["hessian_trace_stderr"]
    steps, low = broken_at_gaps(series, trace - error)
    ax.fill_between(steps, low, broken_at_gaps(series, trace + error)[1], color=VERMILLION, alpha=0.25, linewidth=0)
    positive = np.concatenate([series["sharpness"], trace])
    if (positive > 0).all():
        ax.set_yscale("log")
    ax.set_ylabel("Hessian of the train loss")
    return finish_over_steps(series, ax)


def plot_keskar_sharpness(series: Series, *, ax: Axes) -> Axes:
    """Draw Keskar's φ, the largest over the starts, each start's own, and the rise that was still open."""
    for i in range(series["keskar_sharpness_by_start"].shape[1]):
        steps, values = broken_at_gaps(series, series["keskar_sharpness_by_start"][:, i])
        ax.plot(steps, values, "_", color=BLUE, markersize=7, label=None if i else "φ from each start")
    draw_line(series, "keskar_sharpness", ax, BLUE, "φ (a lower bound)", marker="o")
    draw_line(series, "keskar_sharpness_residual", ax, GREY, "rise still open", linestyle=":", linewidth=1)
    shown = np.concatenate([series["keskar_sharpness"], series["keskar_sharpness_residual"]])
    # What is zero, such as the rise where a maximum was reached, has a place under the logarithmic part.
    smallest = shown[shown > 0].min() if (shown > 0).any() else 1.0
    ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)), linscale=0.3)
    ax.set_ylabel("φ (Keskar et al.)")
    return finish_over_steps(series, ax)


def plot_rqi(series: Series, *, ax: Axes) -> Axes:
    """Draw the share of parallelograms that the embedding closes (RQI), with its controls."""
    draw_line(series, "rqi", ax, BLUE, "RQI")
    draw_line(series, "rqi_shuffled", ax, BLUE, "RQI, shuffled", linestyle=":", linewidth=1)
    ax.axhline(float(series["rqi_initialization"]), color=BLUE, linewidth=0.7, alpha=0.6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("RQI (thin line: untrained)")
    return finish_over_steps(series, ax)


def plot_parallelogram_distances(series: Series, *, ax: Axes) -> Axes:
    """Draw the mean square distance that one parallelogram in a hundred stays below, with its controls."""
    name = "percentile_distance"
    draw_line(series, name, ax, VERMILLION, "nearest hundredth", linestyle="--")
    draw_line(series, f"{name}_shuffled", ax, VERMILLION, "shuffled", linestyle=":", linewidth=1)
    ax.axhline(float(series[f"{name}_initialization"]), color=VERMILLION, linewidth=0.7, alpha=0.6)
    ax.axhline(float(series.options["threshold"]), color="black", linewidth=0.7, linestyle="-.", label="threshold")
    ax.set_yscale("log")
    ax.set_ylabel("mean square distance")
    return finish_over_steps(series, ax)


def figure_accuracies(log: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return train and test accuracy, the stages shaded."""
    figure, axes = stack_over_steps([1.3], width)
    plot_accuracies(log, ax=axes[0])
    return with_stages(figure, log, axes)


def figure_losses(log: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses over accuracies on one step axis, the stages shaded."""
    figure, (upper, lower) = stack_over_steps([1.4, 1], width)
    plot_losses(log, ax=upper)
    plot_accuracies(log, ax=lower)
    return with_stages(figure, log, [upper, lower])


def figure_weight_norms(log: Series, norms: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses, the total norms and each matrix's norm on one step axis, the stages shaded."""
    figure, axes = stack_over_steps([1, 1, 1.3], width)
    plot_losses(log, ax=axes[0])
    plot_weight_norm(norms, ax=axes[1])
    plot_parameter_norms(norms, ax=axes[2])
    return with_stages(figure, log, axes)


def figure_sharpness(log: Series, sharpness: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the sharpness under the losses on the same step axis, the stages shaded."""
    figure, (upper, lower) = stack_over_steps([1, 1], width)
    plot_losses(log, ax=upper)
    plot_sharpness(sharpness, ax=lower)
    return with_stages(figure, log, [upper, lower])


def figure_circularity(log: Series, embedding: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return circularity and key-frequency share under the accuracies on the same step axis."""
    figure, (upper, lower) = stack_over_steps([1, 1.3], width)
    plot_accuracies(log, ax=upper)
    plot_circularity(embedding, ax=lower)
    return with_stages(figure, log, [upper, lower])


def figure_keskar_sharpness(log: Series, keskar: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return Keskar's φ under the losses on the same step axis, the stages shaded."""
    figure, (upper, lower) = stack_over_steps([1, 1.2], width)
    plot_losses(log, ax=upper)
    plot_keskar_sharpness(keskar, ax=lower)
    return with_stages(figure, log, [upper, lower])


def figure_parallelograms(log: Series, parallelograms: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the RQI, and how near the nearest parallelograms are to closing, under the accuracies."""
    figure, axes = stack_over_steps([1, 1, 1], width)
    plot_accuracies(log, ax=axes[0])
    plot_rqi(parallelograms, ax=axes[1])
    plot_parallelogram_distances(parallelograms, ax=axes[2])
    return with_stages(figure, log, axes)
