"""The figures of representations and cosets draw the numbers they are given, and the controls beside them."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from grokscope import figures
from grokscope.series import Series, spelled

STEPS = np.array([0, 10, 100, 1000])


def ramps(*shape: int, scale: float = 1.0) -> np.ndarray:
    """Return arrays over the steps, each column another straight line upwards."""
    columns = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) / max(1, np.prod(shape))
    return scale * np.linspace(0.1, 1, len(STEPS)).reshape(-1, *[1] * len(shape)) * columns


def measured(k: int = 3, key: tuple[int, ...] = (2, 0), cosets: bool = True, gaps: tuple = ()) -> Series:
    names = ["standard", "(2, 2)", "sign", *(f"2-dim. k={i}" for i in range(3, k))][:k]
    arrays = {"logit_similarity": ramps(k), "excluded_loss_by_representation": 1 + ramps(len(key))}
    constants = {"representations": spelled(names), "key_representations": np.array(key, np.int64)}
    constants |= {"logit_similarity_initialization": np.full(k, 0.02), "loss_initialization": np.array(2.0)}
    for name in ("embedding_shares", "unembedding_shares", "neuron_shares"):
        arrays |= {name: ramps(k), f"{name}_shuffled": np.full((4, k), 1 / k)}
        constants[f"{name}_initialization"] = np.full(k, 1 / k)
    arrays["logit_similarity_shuffled"] = np.zeros((4, k))
    arrays |= {name: 1 + ramps() for name in ("loss", "train_loss", "restricted_loss", "excluded_loss")}
    if cosets:
        constants |= {
            "subgroups": spelled(["⟨(0 1)⟩", "⟨(0 1 2)⟩"]),
            "subgroup_orders": np.array([2, 3]),
            "subgroup_elements": np.zeros((2, 6), bool),
        }
        for place in ("embedding", "unembedding"):
            for side in ("left", "right"):
                name = f"{place}_{side}_silhouette"
                arrays |= {name: ramps(2, scale=0.5), f"{name}_shuffled": np.full((4, 2), -0.1)}
                constants[f"{name}_initialization"] = np.array([-0.05, -0.06])
    constants["gaps"] = np.array(gaps, np.int64).reshape(-1, 2)
    return Series("representations", STEPS, arrays, constants)


def log() -> Series:
    rising = np.array([0.0, 0.5, 1.0, 1.0])
    arrays = {"train_accuracy": rising, "test_accuracy": rising**2, "train_loss": 1 - rising / 2}
    return Series("log", STEPS, arrays | {"test_loss": 1 - rising / 3}, {"gaps": np.empty((0, 2), np.int64)})


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def curves(ax: Axes) -> dict[str, tuple[np.ndarray, str, str]]:
    """Return each named curve's values, colour and line style."""
    named = [one for one in ax.lines if not str(one.get_label()).startswith("_")]
    return {
        str(one.get_label()): (np.asarray(one.get_ydata()), to_hex(one.get_color()), str(one.get_linestyle()))
        for one in named
    }


def test_each_representation_has_a_curve_and_its_controls_in_one_colour(ax):
    series = measured()
    assert figures.plot_representations(series, "embedding_shares", ax=ax) is ax
    found = curves(ax)
    assert set(found) == {"standard *", "(2, 2)", "sign *"}
    for i, label in enumerate(["standard *", "(2, 2)", "sign *"]):
        values, colour, _ = found[label]
        np.testing.assert_array_equal(values, series["embedding_shares"][:, i])
        same = [one for one in ax.lines if to_hex(one.get_color()) == colour]
        assert [one.get_linestyle() for one in same[1:]] == [":", "None"] and same[2].get_marker() == "x"
        np.testing.assert_array_equal(same[1].get_ydata(), series["embedding_shares_shuffled"][:, i])
        assert list(np.asarray(same[2].get_ydata())) == [series["embedding_shares_initialization"][i]]
    assert len({colour for _, colour, _ in found.values()}) == 3


def test_a_representation_has_one_colour_in_every_panel():
    figure = figures.figure_representations(log(), measured())
    shares, similarity, losses = (curves(ax) for ax in figure.axes[1:])
    for label in shares:
        assert shares[label][1] == similarity[label][1]
    assert losses["without sign (train)"][1] == shares["sign *"][1]
    assert "random orders" in figure.axes[-1].get_xlabel() and "untrained" in figure.axes[-1].get_xlabel()
    assert figures.png(figure)[1:4] == b"PNG"


def test_of_many_representations_the_key_ones_are_told_and_the_rest_grey(ax):
    figures.plot_representations(measured(20, key=(5, 9)), "embedding_shares", ax=ax)
    found = curves(ax)
    assert len(found) == 7 and {"2-dim. k=5 *", "2-dim. k=9 *"} <= set(found)
    grey = [one for one in ax.lines if to_hex(one.get_color()) == "#b0b0b0"]
    assert len(grey) == 13


def test_the_losses_are_those_given_and_none_is_lost_without_a_key_representation(ax):
    series = measured()
    figures.plot_representation_losses(series, ax=ax)
    found = curves(ax)
    np.testing.assert_array_equal(
        found["without standard (train)"][0], series["excluded_loss_by_representation"][:, 1]
    )
    np.testing.assert_array_equal(found["excluded (train)"][0], series["excluded_loss"])
    assert len({(colour, style) for _, colour, style in found.values()}) == len(found) == 6
    assert ax.get_yscale() == "log"
    assert figures.png(figures.figure_representations(log(), measured(key=())))[1:4] == b"PNG"


def test_left_and_right_cosets_are_drawn_beside_their_control(ax):
    series = measured()
    figures.plot_silhouettes(series, "unembedding", ax=ax)
    assert set(curves(ax)) == {"⟨(0 1)⟩: 3 cosets of 2", "⟨(0 1 2)⟩: 2 cosets of 3"}
    styles = [one.get_linestyle() for one in ax.lines]
    assert styles == ["-", "--", ":", "None"] * 2
    # The clearer class comes first.
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), series["unembedding_left_silhouette"][:, 1])
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), series["unembedding_left_silhouette_shuffled"][:, 1])
    figure = figures.figure_cosets(log(), series)
    assert len(figure.axes) == 3 and figures.png(figure)[1:4] == b"PNG"


def test_a_series_without_cosets_is_refused(ax):
    with pytest.raises(ValueError, match="no cosets"):
        figures.plot_silhouettes(measured(cosets=False), "embedding", ax=ax)


def test_no_line_crosses_a_gap(ax):
    figures.plot_representations(measured(gaps=((20, 80),)), "logit_similarity", ax=ax)
    values, _, _ = curves(ax)["sign *"]
    assert np.isnan(values[2]) and len(values) == 5
