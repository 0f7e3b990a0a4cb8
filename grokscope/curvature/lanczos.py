"""Eigenvalues and eigenvectors at both ends of the spectrum of a symmetric operator, by the Lanczos recurrence."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.curvature.products import Product
from grokscope.errors import GrokscopeError


@dataclass(frozen=True)
class Eigenpair:
    """An approximate eigenvalue λ, its unit eigenvector v and the residual |Hv − λv|, which bounds the error of λ."""

    value: float
    vector: Float[Tensor, " n"]
    residual: float
    n_products: int


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Approximate eigenvalues in decreasing order, with orthonormal eigenvectors and residuals |Hv − λv|."""

    values: Float[np.ndarray, " k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[np.ndarray, " k"]
    n_products: int


@dataclass
class Krylov:
    """The state of the Lanczos recurrence: an orthonormal basis in which H is tridiagonal."""

    basis: Float[Tensor, "m n"]
    diagonal: list[float] = field(default_factory=list)
    off_diagonal: list[float] = field(default_factory=list)
    beta: float = 0.0
    """The next off-diagonal element: the norm of the component of H that leads out of the space."""
    n_invariant: int = 0
    """The number of invariant spaces that are complete. The recurrence restarts after each of them."""
    is_invariant: bool = False
    """Whether H maps the space into itself."""

    def eigh(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
        """Return the Ritz values in increasing order, and the eigenvectors of T as columns."""
        # The import takes 0.2 s, which a stored measure must not cost.
        from scipy.linalg import eigh_tridiagonal

        diagonal, off_diagonal = np.array(self.diagonal), np.array(self.off_diagonal[: len(self.diagonal) - 1])
        values, vectors = eigh_tridiagonal(diagonal, off_diagonal)
        return values, vectors


def recurrence(
    product: Product, start: Float[Tensor, " n"], max_products: int, generator: torch.Generator
) -> Iterator[Krylov]:
    """Yield the Krylov space after each product: Q H Qᵀ = T, with orthonormal rows of Q and a tridiagonal T.

    Q is fully reorthogonalised in float64, so no eigenvalue appears twice by rounding. If a space is invariant, the
    recurrence continues with a random vector orthogonal to it, and the off-diagonal element between them is zero.

    Args:
        product: The product with H.
        start: The first basis vector, of any norm above 0.
        max_products: The most products, from 1. The recurrence also ends once the basis spans the whole space.
        generator: The source of the random vectors.

    Raises:
        GrokscopeError: A product is not finite.
    """
    n = len(start)
    rows = torch.empty(min(max_products, n), n, dtype=torch.float64)
    space = Krylov(rows[:0])
    vector, largest = start.double() / start.double().norm(), 0.0
    for m in range(1, len(rows) + 1):
        rows[m - 1] = vector
        space.basis = basis = rows[:m]
        image = product(vector).double().cpu()
        if not torch.isfinite(image).all():
            raise GrokscopeError("A product with the Hessian is not finite, so its eigenvalues are undefined.")
        largest = max(largest, float(image.norm()))
        space.diagonal.append(float(vector @ image))
        image = _orthogonal(image, basis)
        space.beta = float(image.norm())
        # In an invariant space, β contains only rounding errors.
        space.is_invariant = m == n or space.beta <= 1e-14 * max(largest, np.finfo(float).tiny)
        space.n_invariant += space.is_invariant
        yield space
        space.off_diagonal.append(0.0 if space.is_invariant else space.beta)
        if space.is_invariant and m < n:
            image = _orthogonal(torch.randn(n, generator=generator, dtype=torch.float64), basis)
        vector = image / image.norm()


def eigenpairs(
    product: Product,
    n: int,
    *,
    n_top: int = 1,
    n_bottom: int = 0,
    tolerance: float = 1e-6,
    bottom_tolerance: float | None = None,
    seed: int = 0,
    max_products: int = 300,
    start: Float[Tensor, " n"] | None = None,
) -> Eigenpairs:
    """Return the `n_top` largest and the `n_bottom` smallest (algebraic) eigenpairs of a symmetric operator.

    One Krylov space serves both ends. The residual of a Ritz pair is |Hv − λv| = |β s|. Here β is the next
    off-diagonal element of T, and s is the last entry of T's eigenvector (Parlett 1980, section 13.2). The method
    stops once every wanted residual is at most the tolerance times the largest wanted |λ|.

    - The error of λ is at most its residual, and of order residual²/gap, where gap is the distance to the next
      eigenvalue.
    - A loose tolerance can be met by the second eigenvalue before the first one appears. With a gap of 0.3% this
      happened for 17 of 100 starts at 1e-3, and for none at 1e-6, which costs six more products.
    - An exactly multiple eigenvalue appears once, as in every method that starts from one vector. If the Krylov space
      becomes invariant, the method restarts and finds each wanted copy.

    Args:
        product: The product with the operator.
        n: The length of the vectors.
        n_top: The number of largest eigenvalues, from 0.
        n_bottom: The number of smallest eigenvalues, from 0. n_top + n_bottom is from 1 to n.
        tolerance: The largest allowed residual, relative to the largest wanted |λ|.
        bottom_tolerance: The tolerance of the smallest eigenvalues; by default `tolerance`.
        seed: Decides the random start.
        max_products: The most products with the operator.
        start: A vector near the wanted eigenvector, such as that of a similar operator, to save products. The method
            starts from the sum of this vector and the random one. From `start` alone, it could not find a top
            eigenvector orthogonal to it, which is the situation after two eigenvalues have crossed. The result is the
            same within the tolerance.

    Returns:
        The eigenpairs in decreasing order: n_top from the largest down, then n_bottom down to the smallest.

    Raises:
        GrokscopeError: A product is not finite, `max_products` do not reach the tolerance, or n_top and n_bottom are
            out of range.
    """
    n_wanted = n_top + n_bottom
    if n_top < 0 or n_bottom < 0 or not 1 <= n_wanted <= n:
        raise GrokscopeError(f"n_top: {n_top}, n_bottom: {n_bottom}; allowed: from 0 each, together from 1 to {n}.")
    tolerances = np.full(n_wanted, tolerance)
    tolerances[n_top:] = tolerance if bottom_tolerance is None else bottom_tolerance
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(n, generator=generator, dtype=torch.float64)
    if start is not None:
        vector = vector / vector.norm() + start.double().cpu() / start.double().norm()
    for space in recurrence(product, vector, max_products, generator):
        m = len(space.diagonal)
        if m < n_wanted:
            continue
        values, vectors = space.eigh()
        wanted = [*range(m - 1, m - 1 - n_top, -1), *range(n_bottom - 1, -1, -1)]
        residuals = np.zeros(n_wanted) if space.is_invariant else np.abs(space.beta * vectors[-1, wanted])
        # Each invariant space contains one copy of a multiple eigenvalue.
        is_complete = m == n or (space.is_invariant and space.n_invariant >= n_wanted)
        is_converged = not space.n_invariant and (residuals <= tolerances * np.abs(values[wanted]).max()).all()
        if is_complete or is_converged:
            eigenvectors = torch.from_numpy(vectors[:, wanted].T.copy()) @ space.basis
            return Eigenpairs(values[wanted], eigenvectors, residuals, m)
    raise GrokscopeError(
        f"Lanczos did not reach a relative residual of {tolerances.min():g} within {max_products} products with the "
        f"Hessian. Use a larger tolerance."
    )


def lanczos(
    product: Product,
    n: int,
    *,
    tolerance: float = 1e-6,
    seed: int = 0,
    max_products: int = 300,
    start: Float[Tensor, " n"] | None = None,
    accurate: Product | None = None,
) -> Eigenpair:
    """Return the largest (algebraic) eigenpair of a symmetric operator, with a residual of at most tolerance · |λ|.

    The arguments and errors are those of `eigenpairs`, and `accurate` is the product of `refined`, if given.
    """
    top = eigenpairs(product, n, tolerance=tolerance, seed=seed, max_products=max_products, start=start)
    top = top if accurate is None else refined(top, accurate)
    return Eigenpair(float(top.values[0]), top.vectors[0], float(top.residuals[0]), top.n_products)


def refined(pairs: Eigenpairs, product: Product) -> Eigenpairs:
    """Return the eigenpairs of a more accurate product in the space that approximate eigenvectors span.

    This is one Rayleigh–Ritz step. With float32 eigenvectors and a float64 product, the errors of the eigenvalues are
    of second order in those of the space, and the residuals |Hv − λv| include the rounding errors of float32.

    Args:
        pairs: The approximate eigenpairs, from `eigenpairs`.
        product: The accurate product. It is computed once for each pair.

    Returns:
        As many eigenpairs, in decreasing order.

    References:
        Parlett 1980, section 11.3.
    """
    images = torch.stack([product(vector).double().cpu() for vector in pairs.vectors])
    projection = pairs.vectors @ images.T
    values, rotation = torch.linalg.eigh((projection + projection.T) / 2)
    values, rotation = values.flip(0), rotation.flip(1)
    vectors = rotation.T @ pairs.vectors
    residuals = (rotation.T @ images - values[:, None] * vectors).norm(dim=1)
    return Eigenpairs(values.numpy(), vectors, residuals.numpy(), pairs.n_products + len(images))


def _orthogonal(vector: Float[Tensor, " n"], basis: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
    """Return the component of a vector that is orthogonal to the basis."""
    for _ in range(2):  # One pass is inaccurate after strong cancellation; two suffice (Parlett 1980, section 6.9).
        vector = vector - basis.T @ (basis @ vector)
    return vector
