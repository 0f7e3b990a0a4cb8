"""Products with the Hessian and the Gauss–Newton matrix against dense matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.matrices import matrix
from support.softmax_regression import softmax_regression

from grokscope import curvature


def cubic(parameters: list[torch.Tensor]) -> torch.Tensor:
    """Return a function of a vector, a matrix and a scalar whose Hessian depends on all of them."""
    a, B, c = parameters
    return (B @ a).pow(3).sum() + c * a.exp().sum() + (B.tanh().sum() * c).square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hessian_product_agrees_with_dense_hessian(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3,), (4, 3), ()]
    flat = torch.randn(16, generator=generator, dtype=torch.float64)

    def unflatten(vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.reshape(shape) for part, shape in zip(vector.split([3, 12, 1]), shapes, strict=True)]

    H = torch.autograd.functional.hessian(lambda vector: cubic(unflatten(vector)), flat)
    assert isinstance(H, torch.Tensor)
    parameters = [part.to(dtype).requires_grad_() for part in unflatten(flat)]
    product, n = curvature.hvp(cubic(parameters), parameters)
    assert n == 16
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for i in range(16):  # One graph serves many products.
        image = product(torch.eye(16, dtype=torch.float64)[i])
        assert image.dtype == dtype and not image.requires_grad
        torch.testing.assert_close(image.double(), H[i], rtol=tolerance, atol=tolerance * float(H.norm()))


def test_linear_parameter_has_a_zero_row_in_the_hessian():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    product, n = curvature.hvp(a.square().sum() + b.sum(), [a, b])
    assert n == 3
    assert product(torch.tensor([1.0, 1.0, 1.0])).tolist() == [2, 2, 0]


def test_products_of_softmax_regression_have_closed_form():
    """The outputs are linear in the weights, so the Hessian is the Gauss–Newton matrix."""
    X, y, W, H = softmax_regression()
    W.requires_grad_()
    hessian, n = curvature.hvp(F.cross_entropy(X @ W.T, y), [W])
    gauss_newton, m = curvature.gauss_newton(X @ W.T, lambda z: F.cross_entropy(z, y), [W])
    assert n == m == 24
    for i in range(24):
        unit = torch.eye(24, dtype=torch.float64)[i]
        torch.testing.assert_close(hessian(unit), H[i], rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(gauss_newton(unit), H[i], rtol=1e-10, atol=1e-13)


def test_preconditioned_product_has_eigenvalues_of_quotient():
    H, P = matrix(torch.linspace(-1, 3, 30).double()), torch.linspace(0.01, 5, 30).double()
    top = curvature.lanczos(curvature.preconditioned(lambda v: H @ v, P), 30)
    assert top.value == pytest.approx(np.linalg.eigvals((H / P[:, None]).numpy()).real.max(), rel=1e-9)
