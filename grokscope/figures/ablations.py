"""What the loss becomes without a part: sublayers, the neurons' fine structure, one frequency at a time."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import (
    BLUE,
    COLUMN_WIDTH,
    FONT_SIZE,
    GREEN,
    ORANGE,
    PAGE_WIDTH,
    PALETTE,
    VERMILLION,
    finish,
    new_figure,
)
from grokscope.figures.curves import plot_accuracies
from grokscope.series import LabelledArrays, Series

_PARTS = {
    "loss": ("nothing changed", "black", "-"),
    "loss_without_attention": ("no attention", BLUE, "--"),
    "loss_without_mlp": ("no MLP", VERMILLION, "-."),
    "loss_with_polynomials": ("polynomials for clustered neurons*", GREEN, ":"),
    "loss_with_all_polynomials": ("polynomials for all neurons*", ORANGE, (0, (3, 1, 1, 1, 1, 1))),
}
_STYLES = ("-", "--", "-.", ":")


def plot_ablations(series: Series, *, ax: Axes) -> Axes:
    """Draw the loss over all pairs as it is and without attention, the MLP, or what neurons do beyond polynomials."""
    for name, (label, colour, style) in _PARTS.items():
        steps, values = broken_at_gaps(series, series[name])
        ax.plot(steps, values, color=colour, linestyle=style, linewidth=1.4, label=label)
    ax.set_yscale("log")
    ax.set_ylabel("loss, all pairs (nats)")
    return finish_over_steps(series, ax)


def plot_without_frequencies(series: Series, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw the loss without each frequency: the `n_most` that raise it most at the last step, the others in grey."""
    losses, frequencies = series["loss_without_frequency"], series["frequencies"]
    order = np.argsort(-losses[-1], kind="stable").tolist()
    for place, i in enumerate(order):
        steps, values = broken_at_gaps(series, losses[:, i])
        if place < n_most:
            colour, style = PALETTE[place % (len(PALETTE) - 1)], _STYLES[place % len(_STYLES)]
            ax.plot(
                steps, values, color=colour, linestyle=style, linewidth=1.4, label=f"k = {frequencies[i]}", zorder=3
            )
        else:
            label = "each other k" if place == n_most else None
            ax.plot(steps, values, color="#B8B8B8", linewidth=0.5, label=label, zorder=2)
    draw_line(series, "loss", ax, "black", "nothing removed", linewidth=1)
    ax.set_yscale("log")
    ax.set_ylabel("loss without k (nats)")
    return finish_over_steps(series, ax)


def figure_ablations(log: Series, ablations: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the loss over all pairs without parts, and without each frequency, on one step axis."""
    figure, axes = stack_over_steps([1.4, 1.4], width)
    plot_ablations(ablations, ax=axes[0])
    plot_without_frequencies(ablations, ax=axes[1])
    for ax in axes:
        ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=2, loc="lower left")
    axes[1].set_xlabel("step (optimizer updates). * of degree 2, in each neuron's own frequency")
    return with_stages(figure, log, axes)


def plot_neurons(series: Series, *, ax: Axes) -> Axes:
    """Draw how much of neurons and heads one frequency explains, the mean over all of a block, with the controls."""
    n_layers = series["mean_neuron_share"].shape[1]
    for name, colour, said in (("neuron", BLUE, "neurons"), ("head", VERMILLION, "attention heads")):
        for layer in range(n_layers):
            style = _STYLES[layer % len(_STYLES)] if name == "neuron" else ("--", ":", "-.")[layer % 3]
            label = said if n_layers == 1 else f"{said}, layer {layer}"
            steps, values = broken_at_gaps(series, 100 * series[f"mean_{name}_share"][:, layer])
            ax.plot(steps, values, color=colour, linestyle=style, linewidth=1.4, label=label)
            steps, values = broken_at_gaps(series, 100 * series[f"mean_{name}_share_shuffled"][:, layer])
            control = f"{said}, shuffled" if not layer else None
            ax.plot(steps, values, color=colour, linestyle=(0, (1, 2)), linewidth=1, label=control)
            start = 100 * float(series[f"mean_{name}_share_initialization"][layer])
            ax.plot([0], [start], color=colour, marker="x", markersize=4, linestyle="", clip_on=False)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("in one frequency (%)")
    return finish_over_steps(series, ax)


def plot_clusters(series: Series, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw how many neurons of the last block belong to each frequency (a share of at least 0.85), and to any."""
    sizes, frequencies = series["cluster_sizes"][:, -1].astype(float), series["frequencies"]
    steps, values = broken_at_gaps(series, sizes.sum(-1))
    ax.plot(steps, values, color="black", linewidth=1.4, label="any frequency")
    for place, i in enumerate(np.argsort(-sizes[-1], kind="stable")[:n_most].tolist()):
        if sizes[-1, i]:
            steps, values = broken_at_gaps(series, sizes[:, i])
            colour, style = PALETTE[place % (len(PALETTE) - 1)], _STYLES[place % len(_STYLES)]
            ax.plot(steps, values, color=colour, linestyle=style, linewidth=1.2, label=f"k = {frequencies[i]}")
    ax.set_ylim(0, 1.05 * max(float(sizes.sum(-1).max()), 1))
    ax.set_ylabel(f"neurons, of {series['neuron_share'].shape[-1]}")
    return finish_over_steps(series, ax)


def figure_neurons(log: Series, neurons: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return how closely neurons and heads follow one frequency, and how many neurons each frequency has."""
    figure, axes = stack_over_steps([1.3, 1.3], width)
    plot_neurons(neurons, ax=axes[0])
    plot_clusters(neurons, ax=axes[1])
    for ax in axes:
        ax.legend(frameon=False, fontsize=FONT_SIZE - 1, loc="upper left")
    axes[1].set_xlabel("step (optimizer updates). Cross: untrained")
    return with_stages(figure, log, axes)


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


def plot_transplant(scan: LabelledArrays, component: str, *, ax: Axes, name: str = "test_loss") -> Axes:
    """Draw one component's map: a row for each source step, a column for each host step, the colour the loss.

    The colour's scale is the same for all components; a bar for it is the figure's to draw, of `ax.images[0]`.
    """
    values = scan[name][list(scan["component"]).index(component)]
    # One scale for all components, and none where a loss is zero.
    positive = scan[name][scan[name] > 0]
    limits = (positive.min(), positive.max()) if len(positive) else (1e-9, 1.0)
    ax.imshow(np.maximum(values, limits[0]), norm=LogNorm(*limits), origin="lower", aspect="auto", cmap="cividis")
    for axis, steps in ((ax.xaxis, scan["host"]), (ax.yaxis, scan["source"])):
        axis.set_ticks(range(len(steps)), [f"{step:,}" for step in steps])
    ax.tick_params(axis="x", rotation=90)
    ax.set_title(component, fontsize=FONT_SIZE)
    ax.set_xlabel("host step")
    ax.set_ylabel("source step")
    return finish(ax)


def figure_transplant(scan: LabelledArrays, name: str = "test_loss", *, width: float = PAGE_WIDTH) -> Figure:
    """Return a map for each component, all of one colour scale."""
    components = list(scan["component"])
    n_columns = min(3 if width > COLUMN_WIDTH else 2, len(components))
    n_rows = -(-len(components) // n_columns)
    figure = new_figure(width, 2.3 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    for component, ax in zip(components, axes, strict=False):
        plot_transplant(scan, str(component), ax=ax, name=name)
    for ax in axes[len(components) :]:
        ax.remove()
    for ax in axes[: len(components)]:
        ax.label_outer()
    # A column has no room beside its panels.
    place: dict[str, Any] = {"shrink": 0.8} if width > COLUMN_WIDTH else {"location": "bottom", "aspect": 30}
    bar = figure.colorbar(axes[0].images[0], ax=list(axes[: len(components)]), **place)
    bar.set_label(f"{name.replace('_', ' ')}{' (nats)' if name.endswith('loss') else ''}", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    return figure
