"""The Hessian over the steps: its eigenvalues, sizes and blocks, its density, and the edge of stability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import (
    BLUE,
    COLUMN_WIDTH,
    FONT_SIZE,
    GREY,
    PAGE_WIDTH,
    PALETTE,
    VERMILLION,
    finish,
    new_figure,
)
from grokscope.figures.curves import plot_losses
from grokscope.series import Series

_BELOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def plot_eigenvalues(series: Series, *, ax: Axes) -> Axes:
    """Draw the largest eigenvalues with their residuals as bands, and the smallest where it is below zero."""
    values, residuals = series["eigenvalues"], series["eigenvalues_residual"]
    for i in range(values.shape[1]):
        last = f"λ{str(values.shape[1]).translate(_BELOW)}"
        label = {0: "λ₁", 1: last if values.shape[1] == 2 else f"λ₂ … {last}"}.get(i, "")
        colour = GREY if i else BLUE
        steps, value = broken_at_gaps(series, values[:, i])
        ax.plot(steps, value, color=colour, linewidth=1.4 if i == 0 else 0.8, label=label or None)
        _band(series, values[:, i], residuals[:, i], ax, colour)
    bottom, residual = series["bottom_eigenvalue"], series["bottom_eigenvalue_residual"]
    steps, below = broken_at_gaps(series, np.where(bottom < 0, -bottom, np.nan))
    ax.plot(
        steps,
        below,
        color=VERMILLION,
        linestyle="--",
        marker="s",
        markersize=3,
        linewidth=1.2,
        label="−λ at bottom ± residual",
    )
    _band(series, -bottom, residual, ax, VERMILLION)
    shown = np.concatenate([values.ravel(), -bottom[bottom < 0]])
    if (shown > 0).all():
        ax.set_yscale("log")
        ax.set_ylim(shown.min() / 3, shown.max() * 3)
    ax.set_ylabel("Hessian's eigenvalues")
    return finish_over_steps(series, ax)


def plot_hessian_traces(series: Series, *, ax: Axes) -> Axes:
    """Draw the traces of the Hessian and its Gauss–Newton part and its Frobenius norm, with two standard errors."""
    for name, colour, label, style in (
        ("trace", VERMILLION, "trace", "-"),
        ("gauss_newton_trace", BLUE, "trace of Gauss–Newton", "--"),
        ("frobenius_norm", PALETTE[2], "Frobenius norm", "-."),
    ):
        draw_line(series, name, ax, colour, f"{label} ± 2 s.e.", linestyle=style)
        _band(series, series[name], 2 * series[f"{name}_stderr"], ax, colour)
    if all((series[name] > 0).all() for name in ("trace", "gauss_newton_trace", "frobenius_norm")):
        ax.set_yscale("log")
    ax.set_ylabel("size of the Hessian")
    return finish_over_steps(series, ax)


def plot_gauss_newton_share(series: Series, *, ax: Axes) -> Axes:
    """Draw the share of the trace that Gauss–Newton explains, with two standard errors, beside the whole, 1."""
    draw_line(series, "gauss_newton_share", ax, BLUE, "tr G / tr H ± 2 s.e.", marker="o")
    _band(series, series["gauss_newton_share"], 2 * series["gauss_newton_share_stderr"], ax, BLUE)
    ax.axhline(1, color=GREY, linewidth=0.7)
    ax.set_ylabel("Gauss–Newton's share")
    return finish_over_steps(series, ax)


def plot_hessian_blocks(series: Series, *, ax: Axes, quantity: str = "block_eigenvalues") -> Axes:
    """Draw `block_eigenvalues` or `block_traces`, a line a component of the transformer."""
    values = series[quantity]
    for i, name in enumerate(series.words("blocks")):
        steps, value = broken_at_gaps(series, values[:, i])
        ax.plot(steps, value, color=PALETTE[i % len(PALETTE)], linestyle=("-", "--", "-.", ":")[i % 4], label=name)
        if f"{quantity}_stderr" in series:
            _band(series, values[:, i], 2 * series[f"{quantity}_stderr"][:, i], ax, PALETTE[i % len(PALETTE)])
    if values.size and (values > 0).all():
        ax.set_yscale("log")
    ax.set_ylabel("top eigenvalue of a block" if quantity == "block_eigenvalues" else "trace of a block ± 2 s.e.")
    return finish_over_steps(series, ax)


def plot_overlaps(series: Series, *, ax: Axes) -> Axes:
    """Draw which share of gradient, update and former eigenspace lies in the top eigenspace, and that of chance."""
    k = series["eigenvalues"].shape[1]
    for name, colour, label, style in (
        ("gradient_overlap", BLUE, "gradient", "-"),
        ("update_overlap", VERMILLION, "way to the next checkpoint", "--"),
        ("eigenspace_overlap", PALETTE[2], "eigenspace of the one before", "-."),
    ):
        draw_line(series, name, ax, colour, label, linestyle=style)
    ax.axhline(float(series["chance_overlap"]), color=GREY, linewidth=1, linestyle=":", label="chance")
    if all((series[name] > 0).all() for name in ("gradient_overlap", "update_overlap", "eigenspace_overlap")):
        ax.set_yscale("log")
    ax.set_ylabel(f"share in the top {k}")
    return finish_over_steps(series, ax)


def plot_spectral_density(series: Series, *, ax: Axes) -> Axes:
    """Draw the density of the Hessian's eigenvalues over the steps as a heat map, each checkpoint a column.

    The colour's scale is logarithmic and begins at 0.1/n. Where it is hatched, it is known how much lies there,
    not where.
    """
    grid, density = series["grid"], series["density"]
    order = np.arange(len(series) + 1) - 0.5
    edges = np.concatenate([grid - (grid[1] - grid[0]) / 2, [grid[-1] + (grid[1] - grid[0]) / 2]])
    lowest = 0.1 / float(series["n_parameters"])
    norm = LogNorm(lowest, max(float(density.max()), 10 * lowest))
    shown = np.ma.masked_less(density.T, lowest)
    mesh = ax.pcolormesh(order, edges, shown, norm=norm, cmap="viridis", rasterized=True)
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.set_label("density per decade", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    low, high = (np.interp(sign * series["resolution"], series["eigenvalue_grid"], grid) for sign in (-1, 1))
    ax.stairs(
        high, order, baseline=low, fill=True, facecolor="#FFFFFF60", edgecolor=VERMILLION, linewidth=0.6,
        hatch="////", label="not resolved",
    )  # fmt: skip
    n_kept = 7 if _is_wide(ax) else 3
    kept = np.unique(np.linspace(0, len(series) - 1, n_kept).round().astype(int))
    ax.set_xticks(kept, [f"{step:,}" for step in series.steps[kept]])
    ax.set_xlabel("step (optimizer updates)")
    ax.set_yticks(*_decades(series, 2))
    mass = np.flatnonzero((density >= lowest).any(0))
    if len(mass):
        ax.set_ylim(float(edges[mass[0]]), float(edges[mass[-1] + 1]))
    ax.set_ylabel("eigenvalue λ")
    return _with_legend_above(ax, 1)


def plot_density_lines(series: Series, *, ax: Axes, steps: Sequence[int] | None = None) -> Axes:
    """Draw the density at a few steps with two standard errors, by default the first, the last and two between.

    Thin and dotted where it is not resolved: how much lies there is known, not where.
    """
    wanted = series.steps[np.linspace(0, len(series) - 1, 4).round().astype(int)] if steps is None else steps
    rows = np.unique([int(np.abs(series.steps - step).argmin()) for step in wanted])
    grid, lowest = series["grid"], 0.1 / float(series["n_parameters"])
    for i, row in enumerate(rows):
        density, error = series["density"][row], 2 * series["density_stderr"][row]
        colour = PALETTE[i % len(PALETTE)]
        is_resolved = np.abs(series["eigenvalue_grid"]) >= series["resolution"][row]
        shown = np.maximum(density, lowest)
        ax.plot(grid, shown, color=colour, linewidth=0.7, linestyle=":")
        solid = np.where(is_resolved, shown, np.nan)
        ax.plot(grid, solid, color=colour, linewidth=1.2, label=f"step {series.steps[row]:,}")
        low, high = (np.where(is_resolved, np.maximum(density + e, lowest), np.nan) for e in (-error, error))
        ax.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(bottom=lowest)
    is_wide = _is_wide(ax)
    ax.set_xticks(*_decades(series, 2 if is_wide else 4))
    mass = grid[(series["density"] >= lowest).any(0)]
    if len(mass):
        ax.set_xlim(mass[0], mass[-1])
    ax.plot([], [], color=GREY, linewidth=0.7, linestyle=":", label="not resolved")
    ax.set_xlabel("eigenvalue λ")
    ax.set_ylabel("density per decade ± 2 s.e.")
    return _with_legend_above(ax, 5 if is_wide else 2)


def plot_edge_of_stability(series: Series, *, ax: Axes) -> Axes:
    """Draw the sharpness that counts for the run's optimizer under the threshold beyond which it would diverge."""
    draw_line(series, "effective_sharpness", ax, BLUE, "sharpness that counts", marker="o")
    _band(series, series["effective_sharpness"], series["effective_sharpness_residual"], ax, BLUE)
    steps, threshold = broken_at_gaps(series, np.where(np.isfinite(series["threshold"]), series["threshold"], np.nan))
    ax.plot(steps, threshold, color=VERMILLION, linestyle="--", linewidth=1.4, label="threshold")
    if (series["effective_sharpness"] > 0).all():
        ax.set_yscale("log")
    ax.set_ylabel("sharpness")
    return finish_over_steps(series, ax)


def figure_hessian(log: Series, hessian: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses, eigenvalues, sizes, Gauss–Newton's share, blocks and overlaps on one step axis, with stages."""
    figure, axes = stack_over_steps([1, 1.2, 1.2, 0.8, 1.2, 1.2], width)
    plot_losses(log, ax=axes[0])
    panels = (plot_eigenvalues, plot_hessian_traces, plot_gauss_newton_share, plot_hessian_blocks, plot_overlaps)
    for plot, ax in zip(panels, axes[1:], strict=True):
        plot(hessian, ax=ax)
    return with_stages(figure, log, axes)


def figure_hessian_spectrum(
    spectrum: Series, steps: Sequence[int] | None = None, *, width: float = PAGE_WIDTH
) -> Figure:
    """Return the density over all steps above that at a few, by default the first, the last and two between."""
    figure = new_figure(width, 6)
    upper, lower = figure.subplots(2, 1)
    plot_spectral_density(spectrum, ax=upper)
    plot_density_lines(spectrum, ax=lower, steps=steps)
    return figure


def figure_edge_of_stability(log: Series, stability: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return sharpness and threshold under the losses on the same step axis, the stages shaded."""
    figure, (upper, lower) = stack_over_steps([1, 1.2], width)
    plot_losses(log, ax=upper)
    plot_edge_of_stability(stability, ax=lower)
    return with_stages(figure, log, [upper, lower])


def _band(series: Series, values: np.ndarray, half: np.ndarray, ax: Axes, colour: str) -> None:
    """Draw a band of ± half about values over the steps, broken where checkpoints are lost."""
    steps, low = broken_at_gaps(series, values - half)
    ax.fill_between(steps, low, broken_at_gaps(series, values + half)[1], color=colour, alpha=0.25, linewidth=0)


def _with_legend_above(ax: Axes, n_columns: int) -> Axes:
    """Give an Axes the common look, its legend above it."""
    finish(ax).legend(
        frameon=False, fontsize=FONT_SIZE, ncols=n_columns, loc="lower center", bbox_to_anchor=(0.5, 1), borderpad=0,
        handlelength=1.5, columnspacing=1,
    )  # fmt: skip
    return ax


def _is_wide(ax: Axes) -> bool:
    # A hundredth more, for the width comes from pixels.
    return bool(ax.figure.bbox.width / ax.figure.dpi > 1.01 * COLUMN_WIDTH)


def _decades(series: Series, every: int) -> tuple[list[float], list[str]]:
    """Return places in the grid's coordinate and names for zero and every few powers of ten, of both signs."""
    grid, eigenvalues = series["grid"], series["eigenvalue_grid"]
    largest = int(np.floor(np.log10(eigenvalues[-1]) + 1e-6))
    # λ + linear_below = linear_below · 10^x, and the grid's own points tell linear_below.
    linear = eigenvalues[-1] / (10 ** grid[-1] - 1)
    # Nearer to zero the names would overlap.
    powers = range(largest, int(np.ceil(np.log10(linear))) + 1, -every)
    places = [(0.0, "0")]
    for power in powers:
        x = float(np.log10(1 + 10.0**power / linear))
        places += [(x, f"$10^{{{power}}}$"), (-x, f"$-10^{{{power}}}$")]
    places.sort()
    return [x for x, _ in places], [name for _, name in places]
