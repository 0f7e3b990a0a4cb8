"""The stochastic Lanczos quadrature of matrices with known spectra."""

import numpy as np
import pytest
import torch
from support.matrices import matrix

from grokscope import curvature


def test_quadrature_is_exact_below_twice_its_nodes():
    """With m nodes, zᵀH^k z is a weighted sum of the nodes' k-th powers for k < 2m, but not for k = 2m."""
    H = matrix(torch.linspace(-1, 2, 40).double())
    quadrature = curvature.quadrature(lambda v: H @ v, 40, n_probes=3, n_products=4)
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(0, 2, (40,), generator=generator).double() * 2 - 1
    powers = [float(z @ torch.linalg.matrix_power(H, k) @ z) / 40 for k in range(1, 9)]
    node_powers = [(quadrature.weights[0] * quadrature.nodes[0] ** k).sum() for k in range(1, 9)]
    assert node_powers[:7] == pytest.approx(powers[:7], rel=1e-10)
    assert abs(node_powers[7] / powers[7] - 1) > 1e-6


def test_density_and_moments_agree_within_their_errors():
    eigenvalues = np.concatenate([np.zeros(150), np.linspace(1, 2, 100), [5.0] * 20])
    H = matrix(torch.from_numpy(eigenvalues))
    quadrature = curvature.quadrature(lambda v: H @ v, 270, n_probes=40, n_products=60)
    grid = np.linspace(-2, 7, 200)
    density, error = quadrature.density(grid, 0.2)
    expected = np.exp(-(((grid[:, None] - eigenvalues) / 0.2) ** 2) / 2).mean(1) / (0.2 * (2 * np.pi) ** 0.5)
    assert (np.abs(density - expected) < 5 * error + 1e-3).all()
    assert np.abs(density - expected).sum() * (grid[1] - grid[0]) < 0.1
    moments, errors = quadrature.moments(4)
    exact = np.array([(eigenvalues**k).mean() for k in range(1, 5)])
    assert (np.abs(moments - exact) < 4.5 * errors).all()
    assert (errors < 0.1 * exact).all()


def test_moments_of_two_eigenvalues_are_exact():
    """The Krylov space becomes invariant after two products; later nodes have no weight."""
    diagonal = torch.tensor([0.0] * 30 + [2.0] * 10).double()
    quadrature = curvature.quadrature(lambda v: diagonal * v, 40, n_probes=2, n_products=9)
    assert quadrature.nodes.shape == (2, 9)
    moments, errors = quadrature.moments(2)
    assert moments == pytest.approx([0.5, 1.0], rel=1e-12) and errors == pytest.approx([0, 0], abs=1e-12)
