"""Geometry of moving points, with scikit-learn as the reference, and alignment of planted components."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from grokscope.circuits.geometry import (
    align_components,
    effective_dimension,
    participation_ratio,
    principal_components,
    silhouettes,
)

NEARLY_EQUAL = torch.tensor([0.33, 0.33, 0.15, 0.15, 0.04, 0.01], dtype=torch.float64)
DISTINCT = torch.tensor([0.5, 0.25, 0.12, 0.06, 0.03, 0.01], dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(components: torch.Tensor, pair: tuple[int, int], angle: float) -> torch.Tensor:
    """Return the components with a pair of them rotated in its plane."""
    c, s = math.cos(angle), math.sin(angle)
    rotated = components.clone()
    rotated[:, list(pair)] = components[:, list(pair)] @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return rotated


@pytest.fixture
def components() -> torch.Tensor:
    """Orthogonal columns with slowly falling norms, like principal components."""
    return torch.linalg.qr(noise(30, 6)).Q * torch.tensor([3.0, 3.0, 2.0, 2.0, 1.0, 0.5])


@pytest.mark.parametrize(("n", "d", "k"), [(20, 6, 4), (5, 16, 4), (20, 3, 3)])
def test_principal_components_are_those_of_scikit_learn(n, d, k):
    values = noise(3, n, d) * torch.linspace(1, 3, d)
    coordinates, ratios = principal_components(values, 4)
    assert coordinates.shape == (3, n, k)
    for points, projected, ratio in zip(values, coordinates, ratios, strict=True):
        oracle = PCA(k).fit(points.numpy())
        expected = oracle.transform(points.numpy())
        expected *= np.sign(expected[np.abs(expected).argmax(0), np.arange(k)])
        np.testing.assert_allclose(projected, expected, atol=1e-9)
        np.testing.assert_allclose(ratio, oracle.explained_variance_ratio_, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_dimensions_of_equal_variances_are_their_number(k):
    ratios = torch.zeros(1, 8, dtype=torch.float64)
    ratios[:, :k] = 1 / k
    assert effective_dimension(ratios).item() == pytest.approx(k)
    assert participation_ratio(ratios).item() == pytest.approx(k)


def test_dimensions_of_unequal_and_zero_variances():
    ratios = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(effective_dimension(ratios), [math.exp(1.5 * math.log(2)), 1])
    np.testing.assert_allclose(participation_ratio(ratios), [8 / 3, 1])


@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0, 3.1, -1.3])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [2, 3, 0, 1, 4, 5], [3, 2, 1, 0, 5, 4]])
@pytest.mark.parametrize("signs", [[1, 1, 1, 1, 1, 1], [-1, 1, 1, -1, -1, 1]])
def test_rotated_flipped_reordered_copies_align(components, angle, order, signs):
    copy = rotated(rotated(components, (0, 1), angle), (2, 3), 1 - angle) * torch.tensor(signs)
    chain = torch.stack([copy[:, order], copy, components])
    aligned = align_components(chain, NEARLY_EQUAL.expand(3, 6))
    for step in range(3):
        torch.testing.assert_close(aligned[step], components, rtol=0, atol=1e-9)


def test_alignment_keeps_last_step_and_its_input(components):
    chain = torch.stack([rotated(components, (0, 1), 1.0), components])
    before = chain.clone()
    assert torch.equal(align_components(chain, NEARLY_EQUAL.expand(2, 6))[-1], components)
    assert torch.equal(chain, before)


def test_components_of_distinct_variance_do_not_rotate(components):
    """A rotation by 0.3 between them is a change of the embedding, so it must remain visible."""
    turned = rotated(components, (0, 1), 0.3)
    aligned = align_components(torch.stack([turned * -1, components]), DISTINCT.expand(2, 6))
    torch.testing.assert_close(aligned[0], turned)


def test_alignment_preserves_distances_in_a_plane():
    chain = noise(5, 20, 6, seed=3)
    aligned = align_components(chain, NEARLY_EQUAL.expand(5, 6))
    pairs = [[i, j] for i in range(6) for j in range(i + 1, 6)]
    for before, after in zip(chain, aligned, strict=True):
        distances = [torch.cdist(after[:, pair], after[:, pair]) for pair in pairs]
        for pair in ([0, 1], [2, 3]):
            plane = torch.cdist(before[:, pair], before[:, pair])
            assert min((plane - candidate).abs().max() for candidate in distances) < 1e-9


@pytest.mark.parametrize("n_classes", [2, 5])
def test_silhouettes_are_those_of_scikit_learn(n_classes):
    points = noise(3, 20, 4)
    labels = torch.from_numpy(np.random.default_rng(0).permuted(np.tile(np.arange(20) % n_classes, (6, 1)), axis=1))
    scores = silhouettes(torch.cdist(points, points), labels)
    expected = [[silhouette_score(step.numpy(), partition.numpy()) for partition in labels] for step in points]
    np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_silhouette_of_coinciding_points_is_zero():
    assert silhouettes(torch.zeros(1, 6, 6), torch.arange(6)[None] % 3).tolist() == [[0.0]]
