"""The loss landscape of a run: the plane of its path, and the loss against the norm of the weights."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from grokscope import phases
from grokscope.figures._style import (
    BLACK,
    COLUMN_WIDTH,
    FONT_SIZE,
    LOSS_MAP,
    MARKED_POINT,
    PAGE_WIDTH,
    PARTS,
    RUN_PATH,
    STEP_MAP,
    add_legend_below,
    finish_axes,
    loss_label,
    new_figure,
)
from grokscope.figures.slices import N_COLUMNS, clipped, draw_slices
from grokscope.series import LabelledArrays, Series
from grokscope.thinning import nearest_row


def plot_surface(scan: LabelledArrays, *, ax: Axes, name: str = "train_loss") -> Axes:
    """Draw contours of a loss over a plane, in equal steps of its base-10 logarithm.

    The caller adds a colour bar, from `ax.collections[0]`.

    Args:
        scan: Losses over two axes, the first of them horizontal.
        name: The array to draw.
    """
    horizontal, vertical = scan.axes
    # Contours of the logarithm are smooth between grid points. Contours of the loss on a log scale are not.
    values = np.log10(clipped(scan[name]))
    levels = np.linspace(values.min(), max(values.max(), values.min() + 0.01), 19)
    ax.contourf(scan[horizontal], scan[vertical], values.T, levels=levels, cmap=LOSS_MAP)
    ax.contour(
        scan[horizontal], scan[vertical], values.T, levels=levels, colors="white", linewidths=0.25, linestyles="-"
    )
    ax.set_aspect("equal")
    ax.set_xlabel(horizontal)
    ax.set_ylabel(vertical)
    ax.set_title(loss_label(scan, name=name.replace("_", " ")), fontsize=FONT_SIZE)
    return finish_axes(ax)


def plot_path_plane(
    grid: LabelledArrays,
    path: LabelledArrays,
    components: LabelledArrays,
    *,
    ax: Axes,
    log: Series | None = None,
    name: str = "train_loss",
) -> Axes:
    """Draw the path of a run on the contours of a loss, in the plane of the path's first two principal components.

    The labels give each component's share of the path's variance, and the share that a random walk would have.

    Args:
        grid: The losses over the plane, from `landscape.path_plane`.
        path: The coordinates of the checkpoints, from the same.
        components: The shares of variance, from the same.
        log: The run's log, which marks memorization and generalisation on the path, or None.
        name: The array of `grid` to draw.
    """
    plot_surface(grid, ax=ax, name=name)
    ax.plot(path["first"], path["second"], color=BLACK, linewidth=1.0, marker=".", markersize=2)
    for label, step, marker in _marked_points(path, log):
        row = nearest_row(path["step"], step)
        ax.plot(
            path["first"][row], path["second"][row], marker, color=MARKED_POINT, markersize=6,
            markeredgecolor=BLACK, markeredgewidth=0.6, linestyle="none", label=label,
        )  # fmt: skip
    shares = components["explained_variance_ratio"]
    walk = components["explained_variance_ratio_random_walk"]
    for i, axis in enumerate((ax.xaxis, ax.yaxis)):
        axis.set_label_text(f"PC {i + 1}: {shares[i]:.0%} (random walk {walk[i]:.0%})")
    return ax


def figure_path_plane(
    plane: tuple[LabelledArrays, LabelledArrays, LabelledArrays],
    log: Series | None = None,
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return train and test loss in the plane of the path, each with its colour bar.

    Args:
        plane: The grid, the path and the components of `landscape.path_plane`.
        log: The run's log, which marks memorization and generalisation on the path, or None.
        width: Width in inches.
    """
    has_columns = width > COLUMN_WIDTH
    figure = new_figure(width, 3.4 if has_columns else 5.6)
    _draw_path_plane(figure, *plane, log, has_columns=has_columns)
    return figure


def plot_shells(
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    *,
    ax: Axes,
    part: str,
    run: tuple[Series, Series] | None = None,
) -> Axes:
    """Draw a loss against the norm of the weights: of rescaled checkpoints, the lowest at fixed norm, and of the run.

    Args:
        rays: The result of `landscape.rays`.
        shells: The result of `landscape.shells`, or None.
        part: "train" or "test".
        run: The measures `weight_norm` and `loss` at the same checkpoints, or None.
    """
    steps = np.unique(np.concatenate([rays["step"], [] if shells is None else shells["start"]])).astype(np.int64)
    # The lightest colours of the map are invisible on white.
    colours = dict(zip(steps.tolist(), colormaps[STEP_MAP](np.linspace(0, 0.8, len(steps))), strict=True))
    for step, losses in zip(rays["step"].tolist(), clipped(rays[f"{part}_loss"]), strict=True):
        label = f"step {step:,}, rescaled"
        ax.plot(rays["weight_norm"], losses, ":", color=colours[step], linewidth=1.2, label=label)
    if shells is not None:
        for start, losses in zip(shells["start"].tolist(), clipped(shells[f"{part}_loss"]), strict=True):
            label = f"lowest at fixed norm, from step {start:,}"
            ax.plot(shells["weight_norm"], losses, "o-", color=colours[start], markersize=3, label=label)
    if run is not None:
        norms, losses = run[0]["weight_norm"], clipped(run[1][f"{part}_loss"])
        ax.plot(norms, losses, color=RUN_PATH.colour, linewidth=1.0, label="training run")
        ax.plot(norms[-1:], losses[-1:], "*", color=RUN_PATH.colour, markersize=8, label="end of training")
    ax.set_xscale("log")
    ax.set_yscale("log")
    # The norms span less than two decades, which have too few powers of ten for ticks.
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("weight norm ‖w‖")
    ax.set_ylabel(loss_label(rays, name=f"{part} loss"))
    return finish_axes(ax)


def figure_shells(
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    norms: Series | None = None,
    losses: Series | None = None,
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return train and test loss against the norm of the weights on one scale: the L and the U of Omnigrok.

    Args:
        rays: The result of `landscape.rays`.
        shells: The result of `landscape.shells`, or None.
        norms: The measure `weight_norm`, or None to leave out the run.
        losses: The measure `loss` at the same checkpoints, or None to leave out the run.
        width: Width in inches.

    References:
        Liu et al. 2022, "Omnigrok", arXiv 2210.01117.
    """
    has_columns = width > COLUMN_WIDTH
    figure = new_figure(width, 3.2 if has_columns else 5.6)
    run = None if norms is None or losses is None else (norms, losses)
    _draw_shells(figure, rays, shells, run, has_columns=has_columns)
    return figure


def figure_landscape(
    slices: LabelledArrays,
    plane: tuple[LabelledArrays, LabelledArrays, LabelledArrays],
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    run: tuple[Series, Series] | None = None,
    log: Series | None = None,
) -> Figure:
    """Return slices, the plane of the path, and the losses against the norm, one above the other.

    Args:
        slices: The result of `landscape.slices`.
        plane: The grid, the path and the components of `landscape.path_plane`.
        rays: The result of `landscape.rays`.
        shells: The result of `landscape.shells`, or None.
        run: The measures `weight_norm` and `loss` at the same checkpoints, or None.
        log: The run's log, which marks memorization and generalisation on the path, or None.
    """
    n_rows = -(-len(slices["step"]) // N_COLUMNS)
    figure = new_figure(PAGE_WIDTH, 2.1 * n_rows + 6.8)
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=[2.1 * n_rows, 3.5, 3.3])[:, 0]
    draw_slices(parts[0], slices, N_COLUMNS)
    _draw_path_plane(parts[1], *plane, log)
    _draw_shells(parts[2], rays, shells, run)
    return figure


def _draw_path_plane(
    figure: FigureBase,
    grid: LabelledArrays,
    path: LabelledArrays,
    components: LabelledArrays,
    log: Series | None,
    *,
    has_columns: bool = True,
) -> None:
    axes = figure.subplots(*((1, 2) if has_columns else (2, 1)))
    for ax, part in zip(axes, PARTS, strict=True):
        plot_path_plane(grid, path, components, ax=ax, log=log, name=f"{part}_loss")
        bar = figure.colorbar(ax.collections[0], ax=ax, shrink=0.7, format=lambda x, _: f"{10**x:.0e}")
        bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    add_legend_below(figure, axes[0], 4 if has_columns else 2)


def _draw_shells(
    figure: FigureBase,
    rays: LabelledArrays,
    shells: LabelledArrays | None,
    run: tuple[Series, Series] | None,
    *,
    has_columns: bool = True,
) -> None:
    axes = figure.subplots(*((1, 2) if has_columns else (2, 1)), sharey=True)
    for ax, part in zip(axes, PARTS, strict=True):
        plot_shells(rays, shells, ax=ax, part=part, run=run)
        ax.get_legend().remove()
    add_legend_below(figure, axes[0], 3 if has_columns else 1)


def _marked_points(path: LabelledArrays, log: Series | None) -> list[tuple[str, int, str]]:
    """Return name, step and marker of the points to mark on a path."""
    points = [("start", int(path["step"][0]), "s")]
    if log is not None:
        for label, crossing, marker in (
            ("memorization", phases.memorization_step(log), "^"),
            ("generalisation", phases.generalisation_step(log), "D"),
        ):
            if crossing is not None:
                points.append((label, crossing.step, marker))
    return [*points, ("end", int(path["step"][-1]), "o")]
