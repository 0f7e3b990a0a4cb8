"""Figures of progress measures, Fourier spectra and departures draw the numbers of hand-made series."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.planted_series import STEPS, log

from grokscope import figures
from grokscope.phases import Crossing
from grokscope.series import Series

KEY = [2, 5]
SHORT_LOG = Series("log", np.array([0, 100, 5_000]), {"test_accuracy": np.array([0, 0.1, 1])})


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def progress(key: list[int] = KEY, gaps: tuple[tuple[int, int], ...] = ()) -> Series:
    arrays = {
        "train_loss": np.geomspace(4, 1e-7, 5),
        "test_loss": np.array([4, 9, 12, 1e-2, 1e-6]),
        "restricted_loss": np.geomspace(4, 1e-8, 5),
        "excluded_loss": np.linspace(1, 3, 5),
        "excluded_loss_by_frequency": np.linspace(1, 3, 5)[:, None] * (1 + np.arange(len(key))),
        "logit_variance_share": np.linspace(0, 0.95, 5),
        "logit_variance_share_shuffled": np.linspace(0, 0.01, 5),
    }
    constants = {"key_frequencies": np.array(key, np.int64), "gaps": np.array(gaps, np.int64).reshape(-1, 2)}
    constants["logit_variance_share_initialization"] = np.array(0.02)
    return Series("progress", STEPS, arrays, constants)


def spectra() -> Series:
    arrays = {f"{W}_norms": np.arange(1.0, 26).reshape(5, 5) * scale for W, scale in (("W_E", 1), ("W_L", 3))}
    arrays |= {f"{W}_gini{end}": np.linspace(0, 0.8, 5) for W in ("W_E", "W_L") for end in ("", "_shuffled")}
    return Series("fourier", STEPS, arrays, {"frequencies": np.arange(1, 6), "key_frequencies": np.array(KEY)})


def lines(ax: Axes) -> dict[str, np.ndarray]:
    """Return the heights of each line with data, by its label without the underscore of hidden labels."""
    return {
        str(line.get_label()).removeprefix("_"): np.asarray(line.get_ydata())
        for line in ax.lines
        if np.size(line.get_ydata())
    }


def test_four_losses_are_drawn_in_nats_in_different_styles(ax):
    figures.plot_progress_losses(log(), progress(), ax=ax)
    drawn = lines(ax)
    assert set(drawn) == {"train", "test", "restricted (all pairs)", "excluded (train)"}
    np.testing.assert_array_equal(drawn["restricted (all pairs)"], progress()["restricted_loss"])
    np.testing.assert_array_equal(drawn["excluded (train)"], progress()["excluded_loss"])
    np.testing.assert_array_equal(drawn["test"], log()["test_loss"])
    assert len({line.get_linestyle() for line in ax.lines}) == 4
    assert ax.get_yscale() == "log" and "nats" in ax.get_ylabel() and ax.get_xlabel() == "optimizer step"


def test_each_key_frequency_has_its_own_look(ax):
    figures.plot_excluded_losses(progress(list(range(1, 9))), ax=ax)
    assert list(lines(ax)) == ["train", *(f"k = {k}" for k in range(1, 9))]
    np.testing.assert_array_equal(lines(ax)["k = 3"], 3 * np.linspace(1, 3, 5))
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 9


def test_excluded_losses_break_at_gaps(ax):
    figures.plot_excluded_losses(progress(gaps=((11, 99),)), ax=ax)
    assert np.isnan(lines(ax)["k = 2"]).tolist() == [False, False, True, False, False, False]


def test_logit_variance_is_in_percent_with_its_controls(ax):
    figures.plot_logit_variance(progress(), ax=ax)
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["key-frequency cosines"], np.linspace(0, 95, 5))
    np.testing.assert_allclose(drawn["key-frequency cosines, shuffled"], np.linspace(0, 1, 5))
    np.testing.assert_allclose(drawn["key-frequency cosines, untrained"], [2, 2])
    assert "%" in ax.get_ylabel()


def test_gini_coefficients_are_drawn_with_their_controls(ax):
    figures.plot_gini(spectra(), ax=ax)
    assert set(lines(ax)) == {"embedding W_E", "W_E, shuffled", "neuron–logit map W_L", "W_L, shuffled"}
    assert ax.get_ylim() == (-0.03, 1.03)


@pytest.mark.parametrize(("name", "step", "row"), [("W_E", 0, 0), ("W_L", 900, 3), ("W_E", 10**6, 4)])
def test_spectrum_is_of_the_nearest_step_with_keys_marked(ax, name, step, row):
    figures.plot_spectrum(spectra(), ax=ax, step=step, name=name)
    other_bars, key_bars = ax.containers
    norms = spectra()[f"{name}_norms"][row]
    assert [bar.get_height() for bar in key_bars] == norms[[1, 4]].tolist()
    assert [bar.get_height() for bar in other_bars] == norms[[0, 2, 3]].tolist()
    assert [bar.get_x() + bar.get_width() / 2 for bar in key_bars] == pytest.approx(KEY)
    assert key_bars[0].get_hatch() and not other_bars[0].get_hatch()
    assert ax.get_title() == f"step {STEPS[row]:,}"


@pytest.mark.parametrize("key", [KEY, []])
def test_progress_and_spectra_have_their_panels(key):
    figure = figures.figure_progress(log(), progress(key), spectra())
    assert len(figure.axes) == 4
    assert {ax.get_xlim() for ax in figure.axes} == {(0, 4000)}
    multiples = figures.figure_spectra(spectra(), [0, 1000, 4000])
    assert [ax.get_title() for ax in multiples.axes] == ["step 0", "step 1,000", "step 4,000", "", "", ""]
    assert multiples.axes[0].get_ylim() == multiples.axes[2].get_ylim()


@pytest.mark.parametrize("width", [figures.COLUMN_WIDTH, figures.PAGE_WIDTH])
def test_spectrum_legend_defines_key_and_fits(width):
    for figure in (
        figures.figure_spectrum(spectra(), 4000, width=width),
        figures.figure_spectra(spectra(), [0], width=width),
    ):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        labels = [text.get_text() for text in legend.get_texts()]
        assert "key frequencies (used by the final logits)" in labels and "¼ of the largest norm" in labels
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_departures_are_intervals_sorted_by_step():
    departures = {
        "late": Crossing(2_000, 1_900),
        "never left": None,
        "early": Crossing(30, 20),
        "at once": Crossing(0, -1),
    }
    ax = figures.plot_departures(SHORT_LOG, departures, {}, ax=figures.new_figure(6, 3).subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["never left", "late", "early", "at once"]
    xs = [np.asarray(line.get_xdata(), float) for line in ax.lines]
    intervals = [tuple(x) for x in xs if len(x) == 2]
    assert intervals == [(1_900, 2_000), (20, 30), (0, 0)]
    texts = [text.get_text().strip() for text in ax.texts]
    assert texts == ["never", "2,000 (after 1,900)", "30 (after 20)", "0"]


def test_landmark_that_was_not_reached_has_no_line():
    landmarks = {"memorized": Crossing(100, 50), "generalised": None}
    figure = figures.figure_departures(SHORT_LOG, {"x": Crossing(30, 20)}, landmarks)
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["memorized"]
    assert np.asarray(figure.axes[0].lines[-1].get_xdata()).tolist() == [100, 100]
