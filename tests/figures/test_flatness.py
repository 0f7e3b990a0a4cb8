"""Figures of flatness draw the numbers of hand-made series, with their errors."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.planted_series import STEPS, log

from grokscope import figures
from grokscope.series import Series


def planted(measure: str, *names: str) -> Series:
    arrays = {name: np.geomspace(1, 1e-6, 5) * (1 + i) for i, name in enumerate(names)}
    if measure == "average_sharpness":
        errors = {f"{name}_stderr": 0.4 * values for name, values in arrays.items()}
        intervals = {f"{name}_interval": np.outer(values, [0.5, 3]) for name, values in arrays.items()}
        arrays |= errors | intervals
    return Series(measure, STEPS, arrays)


def families() -> list[Series]:
    noise = ("average_sharpness", "perturbation_radius")
    worst = ("sam_sharpness", "sam_sharpness_step")
    return [
        planted("sam_sharpness", *worst, *(f"adaptive_{name}" for name in worst)),
        planted("average_sharpness", *noise, *(f"adaptive_{name}" for name in noise)),
        planted("fisher_rao_norm", "fisher_rao_norm", "empirical_fisher_rao_norm"),
        planted("relative_flatness", "relative_flatness"),
    ]


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def test_flatness_has_a_band_of_two_errors_if_it_has_errors(ax):
    sam, average, *_ = families()
    lines = [(sam, "sam_sharpness", "worst"), (average, "average_sharpness", "mean")]
    figures.plot_flatness(lines, ax=ax, unit="nats")
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    assert set(drawn) == {"worst", "mean"} and ax.get_yscale() == "log" and ax.get_ylabel() == "nats"
    np.testing.assert_array_equal(drawn["mean"], average["average_sharpness"])
    (band,) = ax.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert heights.max() == pytest.approx(1.8) and heights.min() == pytest.approx(1e-6 * 0.2)


def test_confidence_interval_replaces_the_band_of_errors(ax):
    _, average, *_ = families()
    lines = [(average, "average_sharpness", "mean")]
    figures.plot_flatness(lines, ax=ax, has_confidence_intervals=True)
    (band,) = ax.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert heights.max() == pytest.approx(3) and heights.min() == pytest.approx(0.5e-6)


def test_negative_value_keeps_the_axis_logarithmic(ax):
    series = Series("average_sharpness", STEPS, {"x": np.array([1e-3, -1e-5, 1e-4, 1e-5, 1e-6])})
    figures.plot_flatness([(series, "x", "x")], ax=ax)
    figures.png(ax.figure)
    assert ax.get_ylim()[0] > 0


def test_radius_at_its_limit_is_not_drawn(ax):
    interval = np.array([[1e3, 1e3], [0.9, 1.1], [0.1, 0.2], [0.1, 0.2], [1e-6, 1e-6]])
    radius = np.array([1e3, 1, 0.15, 0.15, 1e-6])
    series = Series("average_sharpness", STEPS, {"radius": radius, "radius_interval": interval})
    figures.plot_flatness([(series, "radius", "radius")], ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [np.nan, 1, 0.15, 0.15, np.nan])


def test_flatness_panels_share_one_step_axis():
    figure = figures.figure_flatness(log(), *families())
    assert len(figure.axes) == 6
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    figures.png(figure)
