"""Products with matrices that are never formed: the Hessian, the Gauss–Newton matrix and a preconditioned matrix."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]


def hvp(loss: Float[Tensor, ""], parameters: list[Tensor]) -> tuple[Product, int]:
    """Return v ↦ Hv = ∇(g·v) with g = ∇loss, and the length n of v.

    The vector covers all parameters, flattened and concatenated. A product has their dtype and costs about two
    gradients: the graph of the gradient is built once, and each product is one backward pass through it.

    Args:
        loss: A scalar with a graph that leads to `parameters`.
        parameters: The leaves of the graph.

    References:
        Pearlmutter 1994.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([part.reshape(-1) for part in gradients])

    def product(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return _vjp(gradient, parameters, vector)

    return product, len(gradient)


def gauss_newton(
    outputs: Tensor, loss: Callable[[Tensor], Float[Tensor, ""]], parameters: list[Tensor]
) -> tuple[Product, int]:
    """Return v ↦ Gv with G = Jᵀ (∇² loss) J, and the length n of v. J is the Jacobian of `outputs` in the parameters.

    - The Hessian is G plus the curvature of the outputs, Σ ∂loss/∂output · ∇²output (Schraudolph 2002).
    - G has no negative eigenvalue if the loss is convex in the outputs, as a softmax cross-entropy is.
    - A product costs two backward passes, about as much as a product with the Hessian.
    - Forward-mode differentiation is not needed: Jᵀu is linear in u, and its derivative in the direction v is J v.

    Args:
        outputs: The outputs of the network, with a graph that leads to `parameters`.
        loss: A function of the outputs, differentiable twice.
        parameters: The leaves of the graph.
    """
    leaf = outputs.detach().requires_grad_()
    inner, _ = hvp(loss(leaf), [leaf])
    dual = torch.zeros_like(outputs, requires_grad=True)
    gradients = torch.autograd.grad(outputs, parameters, dual, create_graph=True, materialize_grads=True)
    transposed = torch.cat([part.reshape(-1) for part in gradients])

    def product(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        pushed = _vjp(transposed, [dual], vector)
        return _vjp(outputs.reshape(-1), parameters, inner(pushed))

    return product, len(transposed)


def preconditioned(product: Product, diagonal: Float[Tensor, " n"]) -> Product:
    """Return v ↦ P^(−1/2) A P^(−1/2) v for a positive diagonal P: symmetric, with the eigenvalues of P^(−1) A.

    Args:
        product: The product with a symmetric matrix A.
        diagonal: The diagonal of P, positive.
    """
    scale = diagonal.double().rsqrt()
    return lambda vector: scale * product(scale * vector.to(scale)).double().to(scale.device)


def _vjp(outputs: Float[Tensor, " m"], inputs: list[Tensor], vector: Float[Tensor, " m"]) -> Tensor:
    """Return the gradient of ⟨outputs, vector⟩ with respect to the inputs as one vector; the graph is retained."""
    parts = torch.autograd.grad(outputs, inputs, vector.to(outputs), retain_graph=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts]).detach()
