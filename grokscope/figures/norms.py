"""Norms over the step: of components and matrices, of updates, and of the last layer with its slingshots."""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import phases
from grokscope.figures._axes import (
    draw_line,
    finish_over_steps,
    fit_legend,
    shade_stages,
    stack_over_steps,
    with_stages,
)
from grokscope.figures._style import BLUE, COLUMN_WIDTH, FONT_SIZE, PAGE_WIDTH, PALETTE, VERMILLION, new_figure
from grokscope.figures.curves import plot_losses
from grokscope.series import Series

_STYLES = ("-", "--", "-.", ":")


def columns(series: Series, name: str, names: list[str]) -> Series:
    """Return a series whose arrays are the columns of one array, by their names."""
    arrays = {one: series[name][:, i] for i, one in enumerate(names)}
    return Series(series.measure, series.steps, arrays, {"gaps": series["gaps"]} if "gaps" in series else {})


def plot_columns(series: Series, names: list[str], *, ax: Axes) -> Axes:
    """Draw some arrays of a series, each in a colour and a line style of its own."""
    for i, name in enumerate(names):
        colour, style = PALETTE[i % len(PALETTE)], _STYLES[i % len(_STYLES)]
        draw_line(series, name, ax, colour, name, linestyle=style)
    return finish_over_steps(series, ax)


def plot_component_norms(norms: Series, *, ax: Axes) -> Axes:
    """Draw the norm of all weights and of each component (measure `weight_norm`)."""
    names = norms.words("components")
    draw_line(norms, "weight_norm", ax, "black", "all", linewidth=1)
    plot_columns(columns(norms, "component_norms", names), names, ax=ax)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("L2 norm")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=6, loc="best")
    return ax


def plot_last_layer(log: Series, norms: Series, *, ax: Axes) -> Axes:
    """Draw the norm of W_U with the run's slingshots: their growth shaded, the peak of the loss dotted."""
    draw_line(norms, "weight_norm.unembed.W_U", ax, BLUE, "last layer ‖W_U‖")
    for i, one in enumerate(phases.slingshots(log, norms)):
        ax.axvspan(one.first, one.last, color=VERMILLION, alpha=0.25, linewidth=0, label="" if i else "fast growth")
        ax.axvline(one.peak, color=VERMILLION, linewidth=0.8, linestyle=":", label="" if i else "spike of the loss")
    ax.set_ylabel("L2 norm")
    return finish_over_steps(norms, ax)


def plot_update_sizes(path: Series, *, ax: Axes) -> Axes:
    """Draw how far an optimizer update moves all weights, and their distance from the first checkpoint over the path.

    Between checkpoints the path is drawn straight, so that it is longer than it seems.
    """
    draw_line(path, "update_size_per_step", ax, BLUE, "size of an update ‖Δw‖ / steps")
    draw_line(path, "straightness", ax, VERMILLION, "displacement / path length", linestyle="--")
    # The first update of a warm-up has length 0.
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("L2 norm, ratio")
    return finish_over_steps(path, ax)


def plot_update_cosines(path: Series, *, ax: Axes) -> Axes:
    """Draw the cosines of each update with the weights and with the update before, where there is an update."""
    moves = path["update_size_per_step"] > 0
    both = moves & np.insert(moves[:-1], 0, False)
    cosines = {
        "update_cosine": np.where(both, path["update_cosine"], np.nan),
        "update_weight_cosine": np.where(moves, path["update_weight_cosine"], np.nan),
    }
    shown = replace(path, arrays=cosines)
    draw_line(shown, "update_cosine", ax, VERMILLION, "with the update before", linestyle="--")
    draw_line(shown, "update_weight_cosine", ax, BLUE, "with the weights")
    ax.axhline(0, color="black", linewidth=0.5)
    ax.set_ylim(-1.05, 1.05)
    ax.set_ylabel("cosine of an update")
    return finish_over_steps(path, ax)


def plot_matrices(matrices: Series, name: str, chosen: list[str], *, ax: Axes) -> Axes:
    """Draw one array of the measure `matrix_norms`, such as "stable_rank", of some of its matrices."""
    every = columns(matrices, name, matrices.words("matrices"))
    by_label = {_label(one): every[one] for one in chosen}
    drawn = Series("matrix_norms", every.steps, by_label, every.constants)
    return plot_columns(drawn, list(by_label), ax=ax)


def figure_path(log: Series, norms: Series, path: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses, norms by component, the last layer's with slingshots, sizes and cosines of updates by step.

    `norms` is the measure `weight_norm`, `path` the measure of that name.
    """
    figure, axes = stack_over_steps([1, 1.1, 0.8, 1, 0.9], width)
    plot_losses(log, ax=axes[0])
    plot_component_norms(norms, ax=axes[1])
    plot_last_layer(log, norms, ax=axes[2])
    plot_update_sizes(path, ax=axes[3])
    plot_update_cosines(path, ax=axes[4])
    return with_stages(figure, log, axes)


def figure_matrix_norms(log: Series, matrices: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return small multiples of the measure `matrix_norms`: spectral norm above the two ranks, a column a group.

    Groups are the matrices outside attention, and the heads' products QK and OV; of several layers the first's. In a
    column of a page they stand below each other.
    """
    names = matrices.words("matrices")
    groups = {
        "embedding, MLP, unembedding": [
            name for name in names if ".attn." not in name and not name.startswith(("pos_embed", *_LATER))
        ],
        "heads: W_Q W_Kᵀ": [name for name in names if name.startswith("blocks.0.attn.QK")],
        "heads: W_V W_O": [name for name in names if name.startswith("blocks.0.attn.OV")],
    }
    rows = {"spectral_norm": "spectral norm σ₁", "stable_rank": "stable rank", "effective_rank": "effective rank"}
    is_wide = width > COLUMN_WIDTH
    figure = new_figure(width, 6.0 if is_wide else 9.3)
    if is_wide:
        axes = figure.subplots(len(rows), len(groups), sharex=True, sharey="row")
    else:
        axes = figure.subplots(len(rows) * len(groups), 1, sharex=True).reshape(len(groups), len(rows)).T
    for i, (row, label) in enumerate(rows.items()):
        for j, (title, chosen) in enumerate(groups.items()):
            ax = plot_matrices(matrices, row, chosen, ax=axes[i, j])
            ax.set_ylabel("" if j and is_wide else label)
            ax.tick_params(axis="x", labelsize=FONT_SIZE - 2)
            if ax is not axes[-1, j if is_wide else -1]:
                ax.set_xlabel("")
            if i == 0:
                ax.set_title(title, fontsize=FONT_SIZE)
            elif (legend := ax.get_legend()) is not None:
                legend.remove()
    figure.draw_without_rendering()
    for ax in axes.flat:
        ax.set_ylim(bottom=0)
        fit_legend(ax)
        shade_stages(log, ax=ax, named=False)
    return figure


_LATER = tuple(f"blocks.{layer}." for layer in range(1, 12))


def _label(matrix: str) -> str:
    """Return what a matrix is called in a figure: "W_in", or the number of a head."""
    last = matrix.rpartition(".")[2]
    return f"head {last}" if last.isdigit() else last
