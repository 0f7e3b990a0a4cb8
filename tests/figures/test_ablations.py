"""Figures of ablations and transplants draw the numbers that they are given."""

import numpy as np

from grokscope import figures
from grokscope.series import LabelledArrays


def test_transplant_figure_draws_a_labelled_grid_per_component():
    axes = {"component": np.array(["mlp", "attention"]), "source": np.array([0, 10]), "host": np.array([0, 10, 20])}
    values = np.arange(1.0, 13.0).reshape(2, 2, 3)
    figure = figures.figure_transplant(LabelledArrays(axes, {"test_loss": values}))
    panels = [ax for ax in figure.axes if ax.images and ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["mlp", "attention"]
    for ax, expected in zip(panels, values, strict=True):
        np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), expected)
        assert ax.images[0].get_clim() == (1, 12)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "10", "20"]
    figures.png(figure, dpi=40)
