"""The measure `embedding` on planted embeddings with known components, frequencies and shares.

scikit-learn's PCA is an independent oracle: it decomposes the centred points by an SVD, one step at a time. The
measure computes eigenvectors of Gram matrices in a batch.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from grokscope import Trajectory, measures, plugins, tasks
from grokscope.circuits.geometry import principal_components
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.tasks.modular import addition, powers

WIDTH = 16


def directions(k: int, seed: int = 0) -> torch.Tensor:
    """Return k random orthonormal directions in the embedding space, one a row."""
    return torch.linalg.qr(noise(WIDTH, k, seed=seed)).Q.T


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circles(n: int, radii: dict[int, float], seed: int = 0) -> torch.Tensor:
    """Return n points on circles of the given frequencies and radii, each in its own plane."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor(list(radii)) / n + 0.3
    waves = torch.stack([angle.cos(), angle.sin()], -1) * torch.tensor(list(radii.values()))[:, None]
    return waves.flatten(1) @ directions(2 * len(radii), seed) + 1.7


def table(values: torch.Tensor, tokens: torch.Tensor | None = None, n_signs: int = 1) -> dict[str, torch.Tensor]:
    """Return W_E with `values` at the given tokens and noise at all others, signs included."""
    tokens = torch.arange(len(values)) if tokens is None else tokens
    W_E = 5 * noise(int(tokens.max()) + 1 + n_signs, WIDTH, seed=99)
    W_E[tokens] = values
    return {"embed.W_E": W_E}


def test_planted_circle_is_found(plant):
    series = measures.evaluate("embedding", plant({0: {}, 7: table(circles(59, {12: 2.0}))}, p=59))
    np.testing.assert_allclose(series["explained_variance_ratio"][-1, :2], [0.5, 0.5], rtol=1e-9)
    np.testing.assert_allclose(series["component_circularity"][-1, :2], 1, rtol=1e-9)
    assert series["component_frequency"][-1, :2].tolist() == [12, 12]
    assert series["key_frequencies"].tolist() == series["plane_frequencies"].tolist() == [12]
    expected = np.arange(1, 30) == 12
    np.testing.assert_allclose(series["frequency_shares"][-1], expected, atol=1e-12)
    assert series["key_frequency_share"][-1] == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(series["frequency_planes"][-1, 0], axis=1), 2, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(series["principal_components"][-1, :, :2], axis=1), 2, rtol=1e-9)


def test_components_without_variance_are_not_circular(plant):
    """A flat circle has two components. The others are rounding, which would look slightly circular."""
    series = measures.evaluate("embedding", plant({0: table(circles(59, {12: 2.0}))}, p=59))
    np.testing.assert_allclose(series["explained_variance_ratio"][0, 2:], 0, atol=1e-12)
    assert series["component_circularity"][0, 2:].tolist() == [0] * 8
    assert series["circularity"].tolist() == pytest.approx([0.5])


def test_two_circles_are_ordered_by_their_radii(plant):
    series = measures.evaluate("embedding", plant({3: table(circles(59, {7: 2.0, 22: 3.0}))}, p=59))
    expected = np.array([9, 9, 4, 4]) / 26
    np.testing.assert_allclose(series["explained_variance_ratio"][0, :4], expected, rtol=1e-9)
    assert series["component_frequency"][0, :4].tolist() == [22, 22, 7, 7]
    assert series["circularity"].tolist() == pytest.approx([1])
    assert series["key_frequencies"].tolist() == [7, 22]
    assert series["plane_frequencies"].tolist() == [22, 7]
    radii = np.linalg.norm(series["frequency_planes"][0], axis=-1)
    np.testing.assert_allclose(radii, np.array([[3.0], [2.0]]) * np.ones(59), rtol=1e-9)


def test_circle_in_noise_has_the_planted_share(plant):
    rows = cyclic.fourier_basis(59)[[0, 23, 24]]
    rest = noise(59, WIDTH)
    rest = rest - rows.T @ (rows @ rest)
    circle = circles(59, {12: 1.0})
    rest *= 0.25**0.5 * (circle - circle.mean(0)).norm() / rest.norm()
    series = measures.evaluate("embedding", plant({0: table(circle + rest)}, p=59))
    assert series["frequency_shares"][0, 11] == pytest.approx(1 / 1.25, rel=1e-9)
    assert 12 in series["key_frequencies"]
    assert series["component_frequency"][0, :2].tolist() == [12, 12]


def test_shuffled_tokens_are_circular_by_chance(plant):
    """A wave in a random order is noise, whose largest of m = 29 shares has mean H_m/m."""
    options = {"n_shuffles": 200}
    series = measures.evaluate("embedding", plant({0: table(circles(59, {7: 2.0, 22: 3.0}))}, p=59), **options)
    chance = sum(1 / j for j in range(1, 30)) / 29
    assert series["circularity"][0] == pytest.approx(1)
    assert abs(series["circularity_shuffled"][0] - chance) < 4 * series["circularity_shuffled_stderr"][0]
    assert 0 < series["circularity_shuffled_stderr"][0] < 0.01
    assert series["component_circularity_shuffled"].shape == series["component_circularity"].shape
    assert series["key_frequency_share_shuffled"][0] < 0.35 < series["key_frequency_share"][0]


def test_shuffles_of_two_seeds_agree_within_their_errors(plant):
    trajectory = plant({0: table(circles(59, {7: 2.0, 22: 3.0}))}, p=59)
    first, second = (measures.evaluate("embedding", trajectory, n_shuffles=40, seed=seed) for seed in (0, 1))
    for name in ("circularity_shuffled", "key_frequency_share_shuffled"):
        assert first[name][0] != second[name][0]
        error = math.hypot(first[f"{name}_stderr"][0], second[f"{name}_stderr"][0])
        assert abs(first[name][0] - second[name][0]) < 4 * error


def wandering(n: int, n_steps: int = 4) -> torch.Tensor:
    """Return an embedding of generic points that moves over the steps, with well separated components."""
    moves = noise(n_steps, n, WIDTH, seed=5).cumsum(0) * 0.1
    return (noise(n, WIDTH) + moves) * torch.linspace(3, 0.3, WIDTH)


def test_unaligned_quantities_equal_plain_pca(plant):
    values = wandering(23)
    series = measures.evaluate("embedding", plant({10 * i: table(v) for i, v in enumerate(values)}, p=23))
    for step, points in enumerate(values):
        oracle = PCA(n_components=10).fit(points.numpy())
        coordinates = oracle.transform(points.numpy())
        np.testing.assert_allclose(
            series["explained_variance_ratio"][step], oracle.explained_variance_ratio_, rtol=1e-9
        )
        plain = torch.from_numpy(coordinates)
        circular, frequency = cyclic.circularity(plain)
        np.testing.assert_allclose(series["component_circularity"][step], circular, rtol=1e-8)
        assert series["component_frequency"][step].tolist() == frequency.tolist()
        assert series["circularity"][step] == pytest.approx(circular[:4].mean().item(), rel=1e-8)
        # Order, signs and rotations within planes preserve all distances in the ten dimensions.
        aligned = torch.from_numpy(series["principal_components"][step])
        torch.testing.assert_close(torch.cdist(aligned, aligned), torch.cdist(plain, plain))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(0), np.arange(10)])
    np.testing.assert_allclose(series["principal_components"][-1], coordinates * signs, rtol=1e-7, atol=1e-9)


def test_noisy_circle_does_not_flicker(plant):
    """The control is plain PCA, which picks different axes in a circle's plane at each step."""
    steps = [circles(59, {7: 2.0, 22: 3.0}) + 0.02 * noise(59, WIDTH, seed=seed) for seed in range(8)]
    trajectory = plant({10 * i: table(values) for i, values in enumerate(steps)}, p=59)
    aligned = torch.from_numpy(measures.evaluate("embedding", trajectory)["principal_components"])
    plain, _ = principal_components(torch.stack(steps), 10)

    def least_overlap(chain: torch.Tensor) -> float:
        unit = chain[..., :4] / chain[..., :4].norm(dim=1, keepdim=True)
        return (unit[:-1] * unit[1:]).sum(1).min().item()

    assert least_overlap(aligned) > 0.99
    assert least_overlap(plain) < 0.9


@pytest.mark.parametrize("name", ["multiplication", "division"])
@pytest.mark.parametrize(("p", "frequency"), [(59, 7), (97, 20)])
def test_circle_of_a_product_follows_the_primitive_root(plant, name, p, frequency):
    """The control is a circle along 1, 2, 3 …, which multiplication does not turn."""
    n, series = p - 1, []
    for order in (powers(p), torch.arange(1, p)):
        values = table(circles(n, {frequency: 1.0, 3: 0.7}), order)
        series.append(measures.evaluate("embedding", plant({0: values}, p=p, name=name)))
    right, wrong = series
    assert right["tokens"].tolist() == powers(p).tolist() and 0 not in right["tokens"]
    assert right["circularity"][0] == pytest.approx(1)
    assert right["key_frequencies"].tolist() == sorted([frequency, 3])
    assert len(right["frequencies"]) == n // 2
    assert wrong["circularity"][0] < 0.4
    assert right["n_examples_off_circle"] == (2 * p - 1 if name == "multiplication" else p - 1)


def test_last_frequency_of_an_even_circle_is_a_line(plant):
    angle = 2 * math.pi * torch.arange(10, dtype=torch.float64) / 10
    values = torch.stack([2 * (3 * angle).cos(), 2 * (3 * angle).sin(), 4 * (5 * angle).cos()], 1) @ directions(3)
    series = measures.evaluate("embedding", plant({0: table(values, powers(11))}, name="division"))
    assert series["frequencies"].tolist() == [1, 2, 3, 4, 5]
    assert series["component_frequency"][0, :3].tolist() == [5, 3, 3]
    np.testing.assert_allclose(series["component_circularity"][0, :3], 1, rtol=1e-9)
    np.testing.assert_allclose(series["explained_variance_ratio"][0, :3], np.array([16, 2, 2]) / 20, rtol=1e-9)
    np.testing.assert_allclose(series["frequency_shares"][0], [0, 0, 0.2, 0, 0.8], atol=1e-12)
    np.testing.assert_allclose(np.abs(series["frequency_planes"][0, 0]), [[4, 0]] * 10, atol=1e-9)


@pytest.mark.parametrize("factor", [3, 7, 28])
def test_renaming_the_residues_only_moves_the_frequencies(plant, factor):
    """a ↦ u·a is an automorphism of Z_p that maps frequency k to ±k/u."""
    values = circles(59, {7: 2.0, 22: 3.0}) + 0.1 * noise(59, WIDTH)
    renamed = values[torch.arange(59) * factor % 59]
    original, moved_series = (measures.evaluate("embedding", plant({0: table(v)}, p=59)) for v in (values, renamed))
    for name in ("circularity", "component_circularity", "explained_variance_ratio", "key_frequency_share"):
        np.testing.assert_allclose(moved_series[name], original[name], rtol=1e-8)
    moved = [min(k * factor % 59, -k * factor % 59) for k in original["key_frequencies"].tolist()]
    assert moved_series["key_frequencies"].tolist() == sorted(moved)


def test_untrained_control_is_step_0_or_the_seeds_initialization(plant):
    first, last = table(noise(59, WIDTH)), table(circles(59, {7: 2.0, 22: 3.0}))
    of_the_seed, of_step_0 = (measures.evaluate("embedding", plant({0: s, 5: last}, p=59)) for s in ({}, first))
    selected = measures.evaluate("embedding", plant({0: first, 5: last}, p=59).select([5]))
    without = measures.evaluate("embedding", plant({5: last}, p=59))
    for name in ("circularity", "component_circularity", "key_frequency_share"):
        for series, start in (
            (of_the_seed, of_the_seed),
            (of_step_0, of_step_0),
            (selected, of_step_0),
            (without, of_the_seed),
        ):
            np.testing.assert_allclose(series[f"{name}_initialization"], start[name][0], rtol=1e-9)
    assert of_step_0["circularity_initialization"] != of_the_seed["circularity_initialization"] < 0.4


def test_planes_are_of_the_strongest_last_key_frequencies(plant):
    many = circles(59, dict(zip(range(3, 11), np.linspace(2, 1, 8).tolist(), strict=True)))
    series = measures.evaluate("embedding", plant({0: {}, 5: table(many)}, p=59))
    assert series["key_frequencies"].tolist() == list(range(3, 11))
    assert series["plane_frequencies"].tolist() == list(range(3, 9))
    assert series["frequency_planes"].shape == (2, 6, 59, 2)


@pytest.mark.parametrize(("n_components", "k"), [(1, 1), (3, 3), (10, 10), (40, 10)])
def test_number_of_components_is_bounded_by_the_points(plant, n_components, k):
    series = measures.evaluate("embedding", plant({0: {}}), n_components=n_components)
    assert series["principal_components"].shape == (1, 11, k)
    assert series["explained_variance_ratio"].shape == series["component_frequency"].shape == (1, k)
    if k == 10:
        assert series["explained_variance_ratio"].sum() == pytest.approx(1)


@pytest.mark.parametrize("options", [{"n_components": 0}, {"n_shuffles": 1}])
def test_option_out_of_range_is_rejected_by_name(plant, options):
    with pytest.raises(GrokscopeError, match=next(iter(options))):
        measures.evaluate("embedding", plant({0: {}}), **options)


@pytest.mark.parametrize("name", ["addition", "multiplication", "division"])
def test_smallest_modulus_is_measured(plant, name):
    series = measures.evaluate("embedding", plant({0: {}, 1: {}}, p=3, name=name))
    assert all(np.isfinite(series[key]).all() for key in {**series.arrays, **series.constants})
    assert series["circularity"] == pytest.approx([1, 1])


def test_collapsed_embedding_is_not_circular(plant):
    """Weight decay shrinks an embedding without a gradient to zero, and a run may end there."""
    series = measures.evaluate("embedding", plant({0: {}, 9: table(0 * noise(11, WIDTH))}))
    assert series["circularity"][-1] == 0
    assert series["explained_variance_ratio"][-1].tolist() == [0] * 10
    assert series["key_frequencies"].tolist() == []


def test_task_without_a_circle_has_only_components(monkeypatch, plant):
    def pairs(config):
        task = addition(config)
        return tasks.Task(**{**vars(task), "name": "pairs", "circle": None})

    monkeypatch.setitem(plugins._registered("tasks"), "pairs", SimpleNamespace(load=lambda: pairs))
    values = wandering(11)
    trajectory = plant({i: table(v) for i, v in enumerate(values)}, name="pairs")
    assert isinstance(trajectory, Trajectory)
    series = measures.evaluate("embedding", trajectory)
    assert set(series.keys()) == {
        "principal_components", "explained_variance_ratio", "effective_dimension", "participation_ratio",
        "tokens", "n_examples_off_circle", "gaps",
    }  # fmt: skip
    assert series["tokens"].tolist() == list(range(11))
    assert series["n_examples_off_circle"] == 121
    oracle = PCA(n_components=10).fit(values[-1].numpy())
    np.testing.assert_allclose(series["explained_variance_ratio"][-1], oracle.explained_variance_ratio_, rtol=1e-9)
