"""The Hessian over the steps: eigenvalues, traces, blocks and overlaps, spectral density, edge of stability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures._axes import (
    STEP_LABEL,
    add_key,
    draw_band,
    draw_line,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
    use_log_scale_if_positive,
)
from grokscope.figures._style import (
    DENSITY_MAP,
    FONT_SIZE,
    GREY,
    LOOKS,
    PAGE_WIDTH,
    UNRESOLVED_EDGE,
    UNRESOLVED_VEIL,
    Look,
    finish_axes,
    is_wide,
    loss_name,
    new_figure,
    numbered,
)
from grokscope.figures.curves import plot_losses
from grokscope.series import Series
from grokscope.thinning import nearest_row

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def plot_eigenvalues(series: Series, *, ax: Axes) -> Axes:
    """Draw the largest eigenvalues, and the absolute smallest one where it is negative, with bands of ± residual.

    Args:
        series: The measure `hessian`.
    """
    values, residuals = series["eigenvalues"], series["eigenvalues_residual"]
    n_values = values.shape[1]
    for i in range(n_values):
        last = f"λ{str(n_values).translate(_SUBSCRIPTS)}"
        label = {0: "λ₁", 1: last if n_values == 2 else f"λ₂ … {last}"}.get(i)
        look = LOOKS["eigenvalues_below" if i else "eigenvalues"]
        draw_values(series, values[:, i], ax, label, look, linewidth=0.8 if i else 1.4)
        draw_band(series, values[:, i] - residuals[:, i], values[:, i] + residuals[:, i], ax, look.colour)
    bottom, residual = series["bottom_eigenvalue"], series["bottom_eigenvalue_residual"]
    look = LOOKS["bottom_eigenvalue"]
    draw_values(series, np.where(bottom < 0, -bottom, np.nan), ax, "−λₘᵢₙ ± residual", look, linewidth=1.2)
    draw_band(series, -bottom - residual, -bottom + residual, ax, look.colour)
    drawn = np.concatenate([values.ravel(), -bottom[bottom < 0]])
    if (drawn > 0).all():
        ax.set_yscale("log")
        ax.set_ylim(drawn.min() / 3, drawn.max() * 3)
    return finish_step_axes(series, ax, f"Hessian eigenvalues, {loss_name(series)}")


def plot_hessian_traces(series: Series, *, ax: Axes) -> Axes:
    """Draw the traces of the Hessian and of its Gauss–Newton part, and the Frobenius norm, ± 2 standard errors.

    Args:
        series: The measure `hessian`.
    """
    labels = {"trace": "trace", "gauss_newton_trace": "Gauss–Newton trace", "frobenius_norm": "Frobenius norm"}
    for name, label in labels.items():
        draw_line(series, name, ax, f"{label} ± 2 s.e.")
        _draw_two_errors(series, name, ax)
    use_log_scale_if_positive(ax, *(series[name] for name in labels))
    return finish_step_axes(series, ax, f"Hessian, {loss_name(series)}")


def plot_gauss_newton_share(series: Series, *, ax: Axes) -> Axes:
    """Draw tr G / tr H, the share of the trace in the Gauss–Newton part, ± 2 standard errors, and the level 1.

    Args:
        series: The measure `hessian`.
    """
    draw_line(series, "gauss_newton_share", ax, "tr G / tr H ± 2 s.e.")
    _draw_two_errors(series, "gauss_newton_share", ax)
    ax.axhline(1, color=GREY, linewidth=0.7)
    return finish_step_axes(series, ax, "Gauss–Newton share")


def plot_hessian_blocks(series: Series, *, ax: Axes, quantity: str = "block_eigenvalues") -> Axes:
    """Draw the top eigenvalue or the trace of each component's diagonal block of the Hessian.

    Args:
        series: The measure `hessian`.
        quantity: "block_eigenvalues", or "block_traces" with bands of two standard errors.
    """
    values = series[quantity]
    for i, name in enumerate(series.words("blocks")):
        draw_values(series, values[:, i], ax, name, numbered(i))
        if f"{quantity}_stderr" in series:
            error = 2 * series[f"{quantity}_stderr"][:, i]
            draw_band(series, values[:, i] - error, values[:, i] + error, ax, numbered(i).colour)
    use_log_scale_if_positive(ax, values)
    words = "top eigenvalue of block" if quantity == "block_eigenvalues" else "trace of block ± 2 s.e."
    return finish_step_axes(series, ax, f"{words}, {loss_name(series)}")


def plot_overlaps(series: Series, *, ax: Axes) -> Axes:
    """Draw the shares of gradient, update and previous eigenspace in the top eigenspace, and the share by chance.

    Args:
        series: The measure `hessian`.
    """
    labels = {
        "gradient_overlap": "gradient",
        "update_overlap": "move to the next checkpoint",
        "eigenspace_overlap": "previous eigenspace",
    }
    for name, label in labels.items():
        draw_line(series, name, ax, label)
    colour, linestyle, _ = LOOKS["chance_overlap"]
    ax.axhline(float(series["chance_overlap"]), color=colour, linewidth=1, linestyle=linestyle, label="chance")
    use_log_scale_if_positive(ax, *(series[name] for name in labels))
    return finish_step_axes(series, ax, f"share in top-{series['eigenvalues'].shape[1]} eigenspace")


def plot_spectral_density(series: Series, *, ax: Axes) -> Axes:
    """Draw the density of the Hessian's eigenvalues over the steps as a heat map, with a column for each checkpoint.

    The colour scale is logarithmic and starts at 0.1 / n for n parameters. In the hatched range below the resolution,
    the total mass is known, but not its position.

    Args:
        series: The measure `hessian_spectrum`.
    """
    grid, density, lowest = series["grid"], series["density"], _lowest_density(series)
    column_edges = np.arange(len(series) + 1) - 0.5
    spacing = grid[1] - grid[0]
    edges = np.append(grid - spacing / 2, grid[-1] + spacing / 2)
    norm = LogNorm(lowest, max(float(density.max()), 10 * lowest))
    visible = np.ma.masked_less(density.T, lowest)
    mesh = ax.pcolormesh(column_edges, edges, visible, norm=norm, cmap=DENSITY_MAP, rasterized=True)
    bar = ax.figure.colorbar(mesh, ax=ax)
    bar.set_label("density per decade", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    low, high = (np.interp(sign * series["resolution"], series["eigenvalue_grid"], grid) for sign in (-1, 1))
    ax.stairs(
        high, column_edges, baseline=low, fill=True, facecolor=UNRESOLVED_VEIL, edgecolor=UNRESOLVED_EDGE,
        linewidth=0.6, hatch="////", label="below resolution",
    )  # fmt: skip
    n_ticks = 7 if is_wide(ax) else 3
    rows = np.unique(np.linspace(0, len(series) - 1, n_ticks).round().astype(int))
    ax.set_xticks(rows, [f"{step:,}" for step in series.steps[rows]])
    ax.set_xlabel(STEP_LABEL)
    ax.set_yticks(*_decade_ticks(series, 2))
    occupied = np.flatnonzero((density >= lowest).any(0))
    if len(occupied):
        ax.set_ylim(float(edges[occupied[0]]), float(edges[occupied[-1] + 1]))
    ax.set_ylabel(f"eigenvalue λ, {loss_name(series)}")
    return _finish_with_legend_above(ax, 1)


def plot_density_lines(series: Series, *, ax: Axes, steps: Sequence[int] | None = None) -> Axes:
    """Draw the density of the Hessian's eigenvalues at a few steps, ± 2 standard errors.

    A curve is thin and dotted below the resolution, where the total mass is known, but not its position.

    Args:
        series: The measure `hessian_spectrum`.
        steps: The checkpoints nearest to these steps are drawn. The default is the first, the last and two between.
    """
    if steps is None:
        rows = np.unique(np.linspace(0, len(series) - 1, 4).round().astype(int))
    else:
        rows = np.unique([nearest_row(series.steps, step) for step in steps])
    grid, lowest = series["grid"], _lowest_density(series)
    for i, row in enumerate(rows):
        density, error = series["density"][row], 2 * series["density_stderr"][row]
        colour = numbered(i).colour
        is_resolved = np.abs(series["eigenvalue_grid"]) >= series["resolution"][row]
        visible = np.maximum(density, lowest)
        ax.plot(grid, visible, color=colour, linewidth=0.7, linestyle=":")
        resolved = np.where(is_resolved, visible, np.nan)
        ax.plot(grid, resolved, color=colour, linewidth=1.2, label=f"step {series.steps[row]:,}")
        low, high = (np.where(is_resolved, np.maximum(density + e, lowest), np.nan) for e in (-error, error))
        ax.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)
    add_key(ax, "below resolution", Look(GREY, ":"), linewidth=0.7)
    ax.set_yscale("log")
    ax.set_ylim(bottom=lowest)
    ax.set_xticks(*_decade_ticks(series, 2 if is_wide(ax) else 4))
    occupied = grid[(series["density"] >= lowest).any(0)]
    if len(occupied):
        ax.set_xlim(occupied[0], occupied[-1])
    ax.set_xlabel(f"eigenvalue λ of the Hessian, {loss_name(series)}")
    ax.set_ylabel("density per decade ± 2 s.e.")
    return _finish_with_legend_above(ax, 5 if is_wide(ax) else 2)


def plot_edge_of_stability(series: Series, *, ax: Axes) -> Axes:
    """Draw the effective sharpness with its residual, and the threshold above which the optimizer diverges.

    The effective sharpness is the top eigenvalue of the Hessian as the run's optimizer preconditions it.

    Args:
        series: The result of `landscape.edge_of_stability`.
    """
    sharpness, residual = series["effective_sharpness"], series["effective_sharpness_residual"]
    draw_line(series, "effective_sharpness", ax, "effective sharpness")
    draw_band(series, sharpness - residual, sharpness + residual, ax, LOOKS["effective_sharpness"].colour)
    threshold = np.where(np.isfinite(series["threshold"]), series["threshold"], np.nan)
    draw_values(series, threshold, ax, "stability threshold", LOOKS["threshold"])
    use_log_scale_if_positive(ax, sharpness)
    return finish_step_axes(series, ax, f"sharpness, {loss_name(series, name='train loss')}")


def figure_hessian(log: Series, hessian: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above eigenvalues, traces, the Gauss–Newton share, blocks and overlaps.

    Args:
        log: The run's log.
        hessian: The measure `hessian`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.2, 1.2, 0.8, 1.2, 1.2], width)
    plot_losses(log, ax=axes[0])
    panels = (plot_eigenvalues, plot_hessian_traces, plot_gauss_newton_share, plot_hessian_blocks, plot_overlaps)
    for plot, ax in zip(panels, axes[1:], strict=True):
        plot(hessian, ax=ax)
    return finish_stack(figure, log, axes)


def figure_hessian_spectrum(
    spectrum: Series, steps: Sequence[int] | None = None, *, width: float = PAGE_WIDTH
) -> Figure:
    """Return the density of the Hessian's eigenvalues over all steps, above the density at a few.

    Args:
        spectrum: The measure `hessian_spectrum`.
        steps: The steps of the lower panel. The default is the first, the last and two between.
        width: Width in inches.
    """
    figure = new_figure(width, 6)
    upper, lower = figure.subplots(2, 1)
    plot_spectral_density(spectrum, ax=upper)
    plot_density_lines(spectrum, ax=lower, steps=steps)
    return figure


def figure_edge_of_stability(log: Series, stability: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the losses above the effective sharpness and its threshold.

    Args:
        log: The run's log.
        stability: The result of `landscape.edge_of_stability`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.2], width)
    plot_losses(log, ax=axes[0])
    plot_edge_of_stability(stability, ax=axes[1])
    return finish_stack(figure, log, axes)


def _draw_two_errors(series: Series, name: str, ax: Axes) -> None:
    error = 2 * series[f"{name}_stderr"]
    draw_band(series, series[name] - error, series[name] + error, ax, LOOKS[name].colour)


def _lowest_density(series: Series) -> float:
    """Return the smallest density that is drawn: a tenth of a single eigenvalue's mass, 0.1 / n."""
    return 0.1 / float(series["n_parameters"])


def _finish_with_legend_above(ax: Axes, n_columns: int) -> Axes:
    finish_axes(ax).legend(
        frameon=False, fontsize=FONT_SIZE, ncols=n_columns, loc="lower center", bbox_to_anchor=(0.5, 1), borderpad=0,
        handlelength=1.5, columnspacing=1,
    )  # fmt: skip
    return ax


def _decade_ticks(series: Series, every: int) -> tuple[list[float], list[str]]:
    """Return tick positions on the grid, and labels, for zero and every few powers of ten of both signs."""
    grid, eigenvalues = series["grid"], series["eigenvalue_grid"]
    largest = int(np.floor(np.log10(eigenvalues[-1]) + 1e-6))
    # The grid is x = log₁₀(1 + λ / linear) for λ > 0, so its last point determines `linear`.
    linear = eigenvalues[-1] / (10 ** grid[-1] - 1)
    # Labels nearer to zero would overlap.
    powers = range(largest, int(np.ceil(np.log10(linear))) + 1, -every)
    ticks = [(0.0, "0")]
    for power in powers:
        x = float(np.log10(1 + 10.0**power / linear))
        ticks += [(x, f"$10^{{{power}}}$"), (-x, f"$-10^{{{power}}}$")]
    ticks.sort()
    return [x for x, _ in ticks], [label for _, label in ticks]
