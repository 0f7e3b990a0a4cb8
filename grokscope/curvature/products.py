"""Products with matrices that are never formed: the Hessian, the Gauss–Newton matrix, one with a preconditioner."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]


def hvp(loss: Float[Tensor, ""], parameters: list[Tensor]) -> tuple[Product, int]:
    """Return v ↦ Hv, with H the Hessian of `loss` over all `parameters` as one flat vector, and its length n.

    H v = ∇(g·v) with g = ∇loss. The gradient's graph is built once and kept, so a product costs one backward
    pass through it, about two gradients (Pearlmutter 1994). The product's dtype is the parameters'.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([one.reshape(-1) for one in gradients])

    def product(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return _pulled_back(gradient, parameters, vector)

    return product, len(gradient)


def gauss_newton(
    outputs: Tensor, loss: Callable[[Tensor], Float[Tensor, ""]], parameters: list[Tensor]
) -> tuple[Product, int]:
    """Return v ↦ Gv with G = Jᵀ (∇² loss) J, J the Jacobian of `outputs` over all `parameters`, and its length n.

    The Hessian is G and what the curvature of the outputs adds, Σ ∂loss/∂output · ∇²output (Schraudolph 2002).
    Where the loss is convex in the outputs, as a cross-entropy over a softmax is, G has no negative eigenvalue.
    J v is the derivative of Jᵀu, which is linear in u, towards u: both graphs are built once and kept, so a product
    costs two backward passes, about as much as one with the Hessian, and needs no forward mode of differentiation.
    """
    at = outputs.detach().requires_grad_()
    inner, _ = hvp(loss(at), [at])
    dual = torch.zeros_like(outputs, requires_grad=True)
    gradients = torch.autograd.grad(outputs, parameters, dual, create_graph=True, materialize_grads=True)
    transposed = torch.cat([one.reshape(-1) for one in gradients])

    def product(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        pushed = _pulled_back(transposed, [dual], vector)
        return _pulled_back(outputs.reshape(-1), parameters, inner(pushed))

    return product, len(transposed)


def preconditioned(product: Product, diagonal: Float[Tensor, " n"]) -> Product:
    """Return v ↦ P^(−1/2) A P^(−1/2) v for a positive diagonal P: symmetric, with the eigenvalues of P^(−1)A."""
    scale = diagonal.double().rsqrt()
    return lambda vector: scale * product(scale * vector.to(scale)).double().to(scale.device)


def _pulled_back(outputs: Float[Tensor, " m"], inputs: list[Tensor], vector: Float[Tensor, " m"]) -> Tensor:
    """Return the derivative of ⟨outputs, vector⟩ by the inputs, flat, the graph kept."""
    parts = torch.autograd.grad(outputs, inputs, vector.to(outputs), retain_graph=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts]).detach()
