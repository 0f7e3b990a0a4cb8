"""The network's computation: losses without parts, neurons by frequency, clock or pizza, transplanted components.

In order: the measure `ablations`, the measure `neurons`, the measure `algorithm`, and the losses of
`interventions.transplant`.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures._axes import (
    add_key,
    draw_band,
    draw_controls,
    draw_line,
    draw_untrained,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
)
from grokscope.figures._style import (
    COLUMN_WIDTH,
    FONT_SIZE,
    GREY,
    LOOKS,
    LOSS_MAP,
    OTHER,
    PAGE_WIDTH,
    WHOLE,
    Look,
    finish_axes,
    loss_label,
    new_figure,
    numbered,
)
from grokscope.figures.curves import plot_accuracies
from grokscope.series import LabelledArrays, Series

_ABLATIONS = {
    "loss": "full model",
    "loss_without_attention": "without attention",
    "loss_without_mlp": "without MLP",
    "loss_with_polynomials": "clustered neurons → quadratic fit",
    "loss_with_all_polynomials": "all neurons → quadratic fit",
}
"""The losses of the measure `ablations`, and their labels."""


def plot_ablations(series: Series, *, ax: Axes) -> Axes:
    """Draw the loss on all pairs of the full model and of ablated ones.

    The ablations remove attention, remove the MLP, or replace neurons by their fit of degree 2 in one frequency.

    Args:
        series: The measure `ablations`.
    """
    for name, label in _ABLATIONS.items():
        draw_line(series, name, ax, label)
    ax.set_yscale("log")
    return finish_step_axes(series, ax, "softmax loss, all pairs (nats)")


def plot_without_frequencies(series: Series, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw the loss on all pairs without each frequency of the logits.

    Args:
        series: The measure `ablations`.
        n_most: The number of frequencies in colour: those whose removal raises the loss most at the last step. The
            others are grey. Six colours are easy to tell apart.
    """
    losses, frequencies = series["loss_without_frequency"], series["frequencies"]
    for rank, i in enumerate(np.argsort(-losses[-1], kind="stable").tolist()):
        if rank < n_most:
            draw_values(series, losses[:, i], ax, f"k = {frequencies[i]}", numbered(rank), zorder=3)
        else:
            label = "other frequencies" if rank == n_most else None
            draw_values(series, losses[:, i], ax, label, OTHER, linewidth=0.5)
    draw_line(series, "loss", ax, "full model", linewidth=1)
    ax.set_yscale("log")
    return finish_step_axes(series, ax, "softmax loss without k (nats)")


def figure_ablations(log: Series, ablations: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the loss on all pairs without parts of the model, above the loss without each frequency.

    Args:
        log: The run's log.
        ablations: The measure `ablations`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.4, 1.4], width)
    plot_ablations(ablations, ax=axes[0])
    plot_without_frequencies(ablations, ax=axes[1])
    for ax in axes:
        ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=2, loc="lower left")
    return finish_stack(figure, log, axes)


def plot_neurons(series: Series, *, ax: Axes) -> Axes:
    """Draw the variance of neurons and heads in their best frequency: the mean over each layer, with its controls.

    Args:
        series: The measure `neurons`.
    """
    n_layers = series["mean_neuron_share"].shape[1]
    units = {
        "mean_neuron_share": ("neurons", ("-", "--", "-.")),
        "mean_head_share": ("attention heads", ("--", "-.", "-")),
    }
    for name, (label, styles) in units.items():
        for layer in range(n_layers):
            layer_label = label if n_layers == 1 else f"{label}, layer {layer}"
            look = Look(LOOKS[name].colour, styles[layer % len(styles)])
            draw_values(series, 100 * series[name][:, layer], ax, layer_label, look)
    for name, (label, _) in units.items():
        for layer in range(n_layers):
            shuffled, look = 100 * series[f"{name}_shuffled"][:, layer], Look(LOOKS[name].colour, ":")
            draw_values(series, shuffled, ax, f"_{label}, layer {layer}, shuffled", look, linewidth=1)
            add_key(ax, "shuffled tokens", Look(GREY, ":"))
            draw_untrained(ax, 100 * float(series[f"{name}_initialization"][layer]), look.colour)
    ax.set_ylim(-3, 103)
    return finish_step_axes(series, ax, "variance in best frequency (%)")


def plot_clusters(series: Series, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw the number of neurons of the last layer that each frequency explains to at least 85%.

    Args:
        series: The measure `neurons`.
        n_most: The number of frequencies to show: those with most neurons at the last step.
    """
    sizes, frequencies = series["cluster_sizes"][:, -1].astype(float), series["frequencies"]
    draw_values(series, sizes.sum(-1), ax, "any frequency", WHOLE)
    for rank, i in enumerate(np.argsort(-sizes[-1], kind="stable")[:n_most].tolist()):
        if sizes[-1, i]:
            draw_values(series, sizes[:, i], ax, f"k = {frequencies[i]}", numbered(rank), linewidth=1.2)
    ax.set_ylim(0, 1.05 * max(float(sizes.sum(-1).max()), 1))
    return finish_step_axes(series, ax, f"neurons (of {series['neuron_share'].shape[-1]})")


def figure_neurons(log: Series, neurons: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the variance of neurons and heads in one frequency, above the number of neurons of each frequency.

    Args:
        log: The run's log.
        neurons: The measure `neurons`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.3, 1.3], width)
    plot_neurons(neurons, ax=axes[0])
    plot_clusters(neurons, ax=axes[1])
    for ax in axes:
        ax.legend(frameon=False, fontsize=FONT_SIZE - 1, loc="upper left")
    return finish_stack(figure, log, axes)


def plot_algorithm(series: Series, *, ax: Axes) -> Axes:
    """Draw gradient symmetricity, with two standard errors, and distance irrelevance, with their controls.

    Args:
        series: The measure `algorithm`.

    References:
        Zhong et al. 2023, section 4: symmetricity is near 1 for a pizza, irrelevance is near 1 for a clock.
    """
    symmetricity, error = series["gradient_symmetricity"], 2 * series["gradient_symmetricity_stderr"]
    labels = {
        "gradient_symmetricity": "gradient symmetricity ± 2 s.e.",
        "distance_irrelevance": "distance irrelevance",
    }
    for name, label in labels.items():
        draw_line(series, name, ax, label)
    draw_band(series, symmetricity - error, symmetricity + error, ax, LOOKS["gradient_symmetricity"].colour)
    for name in labels:
        draw_controls(series, name, ax, name.replace("_", " "))
    lowest = symmetricity - error
    ax.set_ylim(min(-0.03, float(lowest[np.isfinite(lowest)].min())), 1.03)
    return finish_step_axes(series, ax, "score")


def plot_explained_variance(series: Series, *, ax: Axes) -> Axes:
    """Draw the variance of each isolated circle's logits that the clock and the pizza formula explain.

    Args:
        series: The measure `algorithm`.
    """
    formulas = {"clock": "-", "pizza": "--"}
    for i, frequency in enumerate(series["circle_frequencies"]):
        for formula, style in formulas.items():
            label = f"k = {frequency}" if formula == "clock" else f"_k = {frequency}, pizza"
            look = Look(numbered(i).colour, style)
            draw_values(series, series[f"{formula}_explained_variance"][:, i], ax, label, look, linewidth=1.2)
    for formula, style in formulas.items():
        add_key(ax, f"{formula} formula", Look(GREY, style))
    ax.set_ylim(-0.03, 1.03)
    return finish_step_axes(series, ax, "explained variance")


def figure_algorithm(log: Series, algorithm: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the scores of clock and pizza, and above the variance that each formula explains.

    Args:
        log: The run's log.
        algorithm: The measure `algorithm`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.3, 1.3], width)
    plot_accuracies(log, ax=axes[0])
    plot_algorithm(algorithm, ax=axes[1])
    plot_explained_variance(algorithm, ax=axes[2])
    return finish_stack(figure, log, axes)


def plot_transplant(scan: LabelledArrays, component: str, *, ax: Axes, name: str = "test_loss") -> Axes:
    """Draw the loss of models with one component from another step: source steps upwards, host steps to the right.

    The colour scale is the same for all components. The caller adds its colour bar, from `ax.images[0]`.

    Args:
        scan: The result of `interventions.transplant`.
        component: The transplanted component, such as "mlp".
        name: The array to draw, such as "train_loss".
    """
    values = scan[name][list(scan["component"]).index(component)]
    # A logarithmic scale has no position for a loss of zero.
    positive = scan[name][scan[name] > 0]
    limits = (positive.min(), positive.max()) if len(positive) else (1e-9, 1.0)
    ax.imshow(np.maximum(values, limits[0]), norm=LogNorm(*limits), origin="lower", aspect="auto", cmap=LOSS_MAP)
    for axis, steps in ((ax.xaxis, scan["host"]), (ax.yaxis, scan["source"])):
        axis.set_ticks(range(len(steps)), [f"{step:,}" for step in steps])
    ax.tick_params(axis="x", rotation=90)
    ax.set_title(component, fontsize=FONT_SIZE)
    ax.set_xlabel("host step")
    ax.set_ylabel("source step")
    return finish_axes(ax)


def figure_transplant(scan: LabelledArrays, name: str = "test_loss", *, width: float = PAGE_WIDTH) -> Figure:
    """Return the map of each component (`plot_transplant`) with one colour bar.

    Args:
        scan: The result of `interventions.transplant`.
        name: The array to draw, such as "train_loss".
        width: Width in inches.
    """
    components = list(scan["component"])
    n_columns = min(3 if width > COLUMN_WIDTH else 2, len(components))
    n_rows = -(-len(components) // n_columns)
    figure = new_figure(width, 2.3 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    for component, ax in zip(components, axes, strict=False):
        plot_transplant(scan, str(component), ax=ax, name=name)
    for ax in axes[len(components) :]:
        ax.remove()
    for i, ax in enumerate(axes[: len(components)]):
        ax.label_outer()
        if i + n_columns >= len(components):
            # The last row may be incomplete, so a panel above it can be the lowest of its column.
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("host step")
    # A column has no room for a bar on the right.
    layout: dict[str, Any] = {"shrink": 0.8} if width > COLUMN_WIDTH else {"location": "bottom", "aspect": 30}
    bar = figure.colorbar(axes[0].images[0], ax=list(axes[: len(components)]), **layout)
    words = name.replace("_", " ")
    bar.set_label(loss_label(scan, name=words) if name.endswith("loss") else words, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    return figure
