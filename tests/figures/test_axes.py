"""Curves over steps: breaks at gaps, shaded stages, ticks with room, and legends clear of the curves."""

import dataclasses

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.planted_series import NO_GAPS, STEPS, log, norms
from support.shared import quick

from grokscope import figures
from grokscope.series import Series


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


@pytest.mark.parametrize(
    ("gaps", "broken"),
    [
        ([], []),
        ([(11, 99)], [(10, 100)]),
        ([(0, 9)], []),
        ([(1001, 4000)], []),
        ([(11, 99), (101, 999)], [(10, 100), (100, 1000)]),
    ],
)
def test_no_line_crosses_a_gap(ax, gaps, broken):
    """A line joins exactly the neighbours without lost checkpoints between them, and every value is drawn."""
    steps = np.array([s for s in STEPS if not any(first <= s <= last for first, last in gaps)])
    rows = np.isin(STEPS, steps)
    series = Series("log", steps, {name: a[rows] for name, a in log().arrays.items()}, log(gaps).constants)
    figures.plot_losses(series, ax=ax)
    x, y = (np.asarray(values) for values in ax.lines[0].get_data())
    joined = [(x[i], x[i + 1]) for i in range(len(x) - 1) if np.isfinite(y[i : i + 2]).all()]
    assert joined == [pair for pair in zip(steps, steps[1:], strict=False) if pair not in broken]
    assert sorted(y[np.isfinite(y)]) == sorted(series["train_loss"])


def test_stages_are_shaded_and_gaps_hatched(ax):
    figures.plot_losses(log([(200, 900)]), ax=ax)
    figures.shade_stages(log([(200, 900)]), ax=ax)
    spans = [(p.get_x(), p.get_x() + p.get_width(), bool(p.get_hatch())) for p in ax.patches]  # pyright: ignore
    assert spans == [(0, 100, False), (100, 1000, False), (1000, 4000, False), (200, 900, True)]
    assert {text.get_text() for text in ax.texts} == {"before memorization", "memorized", "generalised"}
    assert ax.get_xlim() == (0, 4000)
    assert all(patch.get_zorder() < 0 for patch in ax.patches)


def test_step_axis_reaches_the_last_step_of_the_log():
    """The log of a killed or unfinished run has rows beyond the last checkpoint."""
    figure = figures.figure_weight_norms(log(), norms(STEPS[:4]))
    assert all(ax.get_xlim()[1] >= 4000 for ax in figure.axes)


def test_all_nan_or_one_checkpoint_gives_an_empty_panel():
    nan = np.full(2, np.nan)
    arrays = {f"{part}_{quantity}": nan for part in ("train", "test") for quantity in ("loss", "accuracy")}
    for steps in (np.array([0, 1_000]), np.array([5])):
        rows = {name: array[: len(steps)] for name, array in arrays.items()}
        figure = figures.figure_losses(Series("log", steps, rows, {"gaps": NO_GAPS}))
        figure.draw_without_rendering()
        assert figure.axes[0].get_xlim()[1] == max(10, steps[-1])


@pytest.mark.parametrize(("width", "last"), [(figures.COLUMN_WIDTH, 400), (figures.PAGE_WIDTH, 30_000)])
def test_stage_names_and_legends_overlap_nothing(width, last):
    steps = np.unique(np.geomspace(1, last, 60).astype(int))
    steps = np.insert(steps, 0, 0)
    arrays = {f"{part}_loss": np.geomspace(4, 1e-7, len(steps)) for part in ("train", "test")}
    arrays |= {"train_accuracy": (steps >= last // 20) * 1.0, "test_accuracy": (steps >= last * 0.7) * 1.0}
    figure = figures.figure_losses(Series("log", steps, arrays, {"gaps": NO_GAPS}), width=width)
    figure.draw_without_rendering()
    names = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.x0)
    assert len(names) >= 2
    assert all(a.x1 < b.x0 for a, b in zip(names, names[1:], strict=False))
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
        assert not any(path.intersects_bbox(box, filled=False) for path in paths)


@pytest.mark.parametrize("last", quick([60, 2_100, 16_000, 26_300, 200_001, 9_999_999], [60, 26_300]))
@pytest.mark.parametrize("width", [figures.COLUMN_WIDTH, figures.PAGE_WIDTH])
def test_tick_labels_do_not_overlap(width: float, last: int):
    series = Series("log", np.array([0, last]), {"train_accuracy": np.zeros(2), "test_accuracy": np.zeros(2)})
    figure = figures.figure_accuracies(dataclasses.replace(series, constants={"gaps": NO_GAPS}), width=width)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    if last == 60 or (width > 4 and last in (2_100, 26_300, 9_999_999)):
        assert labels[-1].get_text() == f"{last:,}"
    assert labels[0].get_text() == "0" and len(labels) >= 3
