"""Figures of representations and cosets draw the numbers of hand-made series, with their controls."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from grokscope import figures
from grokscope.series import Series

STEPS = np.array([0, 10, 100, 1000])


def ramps(*shape: int, scale: float = 1.0) -> np.ndarray:
    """Return arrays over the steps, each column a different straight line upwards."""
    columns = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape) / max(1, np.prod(shape))
    return scale * np.linspace(0.1, 1, len(STEPS)).reshape(-1, *[1] * len(shape)) * columns


def planted(k: int = 3, key: tuple[int, ...] = (2, 0), cosets: bool = True, gaps: tuple = ()) -> Series:
    names = ["standard", "(2, 2)", "sign", *(f"2-dim. k={i}" for i in range(3, k))][:k]
    arrays = {"logit_similarity": ramps(k), "excluded_loss_by_representation": 1 + ramps(len(key))}
    constants = {"representations": np.array(names), "key_representations": np.array(key, np.int64)}
    constants |= {"logit_similarity_initialization": np.full(k, 0.02), "loss_initialization": np.array(2.0)}
    for name in ("embedding_shares", "unembedding_shares", "neuron_shares"):
        arrays |= {name: ramps(k), f"{name}_shuffled": np.full((4, k), 1 / k)}
        constants[f"{name}_initialization"] = np.full(k, 1 / k)
    arrays["logit_similarity_shuffled"] = np.zeros((4, k))
    arrays |= {name: 1 + ramps() for name in ("loss", "train_loss", "restricted_loss", "excluded_loss")}
    if cosets:
        constants |= {
            "subgroups": np.array(["⟨(0 1)⟩", "⟨(0 1 2)⟩"]),
            "subgroup_orders": np.array([2, 3]),
            "subgroup_elements": np.zeros((2, 6), bool),
        }
        for layer in ("embedding", "unembedding"):
            for side in ("left", "right"):
                name = f"{layer}_{side}_silhouette"
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
    """Return values, colour and line style of each curve in the legend."""
    return {
        str(line.get_label()): (np.asarray(line.get_ydata()), to_hex(line.get_color()), str(line.get_linestyle()))
        for line in ax.lines
        if not str(line.get_label()).startswith("_") and np.size(line.get_ydata())
    }


def keys(ax: Axes) -> list[str]:
    """Return the legend's entries that explain line styles, which have no data."""
    return [str(line.get_label()) for line in ax.lines if not np.size(line.get_ydata())]


def test_each_representation_has_its_controls_in_its_colour(ax):
    series = planted()
    assert figures.plot_representations(series, "embedding_shares", ax=ax) is ax
    drawn = curves(ax)
    assert set(drawn) == {"standard (key)", "(2, 2)", "sign (key)"}
    for i, label in enumerate(["standard (key)", "(2, 2)", "sign (key)"]):
        values, colour, _ = drawn[label]
        np.testing.assert_array_equal(values, series["embedding_shares"][:, i])
        same = [line for line in ax.lines if to_hex(line.get_color()) == colour]
        assert [line.get_linestyle() for line in same[1:]] == [":", "None"] and same[2].get_marker() == "x"
        np.testing.assert_array_equal(same[1].get_ydata(), series["embedding_shares_shuffled"][:, i])
        assert list(np.asarray(same[2].get_ydata())) == [series["embedding_shares_initialization"][i]]
    assert len({colour for _, colour, _ in drawn.values()}) == 3
    assert keys(ax) == ["shuffled elements", "untrained model"]


def test_representation_has_one_colour_in_every_panel():
    figure = figures.figure_representations(log(), planted())
    shares, similarity, losses = (curves(ax) for ax in figure.axes[1:])
    for label in shares:
        assert shares[label][1] == similarity[label][1]
    assert losses["without sign (train)"][1] == shares["sign (key)"][1]
    assert figures.png(figure)[1:4] == b"PNG"


def test_only_seven_of_many_representations_are_labelled(ax):
    figures.plot_representations(planted(20, key=(5, 9)), "embedding_shares", ax=ax)
    drawn = curves(ax)
    assert len(drawn) == 7 and {"2-dim. k=5 (key)", "2-dim. k=9 (key)"} <= set(drawn)
    grey = [line for line in ax.lines if to_hex(line.get_color()) == "#b0b0b0"]
    assert len(grey) == 13


def test_representation_losses_are_drawn_as_given(ax):
    series = planted()
    figures.plot_representation_losses(series, ax=ax)
    drawn = curves(ax)
    np.testing.assert_array_equal(
        drawn["without standard (train)"][0], series["excluded_loss_by_representation"][:, 1]
    )
    np.testing.assert_array_equal(drawn["excluded (train)"][0], series["excluded_loss"])
    assert len({(colour, style) for _, colour, style in drawn.values()}) == len(drawn) == 6
    assert ax.get_yscale() == "log"
    assert figures.png(figures.figure_representations(log(), planted(key=())))[1:4] == b"PNG"


def test_left_and_right_cosets_are_drawn_with_their_control(ax):
    series = planted()
    figures.plot_silhouettes(series, "unembedding", ax=ax)
    assert set(curves(ax)) == {"⟨(0 1)⟩: 3 cosets of 2", "⟨(0 1 2)⟩: 2 cosets of 3"}
    styles = [line.get_linestyle() for line in ax.lines if np.size(line.get_ydata())]
    assert styles == ["-", "--", ":"] * 2 + ["None"] * 2
    assert keys(ax) == ["left cosets", "right cosets", "shuffled elements", "untrained model"]
    # The clearer class comes first.
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), series["unembedding_left_silhouette"][:, 1])
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), series["unembedding_left_silhouette_shuffled"][:, 1])
    figure = figures.figure_cosets(log(), series)
    assert len(figure.axes) == 3 and figures.png(figure)[1:4] == b"PNG"


def test_series_without_cosets_is_refused(ax):
    with pytest.raises(ValueError, match="no cosets"):
        figures.plot_silhouettes(planted(cosets=False), "embedding", ax=ax)


def test_no_representation_line_crosses_a_gap(ax):
    figures.plot_representations(planted(gaps=((20, 80),)), "logit_similarity", ax=ax)
    values, _, _ = curves(ax)["sign (key)"]
    assert np.isnan(values[2]) and len(values) == 5
