"""The measure `unembedding` on planted circles and clusters, with scikit-learn as the oracle."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from support.unembeddings import WIDTH, circle_points, clusters, left_coset_series, noise, of_group, planted_W_U

from grokscope import measures
from grokscope.algebra import groups
from grokscope.errors import GrokscopeError
from grokscope.measures.unembedding import shift_distances, tsne
from grokscope.series import Series
from grokscope.tasks.modular import powers


@pytest.mark.parametrize(("frequency", "shift"), [(1, 1), (12, 5), (7, 17), (22, 8)])
def test_planted_circle_and_its_shift_are_found(plant, frequency, shift):
    series = measures.evaluate("unembedding", plant({0: {}, 7: planted_W_U(circle_points(59, frequency))}, p=59))
    np.testing.assert_allclose(series["explained_variance_ratio"][-1, :2], [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(series["component_circularity"][-1, :2], 1, rtol=1e-6)
    assert series["component_frequency"][-1, :2].tolist() == [frequency, frequency]
    np.testing.assert_allclose(np.linalg.norm(series["principal_components"][-1, :, :2], axis=1), 2, rtol=1e-6)
    assert series["nearest_shift"][-1] == shift
    assert shift * frequency % 59 in (1, 58)


def test_shift_distances_are_chords():
    """|x_{j+s} − x_j| is the chord 2 r sin(π k s / n) for every j."""
    expected = (4 * torch.sin(math.pi * 12 * torch.arange(1, 30, dtype=torch.float64) / 59)).square()
    torch.testing.assert_close(shift_distances(circle_points(59, 12)), expected)


def test_tsne_keeps_the_order_of_a_circle(plant):
    """The angles in the picture order the tokens as on the planted circle."""
    series = measures.evaluate("unembedding", plant({0: planted_W_U(circle_points(59, 12))}, p=59))
    points = series["tsne"][0] - series["tsne"][0].mean(0)
    order = np.argsort(np.arctan2(points[:, 1], points[:, 0]))
    positions = order * 12 % 59
    steps = np.diff(np.append(positions, positions[0])) % 59
    assert set(steps.tolist()) in ({1}, {58})


def test_shuffled_answers_are_circular_by_chance(plant):
    series = measures.evaluate(
        "unembedding", plant({0: planted_W_U(circle_points(59, 12) + 0.05 * noise(59, WIDTH))}, p=59)
    )
    control, error = series["component_circularity_shuffled"][0], series["component_circularity_shuffled_stderr"][0]
    chance = sum(1 / j for j in range(1, 30)) / 29
    assert series["component_circularity"][0, :2].min() > 0.99
    assert (np.abs(control - chance) < 5 * error).all() and series["circularity_shuffled"][0] < 0.2


def test_components_equal_scikit_learns(plant):
    values = noise(23, WIDTH) * torch.linspace(3, 0.3, WIDTH)
    series = measures.evaluate("unembedding", plant({0: planted_W_U(values)}, p=23))
    oracle = PCA(n_components=10).fit(values.numpy())
    np.testing.assert_allclose(series["explained_variance_ratio"][0], oracle.explained_variance_ratio_, rtol=1e-9)
    coordinates = np.abs(oracle.transform(values.numpy()))
    np.testing.assert_allclose(np.abs(series["principal_components"][0]), coordinates, rtol=1e-7, atol=1e-9)


def test_points_of_a_product_follow_the_primitive_root(plant):
    values = circle_points(58, 7)
    series = measures.evaluate("unembedding", plant({0: planted_W_U(values, powers(59))}, p=59, name="division"))
    assert series["tokens"].tolist() == powers(59).tolist()
    assert series["component_frequency"][0, :2].tolist() == [7, 7]
    assert series["tsne"].shape == (1, 58, 2)


@pytest.fixture(scope="module")
def clustered() -> Series:
    """S5 with planted left cosets."""
    return left_coset_series()


def test_subgroup_of_the_paper_has_6_conjugates_of_10_elements(clustered):
    assert clustered["conjugates"].shape == (6, 10)
    assert clustered["left_cosets"].shape == clustered["right_cosets"].shape == (6, 120)
    assert (np.bincount(clustered["left_cosets"][0]) == 10).all() and clustered["left_cosets"].max() == 11


def test_only_planted_left_cosets_are_found(clustered):
    assert clustered["left_conjugate"].tolist() == [3, 3]
    assert (clustered["left_silhouette"] > 0.7).all()
    group = groups.group("S5")
    planted = group.left_cosets(clustered["conjugates"][3])
    assert clustered["left_cosets"][3].tolist() == planted.tolist()
    assert (clustered["right_silhouette"] < 0.1).all()
    for control in ("left_silhouette_shuffled", "right_silhouette_shuffled"):
        assert (clustered[control] < 0.02).all()
    assert (clustered["left_silhouette_shuffled_stderr"] > 0).all()


def test_noise_is_as_clustered_as_its_control():
    """The largest over conjugates is compared with the largest over conjugates."""
    series = measures.evaluate("unembedding", of_group("S5", noise(120, WIDTH)), n_shuffles=32)
    for side in ("left", "right"):
        control, error = series[f"{side}_silhouette_shuffled"], series[f"{side}_silhouette_shuffled_stderr"]
        assert (np.abs(series[f"{side}_silhouette"] - control) < 4 * error * 33**0.5).all()


def test_right_cosets_of_a_given_subgroup_are_found():
    group = groups.group("S4")
    subgroup = group.subgroup([group.index("(0 1)")])
    series = measures.evaluate(
        "unembedding", of_group("S4", clusters(group.right_cosets(subgroup))), subgroup=("(0 1)",)
    )
    assert series["right_silhouette"][0] > 0.5 > 0.2 > series["left_silhouette"][0]
    assert series["conjugates"][series["right_conjugate"][0]].tolist() == subgroup.tolist()


def test_cosets_of_a_cyclic_group_follow_the_circle():
    series = measures.evaluate("unembedding", of_group("C12", circle_points(12, 5)), subgroup=("4",))
    assert series["nearest_shift"][0] == 5
    assert series["left_cosets"].tolist() == series["right_cosets"].tolist() == [[0, 1, 2, 3] * 3]


@pytest.mark.parametrize("name", ["S3", "D5", "C4"])
def test_other_groups_have_no_cosets_by_default(name):
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
def test_option_out_of_range_is_rejected_by_name(plant, group, options, match):
    trajectory = of_group(group, noise(6, WIDTH)) if group else plant({0: {}}, name="a2_b2")
    with pytest.raises(GrokscopeError, match=match):
        measures.evaluate("unembedding", trajectory, **options)


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_smallest_modulus_is_measured(plant, name):
    series = measures.evaluate("unembedding", plant({0: {}}, p=3, name=name))
    assert series["perplexity"] == 1
    assert all(np.isfinite(series[key]).all() for key in {**series.arrays, **series.constants})


def test_collapsed_unembedding_is_all_zero(plant):
    series = measures.evaluate("unembedding", plant({0: planted_W_U(torch.zeros(11, WIDTH, dtype=torch.float64))}))
    assert not series["tsne"].any() and series["circularity"].tolist() == [0]


def test_tsne_separates_clusters_and_is_deterministic():
    labels = np.arange(40) % 4
    embedded = tsne(clusters(labels), 10.0)
    assert torch.equal(embedded, tsne(clusters(labels), 10.0))
    assert silhouette_score(embedded.numpy(), labels) > 0.7
