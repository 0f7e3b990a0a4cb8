"""Figures of numerics draw the numbers of hand-made series."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.planted_series import log

from grokscope import figures
from grokscope.series import Series

STEPS = np.arange(0, 2001, 10)
COMPONENTS = ["embedding", "mlp", "unembedding"]
GAPS = {"gaps": np.empty((0, 2), np.int64)}


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def numerics(with_test: bool = True) -> Series:
    x = STEPS[:, None] / 2000
    arrays = {"collapse_share": x * [1.0, 0.5, 0.0], "gradient_norm": 1e-3 + x * [1.0, 2.0, 3.0]}
    arrays |= {"naive_loss_cosine": x[:, 0], "component_naive_loss_cosines": x * [-0.5, 0.25, 0.75]}
    parts = ("train", "test") if with_test else ("train",)
    arrays |= {f"{part}_margins": np.sort(x * [[-9, -5, 0, 5, 9]], 1) + i for i, part in enumerate(parts)}
    constants = {"quantiles": np.array([0.01, 0.25, 0.5, 0.75, 0.99]), "components": np.array(COMPONENTS)}
    return Series(
        "numerics", STEPS, arrays, {**constants, "dtypes": np.array(["bfloat16", "float32", "float64"]), **GAPS}
    )


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}


def test_collapse_is_in_percent_and_gradients_are_logarithmic(ax):
    drawn = lines(figures.plot_collapse(numerics(), ax=ax))
    assert list(drawn) == ["bfloat16", "float32", "float64"] and drawn["float32"][-1] == 50
    gradients = figures.plot_gradient_norms(numerics(), ax=Figure().subplots())
    assert gradients.get_yscale() == "log" and lines(gradients)["float64"][-1] == pytest.approx(3.001)
    zero = Series("numerics", STEPS, {"gradient_norm": np.zeros((len(STEPS), 3))}, numerics().constants)
    assert figures.plot_gradient_norms(zero, ax=Figure().subplots()).get_yscale() == "linear"


def test_margins_are_medians_with_quantile_bands(ax):
    drawn = lines(figures.plot_margins(numerics(), ax=ax))
    np.testing.assert_array_equal(drawn["test"], numerics()["test_margins"][:, 2])
    assert len(ax.collections) == 4
    train_only = figures.plot_margins(numerics(with_test=False), ax=Figure().subplots())
    assert "test" not in lines(train_only) and len(train_only.collections) == 2


def test_naive_loss_is_drawn_for_the_whole_and_components(ax):
    drawn = lines(figures.plot_naive_loss(numerics(), ax=ax))
    np.testing.assert_array_equal(drawn["all weights"], numerics()["naive_loss_cosine"])
    np.testing.assert_array_equal(drawn["unembedding"], numerics()["component_naive_loss_cosines"][:, 2])


def test_numerics_panels_share_one_step_axis():
    figure = figures.figure_numerics(log(), numerics())
    assert len(figure.axes) == 5
    assert {ax.get_xlim() for ax in figure.axes} == {(0, 4000)}
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False] * 4 + [True]
    assert figures.png(figure, 60).startswith(b"\x89PNG")
