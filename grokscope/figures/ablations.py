"""What the loss becomes without a part: sublayers, the neurons' fine structure, one frequency at a time."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures.steps import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures.style import BLUE, FONT_SIZE, GREEN, ORANGE, PAGE_WIDTH, PALETTE, VERMILLION
from grokscope.series import Series

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
