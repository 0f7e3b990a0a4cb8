"""Figures of ablations and transplants draw the numbers that they are given."""

import numpy as np
from support.clock_and_pizza import algorithm_series

from grokscope import figures
from grokscope.series import LabelledArrays, Series


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


def test_algorithm_figure_shows_the_given_numbers():
    log = Series(
        "log",
        np.array([0, 10]),
        {name: np.array([0.0, 1.0]) for name in ("train_accuracy", "test_accuracy")},
        {"gaps": np.empty((0, 2), np.int64)},
    )
    series = algorithm_series(0.33, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3])
    figure = figures.figure_algorithm(log, series)
    # Legend entries without data explain the line styles.
    scores, explained = (
        [np.asarray(line.get_ydata())[-1] for line in ax.lines if np.size(line.get_ydata())] for ax in figure.axes[1:]
    )
    assert explained == [0.98, 0.80, 0.81, 0.99, 0.2, 0.3]
    assert 0.33 in scores
    legend = figure.axes[2].get_legend()
    assert legend is not None
    labels = ["k = 4", "k = 23", "k = 6", "clock formula", "pizza formula"]
    assert [text.get_text() for text in legend.get_texts()] == labels
    figures.png(figure, dpi=40)
