"""Norms and updates over the steps: components, the last layer with its slingshots, and single matrices."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import phases
from grokscope.figures._axes import (
    draw_columns,
    draw_line,
    draw_values,
    finish_stack,
    finish_step_axes,
    fit_legend,
    shade_stages,
    stack_panels,
)
from grokscope.figures._style import (
    BLACK,
    COLUMN_WIDTH,
    FONT_SIZE,
    LOOKS,
    PAGE_WIDTH,
    SPIKE,
    WHOLE,
    loss_name,
    new_figure,
    numbered,
)
from grokscope.figures.curves import plot_losses
from grokscope.series import Series

_LATER_LAYERS = tuple(f"blocks.{layer}." for layer in range(1, 12))


def plot_component_norms(norms: Series, *, ax: Axes) -> Axes:
    """Draw the norm of all weights and the norm of each component of the transformer.

    Args:
        norms: The measure `weight_norm`.
    """
    draw_line(norms, "weight_norm", ax, "all weights", WHOLE, linewidth=1)
    draw_columns(norms, "component_norms", norms.words("components"), ax)
    ax.set_ylim(bottom=0)
    finish_step_axes(norms, ax, "L2 norm")
    ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=6, loc="best")
    return ax


def plot_last_layer(log: Series, norms: Series, *, ax: Axes) -> Axes:
    """Draw the norm of W_U with the run's slingshots: the fast growth shaded, the peak of the loss spike dotted.

    Args:
        log: The run's log.
        norms: The measure `weight_norm`.
    """
    if "weight_norm.unembed.W_U" in norms.arrays:
        draw_line(norms, "weight_norm.unembed.W_U", ax, "last layer ‖W_U‖")
    for i, slingshot in enumerate(phases.slingshots(log, norms)):
        labels = ("", "") if i else ("fast growth", f"peak of the {loss_name(log, name='train loss')}")
        ax.axvspan(slingshot.first, slingshot.last, color=SPIKE.colour, alpha=0.25, linewidth=0, label=labels[0])
        ax.axvline(slingshot.peak, color=SPIKE.colour, linewidth=0.8, linestyle=SPIKE.linestyle, label=labels[1])
    return finish_step_axes(norms, ax, "L2 norm")


def plot_update_sizes(path: Series, *, ax: Axes) -> Axes:
    """Draw the size of an optimizer update, and the straightness of the path so far.

    The straightness is the distance from the first checkpoint over the length of the path. The path is straight
    between checkpoints, so its true length is larger.

    Args:
        path: The measure `path`.
    """
    draw_line(path, "update_size_per_step", ax, "update size ‖Δw‖ per step")
    draw_line(path, "straightness", ax, "displacement / path length")
    # The first update of a warm-up has length 0.
    ax.set_yscale("log", nonpositive="mask")
    return finish_step_axes(path, ax, "L2 norm, ratio")


def plot_update_cosines(path: Series, *, ax: Axes) -> Axes:
    """Draw the cosines of each update with the weights and with the previous update.

    A checkpoint without an update, or without a previous one, has no value.

    Args:
        path: The measure `path`.
    """
    moves = path["update_size_per_step"] > 0
    moved_before = np.insert(moves[:-1], 0, False)
    for name, label, is_defined in (
        ("update_cosine", "with the previous update", moves & moved_before),
        ("update_weight_cosine", "with the weights", moves),
    ):
        draw_values(path, np.where(is_defined, path[name], np.nan), ax, label, LOOKS[name])
    ax.axhline(0, color=BLACK, linewidth=0.5)
    ax.set_ylim(-1.05, 1.05)
    return finish_step_axes(path, ax, "cosine of the update")


def plot_matrices(matrices: Series, name: str, chosen: list[str], *, ax: Axes) -> Axes:
    """Draw one quantity of some matrices.

    Args:
        matrices: The measure `matrix_norms`.
        name: The quantity, an array of the measure such as "stable_rank".
        chosen: Names of matrices, from the constant `matrices` of the measure.
    """
    rows = {matrix: i for i, matrix in enumerate(matrices.words("matrices"))}
    for i, matrix in enumerate(chosen):
        draw_values(matrices, matrices[name][:, rows[matrix]], ax, _matrix_label(matrix), numbered(i))
    return finish_step_axes(matrices, ax, name.replace("_", " "))


def figure_path(log: Series, norms: Series, path: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above component norms, the last layer's norm with slingshots, and the sizes of updates.

    Args:
        log: The run's log.
        norms: The measure `weight_norm`.
        path: The measure `path`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.1, 0.8, 1, 0.9], width)
    plot_losses(log, ax=axes[0])
    plot_component_norms(norms, ax=axes[1])
    plot_last_layer(log, norms, ax=axes[2])
    plot_update_sizes(path, ax=axes[3])
    plot_update_cosines(path, ax=axes[4])
    return finish_stack(figure, log, axes)


def figure_matrix_norms(log: Series, matrices: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return small multiples of spectral norm, stable rank and effective rank.

    The groups are the matrices outside attention, and the QK and the OV circuits of the heads. With several layers,
    only the first is shown. On a page the groups are columns. In a column they follow one another.

    Args:
        log: The run's log.
        matrices: The measure `matrix_norms`.
        width: Width in inches.
    """
    names = matrices.words("matrices")
    groups = {
        "embedding, MLP, unembedding": [
            name for name in names if ".attn." not in name and not name.startswith(("pos_embed", *_LATER_LAYERS))
        ],
        "QK circuit, W_Q W_Kᵀ": [name for name in names if name.startswith("blocks.0.attn.QK")],
        "OV circuit, W_V W_O": [name for name in names if name.startswith("blocks.0.attn.OV")],
    }
    labels = {"spectral_norm": "spectral norm σ₁", "stable_rank": "stable rank", "effective_rank": "effective rank"}
    has_columns = width > COLUMN_WIDTH
    figure = new_figure(width, 6.0 if has_columns else 9.3)
    if has_columns:
        axes = figure.subplots(len(labels), len(groups), sharex=True, sharey="row")
    else:
        axes = figure.subplots(len(labels) * len(groups), 1, sharex=True).reshape(len(groups), len(labels)).T
    for i, (quantity, label) in enumerate(labels.items()):
        for j, (title, chosen) in enumerate(groups.items()):
            ax = plot_matrices(matrices, quantity, chosen, ax=axes[i, j])
            ax.set_ylabel("" if j and has_columns else label)
            ax.tick_params(axis="x", labelsize=FONT_SIZE - 2)
            if ax is not axes[-1, j if has_columns else -1]:
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


def _matrix_label(matrix: str) -> str:
    """Return the short name of a matrix: "W_in", or "head 0"."""
    last = matrix.rpartition(".")[2]
    return f"head {last}" if last.isdigit() else last
