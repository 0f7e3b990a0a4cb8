"""Figures of progress measures and spectra from hand-made Series: what is drawn are the numbers that were given."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.logs import STEPS, log

from grokscope import figures
from grokscope.series import Series

KEY = [2, 5]


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
    return Series("progress", STEPS, arrays, constants)


def spectra() -> Series:
    arrays = {f"{W}_norms": np.arange(1.0, 26).reshape(5, 5) * scale for W, scale in (("W_E", 1), ("W_L", 3))}
    arrays |= {f"{W}_gini{end}": np.linspace(0, 0.8, 5) for W in ("W_E", "W_L") for end in ("", "_shuffled")}
    return Series("fourier", STEPS, arrays, {"frequencies": np.arange(1, 6), "key_frequencies": np.array(KEY)})


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}


def test_four_losses_are_drawn_in_nats_and_differ_without_colour(ax):
    figures.plot_progress_losses(log(), progress(), ax=ax)
    drawn = lines(ax)
    assert set(drawn) == {"train", "test", "restricted (all pairs)", "excluded (train)"}
    np.testing.assert_array_equal(drawn["restricted (all pairs)"], progress()["restricted_loss"])
    np.testing.assert_array_equal(drawn["excluded (train)"], progress()["excluded_loss"])
    np.testing.assert_array_equal(drawn["test"], log()["test_loss"])
    assert len({line.get_linestyle() for line in ax.lines}) == 4
    assert ax.get_yscale() == "log" and "nats" in ax.get_ylabel() and "updates" in ax.get_xlabel()


def test_each_key_frequency_has_a_curve_of_its_own_look(ax):
    figures.plot_excluded_losses(progress(list(range(1, 9))), ax=ax)
    assert list(lines(ax)) == ["train", *(f"k = {k}" for k in range(1, 9))]
    np.testing.assert_array_equal(lines(ax)["k = 3"], 3 * np.linspace(1, 3, 5))
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 9


def test_no_line_crosses_what_is_lost(ax):
    figures.plot_excluded_losses(progress(gaps=((11, 99),)), ax=ax)
    assert np.isnan(lines(ax)["k = 2"]).tolist() == [False, False, True, False, False, False]


def test_variance_is_in_percent_with_its_control(ax):
    figures.plot_logit_variance(progress(), ax=ax)
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["cosines of the key frequencies"], np.linspace(0, 95, 5))
    np.testing.assert_allclose(drawn["shuffled tokens"], np.linspace(0, 1, 5))
    assert "%" in ax.get_ylabel()


def test_gini_coefficients_stand_beside_their_controls(ax):
    figures.plot_gini(spectra(), ax=ax)
    assert len(lines(ax)) == 4
    assert ax.get_ylim() == (-0.03, 1.03)


@pytest.mark.parametrize(("name", "step", "row"), [("W_E", 0, 0), ("W_L", 900, 3), ("W_E", 10**6, 4)])
def test_a_spectrum_is_that_of_the_nearest_step_with_the_key_frequencies_marked(ax, name, step, row):
    figures.plot_spectrum(spectra(), ax=ax, step=step, name=name)
    other, key = ax.containers
    norms = spectra()[f"{name}_norms"][row]
    assert [bar.get_height() for bar in key] == norms[[1, 4]].tolist()
    assert [bar.get_height() for bar in other] == norms[[0, 2, 3]].tolist()
    assert [bar.get_x() + bar.get_width() / 2 for bar in key] == pytest.approx(KEY)
    assert key[0].get_hatch() and not other[0].get_hatch()
    assert ax.get_title() == f"step {STEPS[row]:,}"


@pytest.mark.parametrize("key", [KEY, []])
def test_the_figures_have_their_panels(key):
    figure = figures.figure_progress(log(), progress(key), spectra())
    assert len(figure.axes) == 4
    assert {ax.get_xlim() for ax in figure.axes} == {(0, 4000)}
    small = figures.figure_spectra(spectra(), [0, 1000, 4000])
    assert [ax.get_title() for ax in small.axes] == ["step 0", "step 1,000", "step 4,000", "", "", ""]
    assert small.axes[0].get_ylim() == small.axes[2].get_ylim()


@pytest.mark.parametrize("width", [figures.COLUMN_WIDTH, figures.PAGE_WIDTH])
def test_the_legend_says_what_key_means_and_what_stands_above_the_line_and_fits(width):
    for figure in (
        figures.figure_spectrum(spectra(), 4000, width=width),
        figures.figure_spectra(spectra(), [0], width=width),
    ):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        said = [text.get_text() for text in legend.get_texts()]
        assert "key: used by the logits at the end" in said and any("above it: large here" in one for one in said)
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
