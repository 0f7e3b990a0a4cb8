"""Eigenpairs of matrices with known spectra, against LAPACK, ARPACK and hessian-eigenthings.

`numpy.linalg.eigvalsh` (LAPACK) and `scipy.sparse.linalg.eigsh` (ARPACK) are independent oracles: they share no code
with the Lanczos recurrence, and LAPACK uses the whole matrix.
"""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from support.matrices import SPECTRA, matrix, rotation
from support.softmax_regression import softmax_regression

from grokscope import curvature
from grokscope.errors import GrokscopeError


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("seed", range(4))
def test_lanczos_finds_the_largest_algebraic_eigenvalue(name, seed):
    H = matrix(SPECTRA[name].double(), seed)
    pair = curvature.lanczos(lambda v: H @ v, len(H), seed=seed)
    largest = float(np.linalg.eigvalsh(H.numpy())[-1])
    assert pair.value == pytest.approx(largest, rel=1e-3, abs=1e-18)
    assert pair.value <= largest + 1e-12 * H.norm()


@pytest.mark.parametrize("name", SPECTRA)
def test_eigenpair_has_unit_vector_and_true_residual(name):
    H = matrix(SPECTRA[name].double())
    pair = curvature.lanczos(lambda v: H @ v, len(H))
    assert pair.vector.norm().item() == pytest.approx(1, rel=1e-10)
    residual = float((H @ pair.vector - pair.value * pair.vector).norm())
    assert residual == pytest.approx(pair.residual, rel=1e-5, abs=1e-12 * float(H.norm()) + 1e-300)
    assert pair.residual <= 1e-3 * abs(pair.value)


@pytest.mark.parametrize("n_bottom", [0, 1])
def test_refined_pairs_are_those_of_the_accurate_product(n_bottom):
    """A perturbation of 1e-5 moves the eigenvalues by up to 1e-5, and after refinement by its square over the gap."""
    H = matrix(torch.linspace(-1, 3, 60).double() ** 3)
    noise = torch.randn(60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    perturbed = H + 1e-5 * (noise + noise.T)
    rough = curvature.eigenpairs(lambda v: perturbed @ v, 60, n_top=3, n_bottom=n_bottom, tolerance=1e-9)
    pairs = curvature.refined(rough, lambda v: H @ v)
    exact = np.linalg.eigvalsh(H.numpy())
    expected = [*exact[:-4:-1], *exact[:n_bottom]]
    assert np.abs(rough.values - expected).max() > 1e-6
    np.testing.assert_allclose(pairs.values, expected, atol=1e-8)
    residuals = (pairs.vectors @ H - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1)
    np.testing.assert_allclose(pairs.residuals, residuals, rtol=1e-6)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3 + n_bottom), atol=1e-12)
    assert (np.abs(pairs.values - expected) <= pairs.residuals).all()
    assert pairs.n_products == rough.n_products + 3 + n_bottom


def test_tight_tolerance_agrees_with_arpack_to_ten_digits():
    H = matrix(torch.linspace(0, 3, 400).double() ** 3)
    pair = curvature.lanczos(lambda v: H @ v, 400, tolerance=1e-7)
    start = np.random.default_rng(0).standard_normal(400)
    assert pair.value == pytest.approx(eigsh(H.numpy(), k=1, which="LA", v0=start)[0][0], rel=1e-10)


@pytest.mark.parametrize("gap", [0.003, 0.01, 0.03, 0.1])
def test_close_second_eigenvalue_is_not_returned_as_the_top(gap):
    """A start near the second eigenvector has a small residual too, and must not end the search.

    A network's Hessian has such pairs: the cosine and sine of one frequency.
    """
    diagonal = torch.cat([torch.zeros(1800), torch.linspace(0, 0.6, 198), torch.tensor([1 - gap, 1.0])]).double()
    values = [curvature.lanczos(lambda v: diagonal * v, 2000, seed=seed).value for seed in range(100)]
    missed = [value for value in values if value < 0.999]
    assert not missed, f"{len(missed)} of 100 starts ended more than 0.1% below; the lowest is {min(missed)}"


def test_start_near_the_top_only_saves_products():
    H = matrix(torch.linspace(0, 3, 400).double() ** 3)
    cold = curvature.lanczos(lambda v: H @ v, 400)
    nearby = cold.vector + 1e-3 * rotation(400)[0]
    warm = curvature.lanczos(lambda v: H @ v, 400, start=7 * nearby)
    assert warm.n_products < 0.9 * cold.n_products
    assert warm.value == pytest.approx(float(np.linalg.eigvalsh(H.numpy())[-1]), rel=1e-10)


@pytest.mark.parametrize("gap", [0.0011, 0.003, 0.03, 0.5])
def test_start_orthogonal_to_the_top_does_not_hide_it(gap):
    """After two eigenvalues have crossed, the former top eigenvector belongs to the second eigenvalue."""
    diagonal = torch.cat([torch.zeros(1800), torch.linspace(0, 0.6, 198), torch.tensor([1 - gap, 1.0])]).double()
    former = torch.zeros(2000, dtype=torch.float64)
    former[-2] = 1
    values = [curvature.lanczos(lambda v: diagonal * v, 2000, seed=seed, start=former).value for seed in range(30)]
    assert min(values) > 1 - 1e-6


def test_products_are_counted():
    H, calls = matrix(torch.linspace(0, 1, 50).double()), []
    pair = curvature.lanczos(lambda v: calls.append(1) or H @ v, 50)
    assert pair.n_products == len(calls) <= 50


def test_too_few_products_raise_an_error_with_advice():
    H = matrix(torch.linspace(0.99, 1, 200).double())
    with pytest.raises(GrokscopeError, match="tolerance"):
        curvature.lanczos(lambda v: H @ v, 200, tolerance=1e-9, max_products=5)


def test_product_that_is_not_finite_raises():
    with pytest.raises(GrokscopeError, match="not finite"):
        curvature.lanczos(lambda v: v * torch.nan, 10)


@pytest.mark.parametrize("name", [name for name in SPECTRA if name != "one dimension"])
def test_both_ends_of_a_spectrum_agree_with_lapack(name):
    """A double eigenvalue appears once, unless the Krylov space becomes invariant (one or two distinct values)."""
    H = matrix(SPECTRA[name].double())
    n_top, n_bottom = (1, 3) if name == "a double top" else (4, 3)
    pairs = curvature.eigenpairs(lambda v: H @ v, len(H), n_top=n_top, n_bottom=n_bottom)
    expected = np.linalg.eigvalsh(H.numpy())[::-1]
    expected = np.concatenate([expected[:n_top], expected[-n_bottom:]])
    largest = np.abs(expected).max()
    np.testing.assert_allclose(pairs.values, expected, rtol=1e-7, atol=1e-6 * largest)
    assert (pairs.residuals <= 1e-6 * largest).all()
    residuals = (pairs.vectors @ H - torch.from_numpy(pairs.values)[:, None] * pairs.vectors).norm(dim=1)
    np.testing.assert_allclose(residuals.numpy(), pairs.residuals, rtol=1e-4, atol=1e-12 * float(H.norm()) + 1e-300)
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.T, torch.eye(len(expected)).double())


def test_several_eigenpairs_agree_with_arpack():
    H = matrix(torch.linspace(-1, 3, 400).double() ** 3)
    pairs = curvature.eigenpairs(lambda v: H @ v, 400, n_top=6, n_bottom=2, tolerance=1e-9)
    start = np.random.default_rng(0).standard_normal(400)
    top = eigsh(H.numpy(), k=6, which="LA", v0=start)[0][::-1]
    bottom = eigsh(H.numpy(), k=2, which="SA", v0=start)[0][::-1]
    np.testing.assert_allclose(pairs.values, np.concatenate([top, bottom]), rtol=1e-10)


def test_looser_bottom_tolerance_saves_products():
    H = matrix(torch.cat([torch.linspace(-1e-3, 0, 300), torch.linspace(1, 50, 20)]).double())
    tight, loose = (
        curvature.eigenpairs(lambda v: H @ v, 320, n_top=3, n_bottom=1, bottom_tolerance=tolerance)
        for tolerance in (None, 1e-3)
    )
    assert loose.n_products < tight.n_products
    assert loose.values[-1] >= tight.values[-1] - 1e-12
    np.testing.assert_allclose(loose.values[:3], tight.values[:3], rtol=1e-10)


def test_invalid_number_of_eigenpairs_is_refused():
    with pytest.raises(GrokscopeError, match="together from 1 to 5"):
        curvature.eigenpairs(lambda v: v, 5, n_top=4, n_bottom=2)
    with pytest.raises(GrokscopeError, match="n_top: 0, n_bottom: 0"):
        curvature.eigenpairs(lambda v: v, 5, n_top=0)


def test_eigenpairs_agree_with_hessian_eigenthings():
    """The other library runs as many steps as there are dimensions, because its default is inaccurate."""
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
