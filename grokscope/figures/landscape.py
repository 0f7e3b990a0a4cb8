"""Figures of the landscape: slices and their animation, the plane of a path, rays and shells, a line."""

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from grokscope import phases
from grokscope.figures._export import animate, caption
from grokscope.figures._style import BLUE, COLUMN_WIDTH, FONT_SIZE, ORANGE, PAGE_WIDTH, VERMILLION, finish, new_figure
from grokscope.series import LabelledArrays, Series

_LEAST = 1e-9
"""What a loss is drawn as that is smaller, for a logarithm has no zero."""
_N_COLUMNS, _N_NARROW = 4, 2
"""How many slices stand beside each other on a page and in a column of it."""
_PARTS = (("train", BLUE, "-"), ("test", VERMILLION, "--"))


def plot_slice(scan: LabelledArrays, *, ax: Axes, step: int) -> Axes:
    """Draw losses around the checkpoint nearest to `step`: a thin line each direction, a thick one their median."""
    row = int(np.abs(scan["step"] - step).argmin())
    for part, colour, style in _PARTS:
        losses = _positive(scan[f"{part}_loss"][row])
        for one in losses:
            ax.plot(scan["alpha"], one, color=colour, linewidth=0.5, alpha=0.6, linestyle=style)
        ax.plot(scan["alpha"], np.median(losses, 0), color=colour, linewidth=1.6, linestyle=style, label=part)
    ax.set_yscale("log")
    ax.set_xlabel("α (lengths of w)")
    ax.set_ylabel("cross-entropy (nats)")
    ax.set_title(f"step {scan['step'][row]:,}", fontsize=FONT_SIZE)
    return finish(ax)


def figure_slices(scan: LabelledArrays, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the slices of each step beside each other, on one scale."""
    n_columns = _N_COLUMNS if width > COLUMN_WIDTH else _N_NARROW
    figure = new_figure(width, 2.1 * -(-len(scan["step"]) // n_columns))
    _draw_slices(figure, scan, n_columns)
    return figure


def plot_surface(scan: LabelledArrays, *, ax: Axes, name: str = "train_loss") -> Axes:
    """Draw contours of a loss over a plane's two axes, the first across, in equal steps of its logarithm.

    A bar for its scale, the base-10 logarithm, is the figure's to draw, of `ax.collections[0]`.
    """
    across, up = scan.axes
    # Contours of the logarithm, not of the loss on a logarithmic scale: between points they are then smooth.
    values = np.log10(_positive(scan[name]))
    levels = np.linspace(values.min(), max(values.max(), values.min() + 0.01), 19)
    ax.contourf(scan[across], scan[up], values.T, levels=levels, cmap="cividis")
    ax.contour(scan[across], scan[up], values.T, levels=levels, colors="white", linewidths=0.25, linestyles="-")
    ax.set_aspect("equal")
    ax.set_xlabel(across)
    ax.set_ylabel(up)
    ax.set_title(f"{name.replace('_', ' ')} (nats)", fontsize=FONT_SIZE)
    return finish(ax)


def plot_path_plane(
    grid: LabelledArrays,
    path: LabelledArrays,
    components: LabelledArrays,
    *,
    ax: Axes,
    log: Series | None = None,
    name: str = "train_loss",
) -> Axes:
    """Draw the contours of the plane of a path with the path on it, and, with a log, its telling points."""
    plot_surface(grid, ax=ax, name=name)
    ax.plot(path["first"], path["second"], color="black", linewidth=1.0, marker=".", markersize=2)
    for label, step, marker in _points(path, log):
        row = int(np.abs(path["step"] - step).argmin())
        ax.plot(
            path["first"][row], path["second"][row], marker, color=ORANGE, markersize=6, markeredgecolor="black",
            markeredgewidth=0.6, linestyle="none", label=label,
        )  # fmt: skip
    shares = components["explained_variance_ratio"]
    walk = components["explained_variance_ratio_random_walk"]
    for i, axis in enumerate((ax.xaxis, ax.yaxis)):
        axis.set_label_text(f"component {i + 1}: {shares[i]:.0%} (random walk {walk[i]:.0%})")
    return ax


def figure_path_plane(
    plane: tuple[LabelledArrays, LabelledArrays, LabelledArrays],
    log: Series | None = None,
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return train and test loss in the plane of a path (its grid, path and components), each with its own bar."""
    is_wide = width > COLUMN_WIDTH
    figure = new_figure(width, 3.4 if is_wide else 5.6)
    _draw_path_plane(figure, *plane, log, is_wide=is_wide)
    return figure


def plot_shells(
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    *,
    ax: Axes,
    part: str,
    run: tuple[Series, Series] | None = None,
) -> Axes:
    """Draw a loss against the norm of the weights: on each ray, at the lowest of each sphere, and on the run's path.

    `run` holds the measures `weight_norm` and `loss` of the same checkpoints.
    """
    steps = np.unique(np.concatenate([rays["step"], [] if shells is None else shells["start"]])).astype(np.int64)
    # Dark to light, all of them well seen on white.
    colours = dict(zip(steps.tolist(), colormaps["viridis"](np.linspace(0, 0.8, len(steps))), strict=True))
    for step, losses in zip(rays["step"].tolist(), _positive(rays[f"{part}_loss"]), strict=True):
        ax.plot(rays["weight_norm"], losses, ":", color=colours[step], linewidth=1.2, label=f"ray of step {step:,}")
    if shells is not None:
        for start, losses in zip(shells["start"].tolist(), _positive(shells[f"{part}_loss"]), strict=True):
            label = f"lowest from step {start:,}"
            ax.plot(shells["weight_norm"], losses, "o-", color=colours[start], markersize=3, label=label)
    if run is not None:
        norms, its_losses = run[0]["weight_norm"], _positive(run[1][f"{part}_loss"])
        ax.plot(norms, its_losses, color=VERMILLION, linewidth=1.0, label="the run")
        ax.plot(norms[-1:], its_losses[-1:], "*", color=VERMILLION, markersize=8, label="its end")
    ax.set_xscale("log")
    ax.set_yscale("log")
    # The norms span less than two decades, where powers of ten alone would be too few numbers.
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("norm of the weights")
    ax.set_ylabel(f"{part} loss (nats)")
    return finish(ax)


def figure_shells(
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    norms: Series | None = None,
    losses: Series | None = None,
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return train and test loss against the norm of the weights, on one scale: Omnigrok's L and U.

    `norms` and `losses` are the measures `weight_norm` and `loss` of the run, at the same checkpoints.
    """
    is_wide = width > COLUMN_WIDTH
    figure = new_figure(width, 3.2 if is_wide else 5.6)
    run = None if norms is None or losses is None else (norms, losses)
    _draw_shells(figure, rays, shells, run, is_wide=is_wide)
    return figure


def figure_landscape(
    slices: LabelledArrays,
    plane: tuple[LabelledArrays, LabelledArrays, LabelledArrays],
    rays: LabelledArrays,
    shells: LabelledArrays | None = None,
    run: tuple[Series, Series] | None = None,
    log: Series | None = None,
) -> Figure:
    """Return slices, the plane of the path (its grid, path and components) and the losses against the norm."""
    n_rows = -(-len(slices["step"]) // _N_COLUMNS)
    figure = new_figure(PAGE_WIDTH, 2.1 * n_rows + 6.8)
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=[2.1 * n_rows, 3.5, 3.3])[:, 0]
    _draw_slices(parts[0], slices, _N_COLUMNS)
    _draw_path_plane(parts[1], *plane, log)
    _draw_shells(parts[2], rays, shells, run)
    return figure


def plot_interpolation(scan: LabelledArrays, *, ax: Axes) -> Axes:
    """Draw train and test loss along the line from A (t = 0) to B (t = 1)."""
    for part, colour, style in _PARTS:
        ax.plot(scan["t"], scan[f"{part}_loss"], color=colour, linestyle=style, label=part)
    ax.set_yscale("log")
    ax.set_xlabel("t, from A to B")
    ax.set_ylabel("cross-entropy (nats)")
    return finish(ax)


def figure_interpolation(
    scan: LabelledArrays, ends: tuple[str, str] = ("A", "B"), *, width: float = COLUMN_WIDTH
) -> Figure:
    """Return the losses along the line between two checkpoints, which `ends` names."""
    figure = new_figure(width, 2.4)
    ax = plot_interpolation(scan, ax=figure.subplots())
    ax.set_xlabel(f"t, from {ends[0]} (t = 0) to {ends[1]} (t = 1)")
    return figure


def slice_animation(scan: LabelledArrays, log: Series | None = None, width: float = 3.6, kind: str = "webp") -> bytes:
    """Return slices as an animated WebP or GIF, a frame a step on one scale; a log adds the test accuracy."""
    figure = new_figure(width, 0.8 * width)
    ax = figure.subplots()
    losses = _positive(np.stack([scan["train_loss"], scan["test_loss"]]))

    def frame(row: int) -> str:
        step = int(scan["step"][row])
        ax.clear()
        plot_slice(scan, ax=ax, step=step)
        ax.set_title("")
        ax.set_ylim(losses.min() / 2, losses.max() * 2)
        ax.legend(loc="lower right", frameon=False, fontsize=FONT_SIZE)
        return caption(step, log)

    return animate(figure, frame, range(len(scan["step"])), kind)


def _draw_slices(figure: FigureBase, scan: LabelledArrays, n_columns: int) -> None:
    n_columns = min(n_columns, len(scan["step"]))
    axes = figure.subplots(-(-len(scan["step"]) // n_columns), n_columns, squeeze=False, sharex=True, sharey=True)
    axes = axes.flatten()
    for i, (step, ax) in enumerate(zip(scan["step"], axes, strict=False)):
        plot_slice(scan, ax=ax, step=int(step))
        ax.label_outer()
        if i + n_columns >= len(scan["step"]):
            # Also where the row below is not full.
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("α (lengths of w)")
        if i:
            ax.get_legend().remove()
    for ax in axes[len(scan["step"]) :]:
        ax.remove()


def _draw_path_plane(
    figure: FigureBase,
    grid: LabelledArrays,
    path: LabelledArrays,
    components: LabelledArrays,
    log: Series | None,
    *,
    is_wide: bool = True,
) -> None:
    axes = figure.subplots(*((1, 2) if is_wide else (2, 1)))
    for ax, (part, _, _) in zip(axes, _PARTS, strict=True):
        plot_path_plane(grid, path, components, ax=ax, log=log, name=f"{part}_loss")
        bar = figure.colorbar(ax.collections[0], ax=ax, shrink=0.7, format=lambda x, _: f"{10**x:.0e}")
        bar.ax.tick_params(labelsize=FONT_SIZE - 1)
    _legend_below(figure, axes[0], 4 if is_wide else 2)


def _draw_shells(
    figure: FigureBase,
    rays: LabelledArrays,
    shells: LabelledArrays | None,
    run: tuple[Series, Series] | None,
    *,
    is_wide: bool = True,
) -> None:
    axes = figure.subplots(*((1, 2) if is_wide else (2, 1)), sharey=True)
    for ax, (part, _, _) in zip(axes, _PARTS, strict=True):
        plot_shells(rays, shells, ax=ax, part=part, run=run)
        ax.get_legend().remove()
    _legend_below(figure, axes[0], 3 if is_wide else 2)


def _legend_below(figure: FigureBase, ax: Axes, n_columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, frameon=False, fontsize=FONT_SIZE)


def _points(path: LabelledArrays, log: Series | None) -> list[tuple[str, int, str]]:
    """Return name, step and marker of the points of a path that are worth a mark."""
    found = [("start", int(path["step"][0]), "s")]
    if log is not None:
        for label, crossing, marker in (
            ("memorization", phases.memorization_step(log), "^"),
            ("generalisation", phases.generalisation_step(log), "D"),
        ):
            if crossing is not None:
                found.append((label, crossing.step, marker))
    return [*found, ("end", int(path["step"][-1]), "o")]


def _positive(losses: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.maximum(losses, _LEAST)
