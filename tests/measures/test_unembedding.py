"""The unembedding's geometry on planted circles and clusters, with scikit-learn as the oracle, and its figures."""

import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from grokscope import Trajectory, figures, measures
from grokscope.algebra import groups
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.measures.unembedding import shift_distances, tsne
from grokscope.model import transformer
from grokscope.series import Series
from grokscope.tasks.modular import powers

WIDTH = 16


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circle(n: int, frequency: int, radius: float = 2.0) -> torch.Tensor:
    """Return n points on a circle of that frequency in a random plane, off the origin."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) * frequency / n + 0.3
    plane = torch.linalg.qr(noise(WIDTH, 2)).Q.T
    return radius * torch.stack([angle.cos(), angle.sin()], 1) @ plane + 1.7


def table(values: torch.Tensor, tokens: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Return W_U with the rows of `values` in the columns of the given tokens, and something else in the others."""
    tokens = torch.arange(len(values)) if tokens is None else tokens
    W_U = 5 * noise(WIDTH, int(tokens.max()) + 1, seed=99)
    W_U[:, tokens] = values.T
    return {"unembed.W_U": W_U}


def of_group(name: str, values: torch.Tensor, steps: tuple[int, ...] = (0,)) -> Trajectory:
    """Return a trajectory of a group's composition whose unembedding is the same planted one at each step."""
    config = RunConfig(
        task=TaskConfig(name="composition", group=name, train_fraction=0.5),
        model=ModelConfig(d_model=WIDTH, n_heads=2, d_mlp=24),
    )
    n = len(groups.group(name))
    start = transformer.Model(config.model, n + 1, n, 3).initialize(0)
    return Trajectory.from_state_dicts(config, {step: {**start, **table(values)} for step in steps})


def clusters(labels: np.ndarray, spread: float = 0.1) -> torch.Tensor:
    """Return a point for each label: the class's own place and a little noise."""
    return noise(int(labels.max()) + 1, WIDTH, seed=3)[torch.from_numpy(labels)] + spread * noise(len(labels), WIDTH)


@pytest.mark.parametrize(("frequency", "shift"), [(1, 1), (12, 5), (7, 17), (22, 8)])
def test_a_planted_circle_is_found_and_the_shift_along_it(plant, frequency, shift):
    series = measures.evaluate("unembedding", plant({0: {}, 7: table(circle(59, frequency))}, p=59))
    np.testing.assert_allclose(series["explained_variance_ratio"][-1, :2], [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(series["component_circularity"][-1, :2], 1, rtol=1e-6)
    assert series["component_frequency"][-1, :2].tolist() == [frequency, frequency]
    np.testing.assert_allclose(np.linalg.norm(series["principal_components"][-1, :, :2], axis=1), 2, rtol=1e-6)
    assert series["nearest_shift"][-1] == shift
    assert shift * frequency % 59 in (1, 58)


def test_the_shift_moves_a_wave_by_what_geometry_says():
    """|x_{j+s} − x_j| is the chord 2 r sin(π k s / n), whatever j."""
    expected = (4 * torch.sin(math.pi * 12 * torch.arange(1, 30, dtype=torch.float64) / 59)).square()
    torch.testing.assert_close(shift_distances(circle(59, 12)), expected)


def test_tsne_keeps_a_circles_order(plant):
    """Going round the picture one meets the tokens in the order in which they lie on the planted circle."""
    series = measures.evaluate("unembedding", plant({0: table(circle(59, 12))}, p=59))
    points = series["tsne"][0] - series["tsne"][0].mean(0)
    order = np.argsort(np.arctan2(points[:, 1], points[:, 0]))
    place = order * 12 % 59
    steps = np.diff(np.append(place, place[0])) % 59
    assert set(steps.tolist()) in ({1}, {58})


def test_shuffled_answers_are_on_no_circle(plant):
    series = measures.evaluate("unembedding", plant({0: table(circle(59, 12) + 0.05 * noise(59, WIDTH))}, p=59))
    control, error = series["component_circularity_shuffled"][0], series["component_circularity_shuffled_stderr"][0]
    chance = sum(1 / j for j in range(1, 30)) / 29
    assert series["component_circularity"][0, :2].min() > 0.99
    assert (np.abs(control - chance) < 5 * error).all() and series["circularity_shuffled"][0] < 0.2


def test_the_components_are_scikit_learns(plant):
    values = noise(23, WIDTH) * torch.linspace(3, 0.3, WIDTH)
    series = measures.evaluate("unembedding", plant({0: table(values)}, p=23))
    oracle = PCA(n_components=10).fit(values.numpy())
    np.testing.assert_allclose(series["explained_variance_ratio"][0], oracle.explained_variance_ratio_, rtol=1e-9)
    coordinates = np.abs(oracle.transform(values.numpy()))
    np.testing.assert_allclose(np.abs(series["principal_components"][0]), coordinates, rtol=1e-7, atol=1e-9)


def test_a_products_points_follow_the_primitive_root_and_leave_out_zero(plant):
    values = circle(58, 7)
    series = measures.evaluate("unembedding", plant({0: table(values, powers(59))}, p=59, name="division"))
    assert series["tokens"].tolist() == powers(59).tolist()
    assert series["component_frequency"][0, :2].tolist() == [7, 7]
    assert series["tsne"].shape == (1, 58, 2)


@pytest.fixture(scope="module")
def clustered() -> Series:
    """S5 with the left cosets of one conjugate of the paper's subgroup planted as clusters."""
    group = groups.group("S5")
    subgroup = group.subgroup([group.index(name) for name in ("(0 3)(1 4)", "(1 2)(3 4)")])
    planted = group.conjugate_subgroups(subgroup)[3]
    trajectory = of_group("S5", clusters(group.left_cosets(planted)), steps=(0, 10))
    return measures.evaluate("unembedding", trajectory)


def test_the_papers_subgroup_has_ten_elements_and_six_conjugates(clustered):
    assert clustered["conjugates"].shape == (6, 10)
    assert clustered["left_cosets"].shape == clustered["right_cosets"].shape == (6, 120)
    assert (np.bincount(clustered["left_cosets"][0]) == 10).all() and clustered["left_cosets"].max() == 11


def test_planted_left_cosets_are_found_with_their_conjugate_and_no_right_ones(clustered):
    assert clustered["left_conjugate"].tolist() == [3, 3]
    assert (clustered["left_silhouette"] > 0.7).all()
    group = groups.group("S5")
    planted = group.left_cosets(clustered["conjugates"][3])
    assert clustered["left_cosets"][3].tolist() == planted.tolist()
    assert (clustered["right_silhouette"] < 0.1).all()
    for control in ("left_silhouette_shuffled", "right_silhouette_shuffled"):
        assert (clustered[control] < 0.02).all()
    assert (clustered["left_silhouette_shuffled_stderr"] > 0).all()


def test_noise_is_as_clustered_as_its_shuffled_control():
    """The largest over conjugates is compared with the largest over conjugates."""
    series = measures.evaluate("unembedding", of_group("S5", noise(120, WIDTH)), n_shuffles=32)
    for side in ("left", "right"):
        control, error = series[f"{side}_silhouette_shuffled"], series[f"{side}_silhouette_shuffled_stderr"]
        assert (np.abs(series[f"{side}_silhouette"] - control) < 4 * error * 33**0.5).all()


def test_right_cosets_of_a_subgroup_of_ones_own_are_found():
    group = groups.group("S4")
    subgroup = group.subgroup([group.index("(0 1)")])
    series = measures.evaluate(
        "unembedding", of_group("S4", clusters(group.right_cosets(subgroup))), subgroup=("(0 1)",)
    )
    assert series["right_silhouette"][0] > 0.5 > 0.2 > series["left_silhouette"][0]
    assert series["conjugates"][series["right_conjugate"][0]].tolist() == subgroup.tolist()


def test_a_cyclic_group_has_its_circle_and_cosets_in_the_order_of_the_circle():
    series = measures.evaluate("unembedding", of_group("C12", circle(12, 5)), subgroup=("4",))
    assert series["nearest_shift"][0] == 5
    assert series["left_cosets"].tolist() == series["right_cosets"].tolist() == [[0, 1, 2, 3] * 3]


@pytest.mark.parametrize("name", ["S3", "D5", "C4"])
def test_a_group_without_the_papers_elements_has_no_cosets_unless_asked(name):
    series = measures.evaluate("unembedding", of_group(name, noise(len(groups.group(name)), WIDTH)))
    assert not any("coset" in key or "silhouette" in key for key in series.keys())  # noqa: SIM118
    assert ("circularity" in series) == (name == "C4")


@pytest.mark.parametrize(
    ("group", "options", "match"),
    [
        (None, {"subgroup": ("(0 1)",)}, "subgroup.*no group"),
        ("S3", {"subgroup": ("(0 4)",)}, r"no element '\(0 4\)'"),
        ("S3", {"subgroup": ("()",)}, "subgroup.*1 of the 6"),
        ("S3", {"subgroup": ("(0 1)", "(1 2)")}, "subgroup.*6 of the 6"),
        (None, {"perplexity": 11.0}, "perplexity.*below 11"),
        (None, {"perplexity": 0.0}, "perplexity"),
        (None, {"n_components": 0}, "n_components"),
        (None, {"n_shuffles": 1}, "n_shuffles"),
    ],
)
def test_a_wrong_option_is_refused_by_name(plant, group, options, match):
    trajectory = of_group(group, noise(6, WIDTH)) if group else plant({0: {}}, name="a2_b2")
    with pytest.raises(GrokscopeError, match=match):
        measures.evaluate("unembedding", trajectory, **options)


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_the_smallest_modulus_is_measured(plant, name):
    series = measures.evaluate("unembedding", plant({0: {}}, p=3, name=name))
    assert series["perplexity"] == 1
    assert all(np.isfinite(series[key]).all() for key in {**series.arrays, **series.constants})
    assert figures.png(figures.figure_unembedding(series, 0))[1:4] == b"PNG"


def test_a_collapsed_unembedding_is_all_zero(plant):
    series = measures.evaluate("unembedding", plant({0: table(torch.zeros(11, WIDTH, dtype=torch.float64))}))
    assert not series["tsne"].any() and series["circularity"].tolist() == [0]
    assert figures.png(figures.figure_unembedding(series, 0))[1:4] == b"PNG"


def test_tsne_separates_clusters_and_is_the_same_each_time():
    labels = np.arange(40) % 4
    found = tsne(clusters(labels), 10.0)
    assert torch.equal(found, tsne(clusters(labels), 10.0))
    assert silhouette_score(found.numpy(), labels) > 0.7


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


@pytest.fixture(scope="module")
def circular(plant_once) -> Series:
    return measures.evaluate("unembedding", plant_once({0: {}, 40: table(circle(97, 36))}, p=97))


def looks(ax: Axes) -> dict[tuple[float, float], tuple[str, int]]:
    """Return each drawn point's colour and the number of its marker's corners."""
    found = {}
    for one in ax.collections:
        if not isinstance(one, LineCollection):
            look = (to_hex(one.get_facecolor()[0]), len(one.get_paths()[0].vertices))  # pyright: ignore
            found |= {tuple(point): look for point in np.asarray(one.get_offsets()).tolist()}
    return found


@pytest.mark.parametrize("kind", ["tsne", "pca"])
def test_every_point_is_drawn_and_lines_join_x_and_x_plus_the_shift(ax, circular, kind):
    assert figures.plot_unembedding(circular, ax=ax, step=39, kind=kind, shift=8) is ax
    points = circular["tsne" if kind == "tsne" else "principal_components"][-1, :, :2]
    assert set(looks(ax)) == {tuple(point) for point in points.tolist()}
    (lines,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    ends = np.stack(lines.get_segments())
    np.testing.assert_array_equal(ends[:, 0], points)
    np.testing.assert_array_equal(ends[:, 1], points[(np.arange(97) + 8) % 97])
    assert "x + 8" in ax.get_title()
    for low, high, axis in ((*ax.get_xlim(), 0), (*ax.get_ylim(), 1)):
        assert low < points[:, axis].min() and points[:, axis].max() < high


def test_with_the_papers_shift_the_colours_are_the_papers_residues(ax, circular):
    figures.plot_unembedding(circular, ax=ax, step=40, shift=8)
    look = looks(ax)
    found = [look[tuple(point)] for point in circular["tsne"][-1].tolist()]
    assert len(set(found)) == 8
    assert all((found[x] == found[y]) == (x % 8 == y % 8) for x in range(97) for y in range(97))


@pytest.mark.parametrize("kind", ["tsne", "pca"])
def test_by_default_the_lines_run_along_the_circle(ax, circular, kind):
    figures.plot_unembedding(circular, ax=ax, step=40, kind=kind)
    (lines,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    lengths = np.linalg.norm(np.diff(np.stack(lines.get_segments()), axis=1)[:, 0], axis=1)
    size = np.ptp(circular["tsne" if kind == "tsne" else "principal_components"][-1, :, :2], axis=0).max()
    assert lengths.max() < 0.1 * size


@pytest.mark.parametrize("frequency", [1, 2, 3, 4, 6])
def test_a_frequency_that_divides_the_circle_has_eight_arcs_too(ax, frequency):
    series = measures.evaluate("unembedding", of_group("C12", circle(12, frequency) + 0.01 * noise(12, WIDTH)))
    figures.plot_unembedding(series, ax=ax, step=0, kind="pca")
    assert len(looks(ax)) == 12 and len(set(looks(ax).values())) == 8


def test_cosets_have_a_colour_and_a_shape_each(ax, clustered):
    figures.plot_unembedding(clustered, ax=ax, step=10)
    look = looks(ax)
    found = [look[tuple(point)] for point in clustered["tsne"][-1].tolist()]
    cosets = clustered["left_cosets"][3]
    assert len(set(found)) == 12
    assert all((found[x] == found[y]) == (cosets[x] == cosets[y]) for x in range(120) for y in range(120))
    assert not any(isinstance(one, LineCollection) for one in ax.collections)


def test_the_figure_has_both_pictures_and_says_what_the_colours_are(clustered, circular):
    for series, said in ((clustered, "12 left cosets of a subgroup of order 10"), (circular, "8 arcs")):
        figure = figures.figure_unembedding(series, 5)
        assert [ax.get_title().split(";")[0].split(",")[0] for ax in figure.axes] == ["t-SNE", "Principal components"]
        assert said in figure.get_supxlabel() and "shuffled" in figure.get_supxlabel()
        assert "step 0" in figure.get_suptitle()
        assert "% of variance" in figure.axes[1].get_xlabel()
        assert figures.png(figure)[1:4] == b"PNG"


def test_a_group_without_cosets_is_drawn_in_one_look(ax):
    series = measures.evaluate("unembedding", of_group("S3", noise(6, WIDTH)))
    figures.plot_unembedding(series, ax=ax, step=0)
    assert len(looks(ax)) == 6 and len(set(looks(ax).values())) == 1
    for wrong in ({"kind": "umap"}, {"colours": "red"}, {"colours": "arc"}, {"colours": "left coset"}, {"shift": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            figures.plot_unembedding(series, ax=ax, step=0, **wrong)  # pyright: ignore
