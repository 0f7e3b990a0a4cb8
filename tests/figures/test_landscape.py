"""Figures of the landscape draw the numbers of hand-made arrays."""

import numpy as np
import pytest
from support.planted_series import different_losses

from grokscope import figures
from grokscope.series import LabelledArrays, Series

STEPS = np.array([0, 100, 200, 5_000])
LOG = Series(
    "log",
    STEPS,
    {"train_accuracy": np.array([0.1, 1, 1, 1]), "test_accuracy": np.array([0, 0.1, 0.5, 1.0])},
)


def test_path_and_its_landmarks_are_drawn_on_the_plane():
    grid = different_losses({"first": np.linspace(-1, 9, 4), "second": np.linspace(-2, 2, 3)})
    coordinates = {"first": np.array([8.0, 6, 3, 0]), "second": np.array([0.0, 1, 1, 0])}
    path = LabelledArrays({"step": STEPS}, {**coordinates, "train_loss": np.ones(4), "test_loss": np.ones(4)})
    shares = {
        "explained_variance_ratio": np.array([0.8, 0.15]),
        "explained_variance_ratio_random_walk": np.array([0.61, 0.152]),
    }
    components = LabelledArrays({"component": np.array([1, 2])}, shares)
    figure = figures.figure_path_plane((grid, path, components), LOG)
    train = figure.axes[0]
    assert train.get_xlabel() == "PC 1: 80% (random walk 61%)"
    assert train.get_title() == "train loss (nats)" and figure.axes[1].get_title() == "test loss (nats)"
    np.testing.assert_array_equal(train.lines[0].get_xdata(), coordinates["first"])
    marked = {line.get_label(): float(np.asarray(line.get_xdata())[0]) for line in train.lines[1:]}
    assert marked == {"start": 8, "memorization": 6, "generalisation": 0, "end": 0}
    figures.png(figure, dpi=40)


def test_shells_draw_rays_spheres_and_the_run():
    norms = np.array([10.0, 20.0, 40.0])
    rays, shells = (
        different_losses({"step": STEPS[:2], "weight_norm": norms}),
        different_losses({"start": STEPS[1:2], "weight_norm": norms}),
    )
    shells.arrays["train_loss"][0, 0] = 0
    run = (
        Series("weight_norm", STEPS, {"weight_norm": np.array([30.0, 40, 35, 20])}),
        Series("loss", STEPS, {"train_loss": np.array([4, 1e-2, 1e-3, 1e-5]), "test_loss": np.ones(4)}),
    )
    figure = figures.figure_shells(rays, shells, *run)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    lowest = "lowest at fixed norm, from step 100"
    rescaled = ["step 0, rescaled", "step 100, rescaled"]
    assert list(lines) == [*rescaled, lowest, "training run", "end of training"]
    assert np.asarray(lines[lowest].get_ydata())[0] > 0, "a loss of zero has a position"
    assert lines["step 100, rescaled"].get_color() == pytest.approx(lines[lowest].get_color())
    np.testing.assert_array_equal(lines["training run"].get_xdata(), [30, 40, 35, 20])
    figures.png(figure, dpi=40)
    assert len(figures.figure_shells(rays).axes[1].lines) == 2
