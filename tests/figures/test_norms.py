"""Figures of norms, paths and matrices draw the numbers of hand-made series."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import figures
from grokscope.series import Series

STEPS = np.arange(0, 2001, 10)
COMPONENTS = ["embedding", "mlp", "unembedding"]
GAPS = {"gaps": np.empty((0, 2), np.int64)}


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def log() -> Series:
    """Return a log that memorizes at step 100 and has a loss spike at step 1500."""
    spike = 1e-7 + 0.1 * np.exp(-np.abs(STEPS - 1500.0) / 10)
    arrays = {
        "train_loss": np.where(STEPS < 100, 3.0, spike),
        "test_loss": np.full(len(STEPS), 4.0),
        "train_accuracy": (STEPS >= 100).astype(float),
        "test_accuracy": np.zeros(len(STEPS)),
    }
    return Series("log", STEPS, arrays, GAPS)


def norms() -> Series:
    last = 5 + np.clip((STEPS - 1400) / 100, 0, 1) + 1e-6 * STEPS
    arrays = {"weight_norm": 2 * last, "weight_norm.unembed.W_U": last}
    arrays["component_norms"] = last[:, None] * [0.5, 0.75, 1.0]
    return Series("weight_norm", STEPS, arrays, {"components": np.array(COMPONENTS), **GAPS})


def path() -> Series:
    x = np.where(STEPS == 0, np.nan, STEPS / 2000)
    arrays = {"update_size_per_step": x, "straightness": 1 - x / 2, "update_weight_cosine": -x, "update_cosine": x}
    return Series("path", STEPS, arrays, {"components": np.array(COMPONENTS), **GAPS})


def matrices() -> Series:
    names = ["embed.W_E", "pos_embed.W_pos", "blocks.0.attn.W_Q.0"]
    names += [f"blocks.0.attn.{kind}.{head}" for kind in ("QK", "OV") for head in (0, 1)]
    names += ["blocks.0.mlp.W_in", "blocks.1.mlp.W_in", "unembed.W_U"]
    values = np.outer(1 + STEPS / 2000, np.arange(1, len(names) + 1))
    arrays = {name: values * (i + 1) for i, name in enumerate(("spectral_norm", "stable_rank", "effective_rank"))}
    return Series("matrix_norms", STEPS, arrays, {"matrices": np.array(names), **GAPS})


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}


def test_each_component_has_its_own_look(ax):
    drawn = lines(figures.plot_component_norms(norms(), ax=ax))
    assert list(drawn) == ["all weights", *COMPONENTS]
    np.testing.assert_array_equal(drawn["mlp"], norms()["component_norms"][:, 1])
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 4


def test_slingshots_are_marked_on_the_last_layers_norm(ax):
    figures.plot_last_layer(log(), norms(), ax=ax)
    (shaded,) = ax.patches
    assert [shaded.get_x(), shaded.get_x() + shaded.get_width()] == [1400, 1500]  # pyright: ignore
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2] == [1500]  # pyright: ignore
    calm = Series("log", STEPS, {**log().arrays, "train_loss": np.full(len(STEPS), 1e-7)}, GAPS)
    assert not figures.plot_last_layer(calm, norms(), ax=Figure().subplots()).patches


def test_updates_and_cosines_are_drawn_as_given(ax):
    drawn = lines(figures.plot_update_cosines(path(), ax=ax))
    np.testing.assert_array_equal(drawn["with the weights"], path()["update_weight_cosine"])
    assert np.isnan(drawn["with the previous update"][:2]).all(), "no update precedes the second one"
    np.testing.assert_array_equal(drawn["with the previous update"][2:], path()["update_cosine"][2:])
    drawn = lines(figures.plot_update_sizes(path(), ax=Figure().subplots()))
    np.testing.assert_array_equal(drawn["displacement / path length"], path()["straightness"])


def test_matrices_are_grouped_and_labelled_by_head():
    figure = figures.figure_matrix_norms(log(), matrices())
    assert len(figure.axes) == 9
    assert list(lines(figure.axes[0])) == ["W_E", "W_in", "W_U"], "only the first layer"
    assert list(lines(figure.axes[1])) == list(lines(figure.axes[2])) == ["head 0", "head 1"]
    np.testing.assert_array_equal(lines(figure.axes[5])["head 1"], matrices()["stable_rank"][:, 6])


def test_path_panels_share_one_step_axis():
    figure = figures.figure_path(log(), norms(), path())
    assert len(figure.axes) == 5
    assert {ax.get_xlim() for ax in figure.axes} == {(0, 2000)}
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False] * 4 + [True]
    assert figures.png(figure, 60).startswith(b"\x89PNG")
