"""Eigenvalues and traces against matrices whose spectrum is known, and against SciPy's ARPACK.

`numpy.linalg.eigvalsh` and `scipy.sparse.linalg.eigsh` are independent oracles: LAPACK's and ARPACK's Fortran
shares no code with the Lanczos recurrence tested here, and the first sees the whole matrix.
"""

import statistics

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from support.matrices import SPECTRA, matrix, rotation

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
def test_an_eigenpair_says_how_good_it_is(name):
    H = matrix(SPECTRA[name].double())
    pair = curvature.lanczos(lambda v: H @ v, len(H))
    assert pair.vector.norm().item() == pytest.approx(1, rel=1e-10)
    residual = float((H @ pair.vector - pair.value * pair.vector).norm())
    assert residual == pytest.approx(pair.residual, rel=1e-5, abs=1e-12 * float(H.norm()) + 1e-300)
    assert pair.residual <= 1e-3 * abs(pair.value)


def test_a_tighter_tolerance_agrees_with_arpack_to_ten_digits():
    H = matrix(torch.linspace(0, 3, 400).double() ** 3)
    pair = curvature.lanczos(lambda v: H @ v, 400, tolerance=1e-7)
    start = np.random.default_rng(0).standard_normal(400)
    assert pair.value == pytest.approx(eigsh(H.numpy(), k=1, which="LA", v0=start)[0][0], rel=1e-10)


@pytest.mark.parametrize("gap", [0.003, 0.01, 0.03, 0.1])
def test_a_close_second_is_not_taken_for_the_top(gap):
    """The second eigenvalue's residual is small too: a start that leans its way must not end the search there.

    The two waves of one frequency give a network's Hessian such pairs.
    """
    diagonal = torch.cat([torch.zeros(1800), torch.linspace(0, 0.6, 198), torch.tensor([1 - gap, 1.0])]).double()
    found = [curvature.lanczos(lambda v: diagonal * v, 2000, seed=seed).value for seed in range(100)]
    missed = [value for value in found if value < 0.999]
    assert not missed, f"{len(missed)} of 100 starts ended more than 0.1% below, one at {min(missed)}"


def test_a_start_near_the_top_saves_products_and_changes_nothing_else():
    H = matrix(torch.linspace(0, 3, 400).double() ** 3)
    cold = curvature.lanczos(lambda v: H @ v, 400)
    near = cold.vector + 1e-3 * rotation(400)[0]
    warm = curvature.lanczos(lambda v: H @ v, 400, start=7 * near)
    assert warm.n_products < 0.9 * cold.n_products
    assert warm.value == pytest.approx(float(np.linalg.eigvalsh(H.numpy())[-1]), rel=1e-10)


@pytest.mark.parametrize("gap", [0.0011, 0.003, 0.03, 0.5])
def test_a_start_that_the_top_is_orthogonal_to_does_not_hide_it(gap):
    """Where two eigenvalues have crossed, the former top's eigenvector is now the second's."""
    diagonal = torch.cat([torch.zeros(1800), torch.linspace(0, 0.6, 198), torch.tensor([1 - gap, 1.0])]).double()
    former = torch.zeros(2000, dtype=torch.float64)
    former[-2] = 1
    found = [curvature.lanczos(lambda v: diagonal * v, 2000, seed=seed, start=former).value for seed in range(30)]
    assert min(found) > 1 - 1e-6


def test_products_are_counted():
    H, calls = matrix(torch.linspace(0, 1, 50).double()), []
    pair = curvature.lanczos(lambda v: calls.append(1) or H @ v, 50)
    assert pair.n_products == len(calls) <= 50


def test_too_few_products_are_an_error_that_says_what_to_change():
    H = matrix(torch.linspace(0.99, 1, 200).double())
    with pytest.raises(GrokscopeError, match="tolerance"):
        curvature.lanczos(lambda v: H @ v, 200, tolerance=1e-9, most_products=5)


def test_a_product_that_is_not_finite_is_an_error():
    with pytest.raises(GrokscopeError, match="not finite"):
        curvature.lanczos(lambda v: v * torch.nan, 10)


def test_the_trace_of_a_diagonal_matrix_is_exact_with_one_probe_as_with_many():
    diagonal = torch.linspace(-3, 8, 40).double()
    estimate = curvature.hutchinson(lambda v: diagonal * v, 40, n_probes=5)
    assert estimate.value == pytest.approx(float(diagonal.sum()), rel=1e-12)
    assert estimate.stderr == pytest.approx(0, abs=1e-12)
    assert estimate.n_probes == 5


def test_the_trace_is_unbiased_and_its_stated_error_is_its_error():
    """Over 300 seeds the error in units of the stated standard error has mean 0 and deviation about 1."""
    H = matrix(torch.linspace(-1, 3, 60).double())
    scores = []
    for seed in range(300):
        estimate = curvature.hutchinson(lambda v: H @ v, 60, n_probes=30, seed=seed)
        scores.append((estimate.value - float(H.trace())) / estimate.stderr)
    assert abs(np.mean(scores)) < 4 / 300**0.5
    assert 0.85 < np.std(scores) < 1.2


def test_mean_and_standard_error_are_those_of_the_probes():
    H, samples = matrix(torch.linspace(-1, 3, 60).double()), []

    def product(v: torch.Tensor) -> torch.Tensor:
        assert v.abs().tolist() == [1] * 60
        samples.append(float(v @ H @ v))
        return H @ v

    estimate = curvature.hutchinson(product, 60, n_probes=3)
    assert estimate.value == pytest.approx(statistics.mean(samples), rel=1e-12)
    assert estimate.stderr == pytest.approx(statistics.stdev(samples) / 3**0.5, rel=1e-12)


def test_the_variance_of_a_probe_is_that_of_the_formula():
    H = matrix(torch.linspace(-1, 3, 60).double())
    estimate = curvature.hutchinson(lambda v: H @ v, 60, n_probes=4000)
    variance = 2 * float(H.square().sum() - H.diagonal().square().sum())
    assert estimate.stderr**2 * estimate.n_probes == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("function", [curvature.lanczos, curvature.hutchinson])
def test_the_seed_decides_and_no_global_generator_is_touched(function):
    H = matrix(torch.linspace(-1, 3, 60).double())
    state = torch.get_rng_state()
    first, second, third = (function(lambda v: H @ v, 60, seed=seed) for seed in (0, 0, 1))
    assert first.value == second.value != third.value
    assert torch.equal(torch.get_rng_state(), state)


def cubic(parameters: list[torch.Tensor]) -> torch.Tensor:
    """A function of a vector, a matrix and a scalar, whose Hessian depends on all of them."""
    a, B, c = parameters
    return (B @ a).pow(3).sum() + c * a.exp().sum() + (B.tanh().sum() * c).square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_is_the_dense_hessians(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3,), (4, 3), ()]
    flat = torch.randn(16, generator=generator, dtype=torch.float64)

    def unflattened(vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.reshape(s) for part, s in zip(vector.split([3, 12, 1]), shapes, strict=True)]

    H = torch.autograd.functional.hessian(lambda vector: cubic(unflattened(vector)), flat)
    assert isinstance(H, torch.Tensor)
    parameters = [part.to(dtype).requires_grad_() for part in unflattened(flat)]
    product, n = curvature.hvp(cubic(parameters), parameters)
    assert n == 16
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for i in range(16):  # Many products from one graph.
        image = product(torch.eye(16, dtype=torch.float64)[i])
        assert image.dtype == dtype and not image.requires_grad
        torch.testing.assert_close(image.double(), H[i], rtol=tolerance, atol=tolerance * float(H.norm()))


def test_a_parameter_that_enters_linearly_has_a_row_of_zeros():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    product, n = curvature.hvp(a.square().sum() + b.sum(), [a, b])
    assert n == 3
    assert product(torch.tensor([1.0, 1.0, 1.0])).tolist() == [2, 2, 0]
