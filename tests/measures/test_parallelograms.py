"""The measure `parallelograms` on planted embeddings, and against explicit loops."""

import math

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.errors import GrokscopeError

P = 11


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counted(values: np.ndarray, threshold: float, modulo: bool = True) -> tuple[int, int, list[float]]:
    """Return the number of parallelograms, of possible ones, and all mean square differences."""
    n = len(values)
    standard = values - values.mean(0)
    standard = standard / np.sqrt((standard**2).mean())
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    distances = []
    for first in range(len(pairs)):
        for second in range(first):
            (i, j), (k, m) = pairs[first], pairs[second]
            if (i + j - k - m) % (n if modulo else 10**6) == 0:
                distances.append(((standard[i] + standard[j] - standard[k] - standard[m]) ** 2).mean())
    return sum(distance < threshold for distance in distances), len(distances), distances


@pytest.mark.parametrize("name", ["addition", "division"])
def test_index_equals_a_count_by_loops(plant, name):
    start = plant({0: {}}, name=name)
    W_E = noise(*start.model.shapes["embed.W_E"])
    series = measures.evaluate("parallelograms", plant({0: {"embed.W_E": W_E}}, name=name), threshold=1.5)
    n_parallelograms, n_possible, distances = counted(W_E[start.task.circle].numpy(), 1.5)
    assert 0 < n_parallelograms < n_possible
    assert series["n_parallelograms"] == n_possible
    assert series["rqi"][0] == pytest.approx(n_parallelograms / n_possible)
    assert series["percentile_distance"][0] == pytest.approx(sorted(distances)[math.ceil(n_possible / 100) - 1])


def test_tokens_on_a_line_have_parallelograms_without_wrapping(plant):
    """On the line E_i = i, exactly the pairs with equal sums without the modulus form parallelograms."""
    line = torch.arange(P + 1, dtype=torch.float64)[:, None] * noise(1, 16)
    series = measures.evaluate("parallelograms", plant({5: {"embed.W_E": line}}))
    sizes = [math.comb(len([i for i in range(P) if i <= total - i < P]), 2) for total in range(2 * P - 1)]
    assert series["rqi"][0] == pytest.approx(sum(sizes) / series["n_parallelograms"])
    assert series["percentile_distance"][0] == pytest.approx(0, abs=1e-12)
    assert series["rqi_shuffled"][0] < 0.5 * series["rqi"][0]
    assert series["rqi_initialization"] == 0


@pytest.mark.parametrize("name", ["addition", "division"])
def test_whole_number_index_equals_a_count_by_loops(plant, name):
    start = plant({0: {}}, name=name)
    W_E = noise(*start.model.shapes["embed.W_E"])
    series = measures.evaluate("parallelograms", plant({0: {"embed.W_E": W_E}}, name=name), threshold=1.5)
    n_closed, n_possible, _ = counted(W_E[start.task.circle].numpy(), 1.5, modulo=False)
    assert 0 < n_closed < n_possible < series["n_parallelograms"]
    assert series["n_whole_number_parallelograms"] == n_possible
    assert series["whole_number_rqi"][0] == pytest.approx(n_closed / n_possible)


@pytest.mark.parametrize("p", [11, 101])
def test_line_has_whole_index_1_and_modular_index_two_thirds(plant, p):
    line = torch.arange(p + 1, dtype=torch.float64)[:, None] * noise(1, 16)
    series = measures.evaluate("parallelograms", plant({5: {"embed.W_E": line}}, p=p), threshold=1e-6)
    assert series["whole_number_rqi"][0] == 1 > series["whole_number_rqi_shuffled"][0]
    assert series["rqi"][0] == pytest.approx(2 / 3, abs=1.5 / p)


def test_only_coinciding_tokens_have_index_1(plant):
    coinciding = torch.ones(P + 1, 16, dtype=torch.float64)
    series = measures.evaluate("parallelograms", plant({5: {"embed.W_E": coinciding}}))
    assert series["rqi"][0] == series["whole_number_rqi"][0] == 1


def test_circle_of_two_positions_has_no_whole_number_index(plant):
    series = measures.evaluate("parallelograms", plant({5: {}}, p=3, name="multiplication"))
    assert series["n_parallelograms"] == 1 and series["n_whole_number_parallelograms"] == 0
    assert series["whole_number_rqi"][0] == 0


def test_circle_is_not_a_lattice(plant):
    angle = 2 * math.pi * torch.arange(P + 1, dtype=torch.float64) / P
    circle = torch.stack([angle.cos(), angle.sin()], 1) @ torch.linalg.qr(noise(16, 2)).Q.T
    series = measures.evaluate("parallelograms", plant({0: {"embed.W_E": circle}}))
    assert series["rqi"][0] < 0.05


def test_scale_position_and_rotation_do_not_matter(plant):
    W_E = noise(P + 1, 16)
    turned = 7 * W_E @ torch.linalg.qr(noise(16, 16, seed=1)).Q + 3
    options = {"threshold": 1.5}
    original, transformed = (
        measures.evaluate("parallelograms", plant({0: {"embed.W_E": W}}), **options) for W in (W_E, turned)
    )
    for name in original.arrays:
        np.testing.assert_allclose(transformed[name], original[name], rtol=1e-9)


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_threshold_out_of_range_is_rejected(plant, threshold):
    with pytest.raises(GrokscopeError, match="threshold"):
        measures.evaluate("parallelograms", plant({0: {}}), threshold=threshold)
