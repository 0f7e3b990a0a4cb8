"""Figures over many runs draw the numbers of hand-made rows."""

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from grokscope import figures
from grokscope.figures._style import RUN_LOOKS
from grokscope.series import Series


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def points(line: Line2D) -> list[tuple[float, float]]:
    """Return the points of a line."""
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def steps_row(fraction: float, median: float, low: float, high: float) -> dict[str, Any]:
    return {"f": fraction, "generalised_median": median, "generalised_low": low, "generalised_high": high}


def test_medians_have_intervals_or_open_markers(ax: Axes):
    rows = [
        steps_row(0.3, math.inf, 900.0, math.inf),
        steps_row(0.5, 400.0, 300.0, 500.0),
        steps_row(0.7, 100.0, 100.0, 100.0),
        steps_row(0.2, math.inf, math.inf, math.inf),
    ]
    figures.plot_median_steps(rows, "generalised", ax=ax, axis="f", label="test")
    ax.figure.draw_without_rendering()  # pyright: ignore[reportAttributeAccessIssue]
    curve, *marks = ax.lines
    finite = [(x, y) for x, y in points(curve) if np.isfinite(y)]
    assert finite == [(0.5, 400.0), (0.7, 100.0)]
    bars = [points(line) for line in marks if len(points(line)) == 2]
    assert bars == [[(0.5, 300.0), (0.5, 500.0)]]
    (open_bar,) = [text for text in ax.texts if isinstance(text, Annotation)]
    assert open_bar.xyann == (0.3, 900.0) and open_bar.xy == (0.3, 1), "an open interval reaches the top"
    markers = [line for line in marks if len(points(line)) == 1]
    assert sorted(points(line)[0][0] for line in markers) == [0.2, 0.3]
    assert all(line.get_markerfacecolor() == "white" for line in markers)
    assert all(
        ax.transAxes.inverted().transform(line.get_transform().transform([[0, 0.97]]))[0, 1] > 0.9 for line in markers
    )
    assert ax.get_ylim()[0] > 10, "a marker at the top must not stretch the axis"
    assert ax.get_yscale() == "log" and ax.get_ylabel() and ax.get_xlabel()


def test_accuracies_are_in_percent_and_sorted_by_setting(ax: Axes):
    rows = [{"task.p": 7, "best_test_accuracy": 0.5}, {"task.p": 5, "best_test_accuracy": 0.25}]
    figures.plot_against(rows, "best_test_accuracy", ax=ax, axis="task.p", label="a", ylabel="accuracy (%)")
    assert points(ax.lines[0]) == [(5, 25), (7, 50)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("p", "accuracy (%)")


def test_all_run_looks_differ():
    assert len(set(RUN_LOOKS)) == len(RUN_LOOKS) == 21


def test_phase_diagram_shows_the_most_frequent_phase(ax: Axes):
    cells = {(0.3, 0.1): ["grokking"] * 3, (0.3, 1.0): ["memorization", "confusion", "memorization"]}
    rows = [{"x": x, "y": y, "phase": phase} for (x, y), phases in cells.items() for phase in phases]
    rows.append({"x": 0.5, "y": 0.1, "phase": "comprehension"})
    figures.plot_phase_diagram(rows, ax=ax, x="x", y="y")
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "G", (0, 1): "M 2/3", (1, 0): "C"}
    squares = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len({tuple(square.get_facecolor()) for square in squares}) == len(squares) == 3
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.3", "0.5"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.1", "1"]
    legend = ax.get_legend()
    assert legend and len(legend.get_texts()) == 4


def test_phase_diagram_does_not_count_runs_without_phase(ax: Axes):
    rows = [{"x": 0.3, "y": 0.1, "phase": phase} for phase in ("grokking", "", float("nan"))]
    rows += [{"x": 0.5, "y": 0.1, "phase": ""}]
    figures.plot_phase_diagram(rows, ax=ax, x="x", y="y")
    assert {text.get_position(): text.get_text() for text in ax.texts} == {(0, 0): "G", (1, 0): "×"}
    legend = ax.get_legend()
    assert legend and legend.get_texts()[-1].get_text() == "×  diverged or unfinished"


def test_scatter_has_a_point_per_run_and_a_colour_bar(ax: Axes):
    figures.plot_scatter([1, 2, 3], [4, 5, 6], ax=ax, xlabel="x", ylabel="y", shade=[0.1, 0.2, 0.3], shaded="f")
    (runs,) = ax.collections
    np.testing.assert_array_equal(runs.get_offsets(), [[1, 4], [2, 5], [3, 6]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    figure = ax.figure
    assert isinstance(figure, Figure) and figure.axes[-1].get_ylabel() == "f"


def test_log_curve_leaves_out_step_zero(ax: Axes):
    log = Series("log", np.array([0, 10, 100]), {"train_accuracy": np.array([0.0, 0.5, 1.0])})
    figures.plot_curve(log, "train_accuracy", ax=ax, label="train", ylabel="accuracy (%)")
    assert points(ax.lines[0]) == [(10, 50), (100, 100)]
    assert ax.get_xscale() == "log"


def log_with(steps: list[int], train: list[float], test: list[float]) -> Series:
    return Series("log", np.array(steps), {"train_loss": np.array(train), "test_loss": np.array(test)})


def test_band_over_seeds_spans_lowest_to_highest(ax: Axes):
    logs = [
        log_with([0, 10, 20, 30], [9.0, 1.0, 0.2, 0.1], [9.0, 5.0, 4.0, 3.0]),
        log_with([0, 10, 20], [9.0, 2.0, 0.4], [9.0, 7.0, 6.0]),
        log_with([0, 10, 15, 20], [9.0, 3.0, 1.0, 0.3], [9.0, 6.0, 1.0, 2.0]),
    ]
    figures.plot_bands(logs, "loss", ax=ax)
    train, test = ax.lines
    assert points(train) == [(10.0, 2.0), (20.0, 0.3)] and points(test) == [(10.0, 6.0), (20.0, 4.0)]
    train_band, test_band = (np.asarray(band.get_paths()[0].vertices).tolist() for band in ax.collections)
    assert {tuple(point) for point in train_band} == {(10.0, 1.0), (10.0, 3.0), (20.0, 0.2), (20.0, 0.4)}
    assert {tuple(point) for point in test_band} == {(10.0, 5.0), (10.0, 7.0), (20.0, 2.0), (20.0, 6.0)}
    assert ax.get_yscale() == ax.get_xscale() == "log" and "median of 3 runs" in str(train.get_label())


def test_figure_of_bands_has_a_panel_for_each_kind():
    log = log_with([0, 10, 20], [9.0, 2.0, 0.4], [9.0, 7.0, 6.0])
    drawn = figures.figure_bands({"with decay": [log, log], "without": [log]}, "loss", title="two kinds")
    assert [ax.get_title() for ax in drawn.axes] == ["with decay", "without"]
