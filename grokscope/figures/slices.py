"""The loss along straight lines: slices through a checkpoint, and from one checkpoint to another."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from grokscope.figures._export import animate, caption
from grokscope.figures._style import COLUMN_WIDTH, FONT_SIZE, PAGE_WIDTH, PARTS, finish_axes, loss_label, new_figure
from grokscope.series import LabelledArrays, Series
from grokscope.thinning import nearest_row

_SMALLEST_LOSS = 1e-9
N_COLUMNS, _N_NARROW_COLUMNS = 4, 2
"""The number of slices side by side on a page, and in a column."""


def plot_slice(scan: LabelledArrays, *, ax: Axes, step: int) -> Axes:
    """Draw the losses along lines through a checkpoint: a thin curve for each direction, a thick one for the median.

    Args:
        scan: The result of `landscape.slices`.
        step: The checkpoint nearest to this step is drawn.
    """
    row = nearest_row(scan["step"], step)
    for part, (colour, style, _) in PARTS.items():
        losses = clipped(scan[f"{part}_loss"][row])
        for curve in losses:
            ax.plot(scan["alpha"], curve, color=colour, linewidth=0.5, alpha=0.6, linestyle=style)
        ax.plot(scan["alpha"], np.median(losses, 0), color=colour, linewidth=1.6, linestyle=style, label=part)
    ax.set_yscale("log")
    ax.set_xlabel("α (units of ‖w‖)")
    ax.set_ylabel(loss_label(scan))
    ax.set_title(f"step {scan['step'][row]:,}", fontsize=FONT_SIZE)
    return finish_axes(ax)


def figure_slices(scan: LabelledArrays, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the slices of all steps side by side, on one scale.

    Args:
        scan: The result of `landscape.slices`.
        width: Width in inches.
    """
    n_columns = N_COLUMNS if width > COLUMN_WIDTH else _N_NARROW_COLUMNS
    figure = new_figure(width, 2.1 * -(-len(scan["step"]) // n_columns))
    draw_slices(figure, scan, n_columns)
    return figure


def slice_animation(scan: LabelledArrays, log: Series | None = None, width: float = 3.6, kind: str = "webp") -> bytes:
    """Return the slices step by step on one scale, as the bytes of an animation.

    Args:
        scan: The result of `landscape.slices`.
        log: The run's log, which adds the test accuracy to the captions, or None.
        width: Width in inches.
        kind: "webp" or "gif".
    """
    figure = new_figure(width, 0.8 * width)
    ax = figure.subplots()
    losses = clipped(np.stack([scan["train_loss"], scan["test_loss"]]))

    def draw_frame(row: int) -> str:
        step = int(scan["step"][row])
        ax.clear()
        plot_slice(scan, ax=ax, step=step)
        ax.set_title("")
        ax.set_ylim(losses.min() / 2, losses.max() * 2)
        ax.legend(loc="lower right", frameon=False, fontsize=FONT_SIZE)
        return caption(step, log)

    return animate(figure, draw_frame, range(len(scan["step"])), kind)


def plot_interpolation(scan: LabelledArrays, *, ax: Axes) -> Axes:
    """Draw train and test loss along the line from checkpoint A (t = 0) to checkpoint B (t = 1).

    Args:
        scan: The result of `landscape.interpolate`.
    """
    for part, (colour, style, _) in PARTS.items():
        ax.plot(scan["t"], scan[f"{part}_loss"], color=colour, linestyle=style, label=part)
    ax.set_yscale("log")
    ax.set_xlabel("t, from A (t = 0) to B (t = 1)")
    ax.set_ylabel(loss_label(scan))
    return finish_axes(ax)


def figure_interpolation(
    scan: LabelledArrays, ends: tuple[str, str] = ("A", "B"), *, width: float = COLUMN_WIDTH
) -> Figure:
    """Return the losses along the line between two checkpoints.

    Args:
        scan: The result of `landscape.interpolate`.
        ends: The names of the two checkpoints.
        width: Width in inches.
    """
    figure = new_figure(width, 2.4)
    ax = plot_interpolation(scan, ax=figure.subplots())
    ax.set_xlabel(f"t, from {ends[0]} (t = 0) to {ends[1]} (t = 1)")
    return figure


def draw_slices(figure: FigureBase, scan: LabelledArrays, n_columns: int) -> None:
    """Draw a panel for each slice on a figure or subfigure, on one scale, with at most `n_columns` side by side."""
    n_columns = min(n_columns, len(scan["step"]))
    axes = figure.subplots(-(-len(scan["step"]) // n_columns), n_columns, squeeze=False, sharex=True, sharey=True)
    axes = axes.flatten()
    for i, (step, ax) in enumerate(zip(scan["step"], axes, strict=False)):
        plot_slice(scan, ax=ax, step=int(step))
        ax.label_outer()
        if i + n_columns >= len(scan["step"]):
            # The last row may be incomplete, so a panel above it can be the lowest of its column.
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("α (units of ‖w‖)")
        if i:
            ax.get_legend().remove()
    for ax in axes[len(scan["step"]) :]:
        ax.remove()


def clipped(losses: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return losses of at least 1e-9, because a logarithmic axis has no zero."""
    return np.maximum(losses, _SMALLEST_LOSS)
