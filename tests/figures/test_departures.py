"""The figure of departures: an interval a measure, in their order, and a line a landmark."""

import numpy as np

from grokscope import figures
from grokscope.phases import Crossing
from grokscope.series import Series

LOG = Series("log", np.array([0, 100, 5_000]), {"test_accuracy": np.array([0, 0.1, 1])})


def test_rows_are_intervals_from_the_earliest_down_and_never_has_none():
    found = {
        "late": Crossing(2_000, 1_900),
        "never left": None,
        "early": Crossing(30, 20),
        "at once": Crossing(0, -1),
    }
    ax = figures.plot_departures(LOG, found, {}, ax=figures.new_figure(6, 3).subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["never left", "late", "early", "at once"]
    lines = [np.asarray(one.get_xdata(), float) for one in ax.lines]
    intervals = [tuple(line) for line in lines if len(line) == 2]
    assert intervals == [(1_900, 2_000), (20, 30), (0, 0)]
    said = [one.get_text().strip() for one in ax.texts]
    assert said == ["never", "2,000 (after 1,900)", "30 (after 20)", "0"]


def test_a_landmark_that_was_not_reached_has_no_line():
    landmarks = {"memorized": Crossing(100, 50), "generalised": None}
    figure = figures.figure_departures(LOG, {"x": Crossing(30, 20)}, landmarks)
    legend = figure.axes[0].get_legend()
    assert legend is not None and [one.get_text() for one in legend.get_texts()] == ["memorized"]
    assert np.asarray(figure.axes[0].lines[-1].get_xdata()).tolist() == [100, 100]
