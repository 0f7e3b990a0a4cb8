"""Several eigenpairs, block traces and spectral density against matrices whose spectrum is known.

LAPACK, ARPACK and hessian-eigenthings share no code with what is tested here.
"""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from support.matrices import SPECTRA, matrix, rotation

from grokscope import curvature
from grokscope.errors import GrokscopeError


@pytest.mark.parametrize("name", [name for name in SPECTRA if name != "one dimension"])
def test_both_ends_of_a_spectrum_are_found(name):
    """A double eigenvalue shows itself once unless the space comes to an end: so it does for two values and one."""
    H = matrix(SPECTRA[name].double())
    n_top, n_bottom = (1, 3) if name == "a double top" else (4, 3)
    found = curvature.eigenpairs(lambda v: H @ v, len(H), n_top=n_top, n_bottom=n_bottom)
    expected = np.linalg.eigvalsh(H.numpy())[::-1]
    expected = np.concatenate([expected[:n_top], expected[-n_bottom:]])
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found.values, expected, rtol=1e-7, atol=1e-6 * largest)
    assert (found.residuals <= 1e-6 * largest).all()
    residuals = (found.vectors @ H - torch.from_numpy(found.values)[:, None] * found.vectors).norm(dim=1)
    np.testing.assert_allclose(residuals.numpy(), found.residuals, rtol=1e-4, atol=1e-12 * float(H.norm()) + 1e-300)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(len(expected)).double())


def test_several_agree_with_arpack():
    H = matrix(torch.linspace(-1, 3, 400).double() ** 3)
    found = curvature.eigenpairs(lambda v: H @ v, 400, n_top=6, n_bottom=2, tolerance=1e-9)
    start = np.random.default_rng(0).standard_normal(400)
    top = eigsh(H.numpy(), k=6, which="LA", v0=start)[0][::-1]
    bottom = eigsh(H.numpy(), k=2, which="SA", v0=start)[0][::-1]
    np.testing.assert_allclose(found.values, np.concatenate([top, bottom]), rtol=1e-10)


def test_a_looser_bottom_saves_products():
    H = matrix(torch.cat([torch.linspace(-1e-3, 0, 300), torch.linspace(1, 50, 20)]).double())
    tight, loose = (
        curvature.eigenpairs(lambda v: H @ v, 320, n_top=3, n_bottom=1, bottom_tolerance=one) for one in (None, 1e-3)
    )
    assert loose.n_products < tight.n_products
    assert loose.values[-1] >= tight.values[-1] - 1e-12
    np.testing.assert_allclose(loose.values[:3], tight.values[:3], rtol=1e-10)


def test_more_than_there_are_is_refused():
    with pytest.raises(GrokscopeError, match="together from 1 to 5"):
        curvature.eigenpairs(lambda v: v, 5, n_top=4, n_bottom=2)
    with pytest.raises(GrokscopeError, match="n_top: 0, n_bottom: 0"):
        curvature.eigenpairs(lambda v: v, 5, n_top=0)


def test_known_eigenvectors_leave_the_variance_of_the_rest_and_no_bias():
    eigenvalues = torch.cat([torch.linspace(-1, 1, 197), torch.tensor([30.0, 60.0, 100.0])]).double()
    H = matrix(eigenvalues)
    known = curvature.eigenpairs(lambda v: H @ v, 200, n_top=3)
    rest = H - known.vectors.T * torch.from_numpy(known.values) @ known.vectors
    found = curvature.hutchinson(lambda v: H @ v, 200, n_probes=2000, known=known)
    assert abs(found.value - float(H.trace())) < 4 * found.stderr
    variance = 2 * float(rest.square().sum() - rest.diagonal().square().sum())
    assert found.stderr**2 * 2000 == pytest.approx(variance, rel=0.15)
    assert found.stderr < curvature.hutchinson(lambda v: H @ v, 200, n_probes=2000).stderr / 5


def test_vectors_that_are_no_eigenvectors_bring_no_bias_either():
    H = matrix(torch.linspace(-1, 3, 60).double())
    wrong = curvature.Eigenpairs(np.array([2.0, 0.5]), rotation(60)[:2], np.zeros(2), 0)
    found = curvature.samples(lambda v: H @ v, 60, n_probes=4000, sizes=[20, 40], known=wrong)
    expected = torch.stack([H.diagonal()[:20].sum(), H.diagonal()[20:].sum()]).numpy()
    error = found.traces.mean(0) - expected
    assert (np.abs(error) < 4 * found.traces.std(0) / 4000**0.5).all()
    squares = curvature.Estimate.of(found.squares)
    assert abs(squares.value - float(H.square().sum())) < 4 * squares.stderr


def test_a_ratio_of_what_varies_together_is_more_certain_than_its_parts():
    """Its stated error is the spread that it has over many draws."""
    generator = np.random.default_rng(0)
    ratios, errors = [], []
    for _ in range(400):
        below = 5 + generator.standard_normal(50)
        found = curvature.ratio(0.9 * below + 0.1 * generator.standard_normal(50), below)
        ratios.append(found.value)
        errors.append(found.stderr)
    assert np.mean(ratios) == pytest.approx(0.9, abs=float(4 * np.std(ratios) / 20))
    assert np.std(ratios) == pytest.approx(np.mean(errors), rel=0.15)


def test_the_root_of_an_estimate_has_the_error_of_first_order():
    found = curvature.Estimate(9.0, 0.6, 10).root()
    assert (found.value, found.stderr) == (3.0, pytest.approx(0.1))
    assert curvature.Estimate(0.0, 0.0, 10).root().stderr == 0


def test_quadrature_is_exact_for_polynomials_of_its_degree():
    """With m nodes zᵀH^k z is a sum of the nodes' powers up to k = 2m − 1, and beyond it is not."""
    H = matrix(torch.linspace(-1, 2, 40).double())
    found = curvature.quadrature(lambda v: H @ v, 40, n_probes=3, n_products=4)
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(0, 2, (40,), generator=generator).double() * 2 - 1
    powers = [float(z @ torch.linalg.matrix_power(H, k) @ z) / 40 for k in range(1, 9)]
    of_first = [(found.weights[0] * found.nodes[0] ** k).sum() for k in range(1, 9)]
    assert of_first[:7] == pytest.approx(powers[:7], rel=1e-10)
    assert abs(of_first[7] / powers[7] - 1) > 1e-6


def test_the_density_and_its_moments_are_the_spectrums_within_their_errors():
    eigenvalues = np.concatenate([np.zeros(150), np.linspace(1, 2, 100), [5.0] * 20])
    H = matrix(torch.from_numpy(eigenvalues))
    found = curvature.quadrature(lambda v: H @ v, 270, n_probes=40, n_products=60)
    grid = np.linspace(-2, 7, 200)
    density, error = found.density(grid, 0.2)
    expected = np.exp(-(((grid[:, None] - eigenvalues) / 0.2) ** 2) / 2).mean(1) / (0.2 * (2 * np.pi) ** 0.5)
    assert (np.abs(density - expected) < 5 * error + 1e-3).all()
    assert np.abs(density - expected).sum() * (grid[1] - grid[0]) < 0.1
    moments, errors = found.moments(4)
    exact = np.array([(eigenvalues**k).mean() for k in range(1, 5)])
    assert (np.abs(moments - exact) < 4.5 * errors).all()
    assert (errors < 0.1 * exact).all()


def test_a_spectrum_of_few_values_is_found_to_rounding():
    """The Krylov space ends: nothing beyond it has weight."""
    diagonal = torch.tensor([0.0] * 30 + [2.0] * 10).double()
    found = curvature.quadrature(lambda v: diagonal * v, 40, n_probes=2, n_products=9)
    assert found.nodes.shape == (2, 9)
    moments, errors = found.moments(2)
    assert moments == pytest.approx([0.5, 1.0], rel=1e-12) and errors == pytest.approx([0, 0], abs=1e-12)


def softmax_regression() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return examples, labels, weights and the Hessian 1/N Σ (diag p − ppᵀ) ⊗ xxᵀ in closed form."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (30,), generator=generator)
    W = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    p = (X @ W.T).softmax(-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    H = torch.einsum("nab,ni,nj->aibj", inner, X, X).reshape(24, 24) / 30
    return X, y, W, H


def test_of_softmax_regression_hessian_and_gauss_newton_are_one_in_closed_form():
    X, y, W, H = softmax_regression()
    W.requires_grad_()
    hessian, n = curvature.hvp(F.cross_entropy(X @ W.T, y), [W])
    gauss_newton, m = curvature.gauss_newton(X @ W.T, lambda z: F.cross_entropy(z, y), [W])
    assert n == m == 24
    for i in range(24):
        unit = torch.eye(24, dtype=torch.float64)[i]
        torch.testing.assert_close(hessian(unit), H[i], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(gauss_newton(unit), H[i], rtol=1e-10, atol=1e-13)


def test_another_library_finds_the_same_of_softmax_regression():
    """hessian-eigenthings, with as many steps as there are dimensions: by default it takes twice those asked for."""
    things = pytest.importorskip("hessian_eigenthings")
    X, y, W, _ = softmax_regression()
    model = torch.nn.Linear(6, 4, bias=False).double()
    model.weight.data = W.clone()
    loss = things.supervised_loss(F.cross_entropy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = things.lanczos(things.HessianOperator(model, [(X, y)], loss), k=3, max_iter=24, which="LA", seed=0)
    W.requires_grad_()
    ours = curvature.eigenpairs(*curvature.hvp(F.cross_entropy(X @ W.T, y), [W]), n_top=3)
    np.testing.assert_allclose(ours.values, np.sort(theirs.eigenvalues.double().numpy())[::-1], rtol=1e-5)


def test_a_preconditioned_product_has_the_eigenvalues_of_the_quotient():
    H, P = matrix(torch.linspace(-1, 3, 30).double()), torch.linspace(0.01, 5, 30).double()
    found = curvature.lanczos(curvature.preconditioned(lambda v: H @ v, P), 30)
    assert found.value == pytest.approx(np.linalg.eigvals((H / P[:, None]).numpy()).real.max(), rel=1e-9)
