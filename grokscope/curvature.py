"""Curvature from products with the Hessian alone: top eigenvalue, trace. Knows nothing of training.

Each result carries what it is worth: an eigenvalue its residual, an estimate its standard error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from grokscope.errors import GrokscopeError

Product = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue λ with its unit eigenvector v and the residual |Hv − λv|: some eigenvalue is that near."""

    value: float
    vector: Float[Tensor, " n"]
    residual: float
    n_products: int


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes and its standard error."""

    value: float
    stderr: float
    n_probes: int


def hvp(loss: Float[Tensor, ""], parameters: list[Tensor]) -> tuple[Product, int]:
    """Return v ↦ Hv, with H the Hessian of `loss` over all `parameters` as one flat vector, and its length n.

    H v = ∇(g·v) with g = ∇loss. The gradient's graph is built once and kept, so a product costs one backward
    pass through it, about two gradients (Pearlmutter 1994). The product's dtype is the parameters'.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([one.reshape(-1) for one in gradients])

    def product(vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        parts = torch.autograd.grad(
            gradient, parameters, vector.to(gradient), retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in parts]).detach()

    return product, len(gradient)


def lanczos(product: Product, n: int, *, tolerance: float = 1e-3, seed: int = 0) -> Eigenpair:
    """Return the largest (algebraic) eigenvalue of a symmetric operator, by ARPACK's restarted Lanczos.

    It stops when the residual |Hv − λv| is at most `tolerance`·|λ|, so λ is within that of an eigenvalue; the
    error of λ itself is of the order of the residual's square over the gap to the next eigenvalue. `seed` gives
    the start vector. Raise GrokscopeError if a product is not finite or the tolerance is out of reach.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(n, generator=generator, dtype=torch.float64)
    n_products = 0

    def counted(vector: np.ndarray) -> np.ndarray:
        nonlocal n_products
        n_products += 1
        found = product(torch.from_numpy(np.ascontiguousarray(vector.reshape(-1)))).double().cpu().numpy()
        if not np.isfinite(found).all():
            raise GrokscopeError("A product with the Hessian is not finite, so it has no eigenvalues.")
        return found

    first = counted(start.numpy())
    if not first.any():
        # A random vector that H sends to zero: H is zero, and ARPACK would stop with an error.
        return Eigenpair(0.0, start / start.norm(), 0.0, n_products)
    if n <= 20:
        values, vectors = np.linalg.eigh(np.stack([counted(row) for row in np.eye(n)]))
        value, vector = values[-1], vectors[:, -1]
    else:
        operator = LinearOperator((n, n), matvec=counted, dtype=np.float64)  # pyright: ignore[reportCallIssue]
        try:
            values, vectors = eigsh(operator, k=1, which="LA", tol=tolerance, v0=start.numpy(), maxiter=300)
        except ArpackNoConvergence as error:
            raise GrokscopeError(
                f"Lanczos did not reach a relative residual of {tolerance} in {n_products} products; "
                f"allow a larger tolerance."
            ) from error
        value, vector = values[0], vectors[:, 0]
    residual = float(np.linalg.norm(counted(vector) - value * vector))
    return Eigenpair(float(value), torch.from_numpy(vector.copy()), residual, n_products)


def hutchinson(product: Product, n: int, *, n_probes: int = 32, seed: int = 0) -> Estimate:
    """Estimate the trace of a symmetric operator: the mean of zᵀHz over random signs z, with its standard error.

    E[zᵀHz] = tr H because E[z zᵀ] = 1; the variance of one probe is 2 Σ_{i≠j} H_ij² (Hutchinson 1990). The
    same seed gives the same probes, so that differences along a trajectory are not the probes'.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(n_probes):
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        samples.append(float(signs @ product(signs).double().cpu()))
    return Estimate(float(np.mean(samples)), float(np.std(samples, ddof=1) / n_probes**0.5), n_probes)
