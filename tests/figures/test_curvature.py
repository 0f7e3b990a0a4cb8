"""Figures of the Hessian draw the numbers of hand-made series."""

import numpy as np
import pytest

from grokscope import figures
from grokscope.series import Series

STEPS = np.array([0, 10, 100, 1000])
LOG = Series(
    "log",
    STEPS,
    {
        "train_loss": np.geomspace(4, 1e-7, 4),
        "test_loss": np.geomspace(4, 1e-3, 4),
        "train_accuracy": np.array([0.1, 0.5, 1.0, 1.0]),
        "test_accuracy": np.array([0.1, 0.1, 0.2, 1.0]),
    },
    {"gaps": np.empty((0, 2), np.int64)},
)
SIZES = ("trace", "frobenius_norm", "gauss_newton_trace", "gauss_newton_share")
TOP = np.geomspace(3, 1e-4, 4)


def hessian(bottom: float = -0.1) -> Series:
    arrays = {
        "eigenvalues": TOP[:, None] * np.array([1, 0.5, 0.2]),
        "eigenvalues_residual": np.full((4, 3), 1e-6),
        "bottom_eigenvalue": bottom * TOP,
        "bottom_eigenvalue_residual": 0.01 * TOP,
        "gradient_overlap": np.linspace(0.9, 0.1, 4),
        "update_overlap": np.linspace(0.01, 0.02, 4),
        "eigenspace_overlap": np.linspace(1, 0.3, 4),
        "block_eigenvalues": TOP[:, None] * np.array([0.8, 0.3]),
        "block_traces": TOP[:, None] * np.array([2, 3]),
        "block_traces_stderr": np.full((4, 2), 1e-6),
    }
    arrays |= {name: TOP * (2 + i) for i, name in enumerate(SIZES)}
    arrays |= {f"{name}_stderr": TOP / 50 for name in SIZES}
    constants = {"blocks": np.array(["mlp", "unembedding"]), "chance_overlap": np.array(1e-4)}
    return Series("hessian", STEPS, arrays, constants)


def spectrum() -> Series:
    grid = np.linspace(-8, 8, 161)
    density = np.exp(-((grid - np.array([3, 2, 1, 0])[:, None]) ** 2) / 2) / (2 * np.pi) ** 0.5
    arrays = {"density": density, "density_stderr": density / 10, "resolution": np.array([1e-2, 1e-3, 1e-4, 1e-5])}
    constants = {
        "grid": grid,
        "eigenvalue_grid": np.sign(grid) * 1e-6 * (10 ** np.abs(grid) - 1),
        "n_parameters": np.array(1000),
    }
    return Series("hessian_spectrum", STEPS, arrays, constants)


def edge() -> Series:
    sharpness = np.array([5e5, 4e4, 3.9e4, 1e4])
    arrays = {
        "effective_sharpness": sharpness,
        "effective_sharpness_residual": sharpness / 1e6,
        "threshold": np.array([np.inf, 3.8e4, 3.8e4, 3.8e4]),
    }
    return Series("edge_of_stability", STEPS, arrays)


def heights(ax, label: str) -> list[float]:
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(line.get_ydata(), float).tolist()


def test_eigenvalues_and_the_negative_smallest_one_are_drawn():
    ax = figures.plot_eigenvalues(hessian(), ax=figures.new_figure(6, 3).subplots())
    assert heights(ax, "λ₁") == TOP.tolist() and ax.get_yscale() == "log"
    assert heights(ax, "−λₘᵢₙ ± residual") == pytest.approx(0.1 * TOP)
    positive = figures.plot_eigenvalues(hessian(0.1), ax=figures.new_figure(6, 3).subplots())
    assert np.isnan(heights(positive, "−λₘᵢₙ ± residual")).all()


def test_hessian_panels_share_one_step_axis():
    figure = figures.figure_hessian(LOG, hessian())
    assert len(figure.axes) == 6 and len({ax.get_xlim() for ax in figure.axes}) == 1
    assert heights(figure.axes[5], "chance") == [1e-4, 1e-4]
    assert heights(figure.axes[4], "mlp") == (0.8 * TOP).tolist()
    traces = figures.plot_hessian_blocks(hessian(), ax=figures.new_figure(6, 3).subplots(), quantity="block_traces")
    assert heights(traces, "unembedding") == (3 * TOP).tolist()


def test_density_ticks_are_at_their_eigenvalues():
    series = spectrum()
    figure = figures.figure_hessian_spectrum(series)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ticks = dict(zip(labels, figure.axes[0].get_yticks(), strict=True))
    assert ticks["0"] == 0
    for power in (-4, -2, 0, 2):
        expected = np.interp(10.0**power, series["eigenvalue_grid"], series["grid"])
        assert ticks[f"$10^{{{power}}}$"] == pytest.approx(expected, abs=1e-2)


def test_density_is_solid_where_it_is_resolved():
    series = spectrum()
    ax = figures.plot_density_lines(series, ax=figures.new_figure(6, 3).subplots(), steps=[90])
    visible = np.maximum(series["density"][2], 1e-4)
    resolved = np.where(np.abs(series["eigenvalue_grid"]) >= 1e-4, visible, np.nan)
    assert 0 < np.isnan(resolved).sum() < len(resolved)
    np.testing.assert_allclose(heights(ax, "step 100"), resolved)
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata()), visible)


def test_infinite_threshold_is_not_drawn():
    figure = figures.figure_edge_of_stability(LOG, edge())
    threshold = heights(figure.axes[1], "stability threshold")
    assert np.isnan(threshold[0]) and threshold[1:] == [3.8e4] * 3
    figure.draw_without_rendering()
