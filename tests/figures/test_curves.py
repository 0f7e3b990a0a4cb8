"""The basic curves draw the numbers of hand-made series, with units and controls."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.planted_series import STEPS, embedding, log, norms, sharpness

from grokscope import figures
from grokscope.series import Series

PLOTS: dict[str, tuple[Callable[[Axes], Axes], str]] = {
    "losses": (lambda ax: figures.plot_losses(log(), ax=ax), "nats"),
    "accuracies": (lambda ax: figures.plot_accuracies(log(), ax=ax), "%"),
    "weight norm": (lambda ax: figures.plot_weight_norm(norms(), ax=ax), "L2 norm"),
    "parameter norms": (lambda ax: figures.plot_parameter_norms(norms(), ax=ax), "L2 norm"),
    "circularity": (lambda ax: figures.plot_circularity(embedding(), ax=ax), "share"),
    "sharpness": (lambda ax: figures.plot_sharpness(sharpness(), ax=ax), "Hessian, train loss"),
}
"""Each plot, and a part of its vertical label."""
STACKS: dict[str, Callable[[], Figure]] = {
    "losses": lambda: figures.figure_losses(log()),
    "weight norms": lambda: figures.figure_weight_norms(log(), norms()),
    "sharpness": lambda: figures.figure_sharpness(log(), sharpness()),
    "circularity": lambda: figures.figure_circularity(log(), embedding()),
}


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def curve(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the line whose label starts like this."""
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_losses_are_drawn_as_given(ax):
    assert figures.plot_losses(log(), ax=ax) is ax
    for name in ("train", "test"):
        x, y = curve(ax, name)
        assert x.tolist() == STEPS.tolist() and y.tolist() == log()[f"{name}_loss"].tolist()
    assert ax.get_yscale() == "log"


def test_train_and_test_differ_without_colour(ax):
    figures.plot_losses(log(), ax=ax)
    assert len({line.get_linestyle() for line in ax.lines}) == 2


def test_both_indices_of_parallelograms_are_drawn(ax):
    values = {"rqi": np.linspace(0.1, 0.6, len(STEPS)), "whole_number_rqi": np.linspace(0.2, 1, len(STEPS))}
    controls = {"rqi_initialization": np.array(0.01), "whole_number_rqi_initialization": np.array(0.02)}
    figures.plot_rqi(Series("parallelograms", STEPS, values, controls), ax=ax)
    np.testing.assert_array_equal(curve(ax, "sums on the circle")[1], values["rqi"])
    np.testing.assert_array_equal(curve(ax, "sums of whole numbers")[1], values["whole_number_rqi"])
    assert len({line.get_color() for line in ax.lines if str(line.get_label()).startswith("sums")}) == 2


def test_accuracies_are_in_percent(ax):
    figures.plot_accuracies(log(), ax=ax)
    for name in ("train", "test"):
        np.testing.assert_allclose(curve(ax, name)[1], 100 * log()[f"{name}_accuracy"])
    assert "%" in ax.get_ylabel()


def test_norms_are_drawn_as_given(ax):
    figures.plot_weight_norm(norms(), ax=ax)
    np.testing.assert_array_equal(curve(ax, "weight norm")[1], norms()["weight_norm"])
    np.testing.assert_array_equal(curve(ax, "distance")[1], norms()["distance_from_initialization"])


def test_each_weight_matrix_has_its_label_and_look(ax):
    figures.plot_parameter_norms(norms(), ax=ax)
    looks = {str(line.get_label()): (line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert set(looks) == {"W_E", "W_Q, layer 0", "W_Q, layer 1", "W_U"}
    assert len(set(looks.values())) == 4
    np.testing.assert_array_equal(curve(ax, "W_Q, layer 1")[1], norms()["weight_norm.blocks.1.attn.W_Q"])


def test_circularity_is_drawn_with_its_controls(ax):
    figures.plot_circularity(embedding(), ax=ax)
    for name, label in (("circularity", "circularity of"), ("key_frequency_share", "variance in")):
        drawn = [line for line in ax.lines if str(line.get_label()).removeprefix("_").startswith(label)]
        values, shuffled, untrained = (np.asarray(line.get_ydata()).tolist() for line in drawn)
        assert values == embedding()[name].tolist() and shuffled == embedding()[f"{name}_shuffled"].tolist()
        assert set(untrained) == {float(embedding()[f"{name}_initialization"])}
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][2:] == ["shuffled tokens", "untrained model"]


@pytest.mark.parametrize(("last_trace", "scale"), [(2.0, "log"), (-2.0, "linear")])
def test_sharpness_has_a_band_of_two_standard_errors(ax, last_trace, scale):
    """A negative eigenvalue has no logarithm, so the axis is then linear and nothing is left out."""
    series = sharpness(last_trace)
    figures.plot_sharpness(series, ax=ax)
    np.testing.assert_array_equal(curve(ax, "top eigenvalue")[1], series["sharpness"])
    np.testing.assert_array_equal(curve(ax, "trace")[1], series["hessian_trace"])
    (band,) = ax.collections
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    for step, trace, error in zip(STEPS, series["hessian_trace"], series["hessian_trace_stderr"], strict=True):
        assert {(step, round(trace - 2 * error, 6)), (step, round(trace + 2 * error, 6))} <= corners
    assert ax.get_yscale() == scale


@pytest.mark.parametrize("name", PLOTS)
def test_axes_have_labels_with_units_and_a_legend(ax, name):
    plot, label = PLOTS[name]
    assert plot(ax) is ax
    assert ax.get_xlabel() == "optimizer step" and label in ax.get_ylabel()
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim() == (0, 4000)
    legend = ax.get_legend()
    assert legend is not None and len(legend.get_texts()) >= 2


@pytest.mark.parametrize("name", STACKS)
def test_stacked_panels_share_steps_and_shades(name):
    panels = STACKS[name]().axes
    assert len(panels) >= 2
    assert all(ax.get_xlim() == (0, 4000) for ax in panels)
    assert all(len(ax.patches) == 3 for ax in panels)
    assert "step" in panels[-1].get_xlabel()
    assert [bool(ax.texts) for ax in panels] == [True] + [False] * (len(panels) - 1)
