"""Figures of the unembedding: points, lines along the circle, and colours by arcs and cosets."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from support.unembeddings import WIDTH, circle_points, left_coset_series, noise, of_group, planted_W_U

from grokscope import figures, measures
from grokscope.series import Series


@pytest.fixture(scope="module")
def clustered() -> Series:
    """S5 with planted left cosets."""
    return left_coset_series()


@pytest.fixture
def ax() -> Axes:
    """Empty axes."""
    return Figure().subplots()


@pytest.fixture(scope="module")
def circular(plant_once) -> Series:
    """A planted circle of frequency 36 among 97 points."""
    return measures.evaluate("unembedding", plant_once({0: {}, 40: planted_W_U(circle_points(97, 36))}, p=97))


def looks(ax: Axes) -> dict[tuple[float, float], tuple[str, int]]:
    """Return each drawn point's colour and the number of its marker's corners."""
    looks_by_point = {}
    for artist in ax.collections:
        if not isinstance(artist, LineCollection):
            look = (to_hex(artist.get_facecolor()[0]), len(artist.get_paths()[0].vertices))  # pyright: ignore
            looks_by_point |= {tuple(point): look for point in np.asarray(artist.get_offsets()).tolist()}
    return looks_by_point


@pytest.mark.parametrize("kind", ["tsne", "pca"])
def test_every_point_is_drawn_and_lines_join_shifted_points(ax, circular, kind):
    assert figures.plot_unembedding(circular, ax=ax, step=39, kind=kind, shift=8) is ax
    points = circular["tsne" if kind == "tsne" else "principal_components"][-1, :, :2]
    assert set(looks(ax)) == {tuple(point) for point in points.tolist()}
    (lines,) = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    ends = np.stack(lines.get_segments())
    np.testing.assert_array_equal(ends[:, 0], points)
    np.testing.assert_array_equal(ends[:, 1], points[(np.arange(97) + 8) % 97])
    assert "x + 8" in ax.get_title()
    for low, high, axis in ((*ax.get_xlim(), 0), (*ax.get_ylim(), 1)):
        assert low < points[:, axis].min() and points[:, axis].max() < high


def test_colours_at_shift_8_are_the_residues_mod_8(ax, circular):
    figures.plot_unembedding(circular, ax=ax, step=40, shift=8)
    looks_by_point = looks(ax)
    point_looks = [looks_by_point[tuple(point)] for point in circular["tsne"][-1].tolist()]
    assert len(set(point_looks)) == 8
    assert all((point_looks[x] == point_looks[y]) == (x % 8 == y % 8) for x in range(97) for y in range(97))


@pytest.mark.parametrize("kind", ["tsne", "pca"])
def test_default_lines_follow_the_circle(ax, circular, kind):
    figures.plot_unembedding(circular, ax=ax, step=40, kind=kind)
    (lines,) = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    lengths = np.linalg.norm(np.diff(np.stack(lines.get_segments()), axis=1)[:, 0], axis=1)
    size = np.ptp(circular["tsne" if kind == "tsne" else "principal_components"][-1, :, :2], axis=0).max()
    assert lengths.max() < 0.1 * size


@pytest.mark.parametrize("frequency", [1, 2, 3, 4, 6])
def test_frequency_that_divides_the_circle_has_eight_arcs(ax, frequency):
    series = measures.evaluate("unembedding", of_group("C12", circle_points(12, frequency) + 0.01 * noise(12, WIDTH)))
    figures.plot_unembedding(series, ax=ax, step=0, kind="pca")
    assert len(looks(ax)) == 12 and len(set(looks(ax).values())) == 8


def test_each_coset_has_its_own_colour_and_shape(ax, clustered):
    figures.plot_unembedding(clustered, ax=ax, step=10)
    looks_by_point = looks(ax)
    point_looks = [looks_by_point[tuple(point)] for point in clustered["tsne"][-1].tolist()]
    cosets = clustered["left_cosets"][3]
    assert len(set(point_looks)) == 12
    assert all((point_looks[x] == point_looks[y]) == (cosets[x] == cosets[y]) for x in range(120) for y in range(120))
    assert not any(isinstance(artist, LineCollection) for artist in ax.collections)


def test_figure_has_both_panels_and_explains_the_colours(clustered, circular):
    for series, explanation in ((clustered, "12 left cosets of a subgroup of order 10"), (circular, "8 arcs")):
        figure = figures.figure_unembedding(series, 5)
        assert [ax.get_title().split(";")[0].split(",")[0] for ax in figure.axes] == ["t-SNE", "Principal components"]
        assert explanation in figure.get_supxlabel() and "shuffled" in figure.get_supxlabel()
        assert "step 0" in figure.get_suptitle()
        assert "% of variance" in figure.axes[1].get_xlabel()
        assert figures.png(figure)[1:4] == b"PNG"


def test_group_without_cosets_has_one_look(ax):
    series = measures.evaluate("unembedding", of_group("S3", noise(6, WIDTH)))
    figures.plot_unembedding(series, ax=ax, step=0)
    assert len(looks(ax)) == 6 and len(set(looks(ax).values())) == 1
    for wrong in ({"kind": "umap"}, {"colours": "red"}, {"colours": "arc"}, {"colours": "left coset"}, {"shift": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            figures.plot_unembedding(series, ax=ax, step=0, **wrong)  # pyright: ignore


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_smallest_modulus_is_drawn(plant, name):
    series = measures.evaluate("unembedding", plant({0: {}}, p=3, name=name))
    assert figures.png(figures.figure_unembedding(series, 0))[1:4] == b"PNG"


def test_collapsed_unembedding_is_drawn(plant):
    series = measures.evaluate("unembedding", plant({0: planted_W_U(0 * noise(11, WIDTH))}))
    assert figures.png(figures.figure_unembedding(series, 0))[1:4] == b"PNG"
