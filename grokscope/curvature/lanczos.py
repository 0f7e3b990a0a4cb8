"""Eigenvalues and eigenvectors at both ends of a symmetric operator's spectrum, by Lanczos' recurrence."""

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
    """An eigenvalue λ with its unit eigenvector v and the residual |Hv − λv|: some eigenvalue is that near."""

    value: float
    vector: Float[Tensor, " n"]
    residual: float
    n_products: int


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Some eigenvalues from the largest down, with orthonormal eigenvectors and the residual |Hv − λv| of each."""

    values: Float[np.ndarray, " k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[np.ndarray, " k"]
    n_products: int


@dataclass
class Krylov:
    """Where Lanczos' recurrence stands after some products: an orthonormal basis in which H is tridiagonal."""

    basis: Float[Tensor, "m n"]
    diagonal: list[float] = field(default_factory=list)
    off_diagonal: list[float] = field(default_factory=list)
    beta: float = 0.0
    """The next off-diagonal element: how far H leads out of the space."""
    n_closed: int = 0
    """How many invariant spaces have been gone through to the end, after each of which a new one was begun."""
    is_closed: bool = False
    """Whether nothing leads out of the space now."""

    def eigh(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
        """Return the Ritz values, increasing, and the eigenvectors of T as columns."""
        # Only now: it takes a fifth of a second to import, which a saved measure need not wait for.
        from scipy.linalg import eigh_tridiagonal

        diagonal, beside = np.array(self.diagonal), np.array(self.off_diagonal[: len(self.diagonal) - 1])
        values, vectors = eigh_tridiagonal(diagonal, beside)
        return values, vectors


def recurrence(
    product: Product, start: Float[Tensor, " n"], most_products: int, generator: torch.Generator
) -> Iterator[Krylov]:
    """Yield the Krylov space after each product: Q H Qᵀ = T with Q's rows orthonormal and T tridiagonal.

    Q is fully reorthogonalised in float64, so that no eigenvalue appears twice. Where the space is invariant, and
    nothing is left to go on with, it goes on with a random vector orthogonal to it, T's element between being zero.
    Ends after `most_products` or with the whole space. Raise GrokscopeError if a product is not finite.
    """
    n = len(start)
    rows = torch.empty(min(most_products, n), n, dtype=torch.float64)
    space = Krylov(rows[:0])
    vector, largest = start.double() / start.double().norm(), 0.0
    for m in range(1, len(rows) + 1):
        rows[m - 1] = vector
        space.basis = basis = rows[:m]
        image = product(vector).double().cpu()
        if not torch.isfinite(image).all():
            raise GrokscopeError("A product with the Hessian is not finite, so it has no eigenvalues.")
        largest = max(largest, float(image.norm()))
        space.diagonal.append(float(vector @ image))
        image = _orthogonal(image, basis)
        space.beta = float(image.norm())
        # An invariant subspace leaves nothing to go on with: β is then rounding.
        space.is_closed = m == n or space.beta <= 1e-14 * max(largest, np.finfo(float).tiny)
        space.n_closed += space.is_closed
        yield space
        space.off_diagonal.append(0.0 if space.is_closed else space.beta)
        if space.is_closed and m < n:
            image = _orthogonal(torch.randn(n, generator=generator, dtype=torch.float64), basis)
        vector = image / image.norm()


def _orthogonal(vector: Float[Tensor, " n"], basis: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
    for _ in range(2):  # Once is not enough where much cancels; twice is (Parlett 1980, section 6.9).
        vector = vector - basis.T @ (basis @ vector)
    return vector


def eigenpairs(
    product: Product,
    n: int,
    *,
    n_top: int = 1,
    n_bottom: int = 0,
    tolerance: float = 1e-6,
    bottom_tolerance: float | None = None,
    seed: int = 0,
    most_products: int = 300,
    start: Float[Tensor, " n"] | None = None,
) -> Eigenpairs:
    """Return the `n_top` largest and the `n_bottom` smallest (algebraic) eigenpairs of a symmetric operator.

    One Krylov space, from a random start (`seed`), serves both ends. It stops when each wanted residual
    |Hv − λv| = |β s| (β the next off-diagonal element, s the last entry of T's eigenvector; Parlett 1980,
    section 13.2) is at most `tolerance`, or at the bottom `bottom_tolerance` if it is given, times the largest wanted
    |λ|. Then λ is within its residual of an eigenvalue;
    its error is of the order of the residual's square over the gap to the next one. A looser tolerance may be met by
    the second eigenvalue before the first has shown itself: at 1e-3 that happened to 17 of 100 starts with a gap of
    0.3%, at 1e-6, for six more products, to none. An eigenvalue that is multiple to the last bit shows itself once,
    as in every method that starts from one vector, unless the space comes to an end: then it goes on, and each copy
    that is wanted is found.

    A `start` that is near the eigenvector sought, such as that of a neighbouring operator, saves products. Half of
    what is begun from is the random vector all the same: of a start alone, a top eigenvector that it is orthogonal to
    would never be found, and where two eigenvalues cross the former top's eigenvector is just that. The result is
    the same within the tolerance. Raise GrokscopeError if a product is not finite, if `most_products` do not reach
    the tolerance, or if so many eigenvalues are wanted as there are not.
    """
    wanted = n_top + n_bottom
    if n_top < 0 or n_bottom < 0 or not 1 <= wanted <= n:
        raise GrokscopeError(f"n_top: {n_top}, n_bottom: {n_bottom}; allowed: from 0 each, together from 1 to {n}.")
    met = np.full(wanted, tolerance)
    met[n_top:] = tolerance if bottom_tolerance is None else bottom_tolerance
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(n, generator=generator, dtype=torch.float64)
    if start is not None:
        vector = vector / vector.norm() + start.double().cpu() / start.double().norm()
    for space in recurrence(product, vector, most_products, generator):
        m = len(space.diagonal)
        if m < wanted:
            continue
        values, vectors = space.eigh()
        chosen = [*range(m - 1, m - 1 - n_top, -1), *range(n_bottom - 1, -1, -1)]
        residuals = np.zeros(wanted) if space.is_closed else np.abs(space.beta * vectors[-1, chosen])
        # Of an eigenvalue that is multiple each invariant space has one copy.
        is_whole = m == n or (space.is_closed and space.n_closed >= wanted)
        is_met = not space.n_closed and (residuals <= met * np.abs(values[chosen]).max()).all()
        if is_whole or is_met:
            found = torch.from_numpy(vectors[:, chosen].T.copy()) @ space.basis
            return Eigenpairs(values[chosen], found, residuals, m)
    raise GrokscopeError(
        f"Lanczos did not reach a relative residual of {met.min():g} in {most_products} products with the Hessian; "
        f"allow a larger tolerance."
    )


def lanczos(
    product: Product,
    n: int,
    *,
    tolerance: float = 1e-6,
    seed: int = 0,
    most_products: int = 300,
    start: Float[Tensor, " n"] | None = None,
) -> Eigenpair:
    """Return the largest (algebraic) eigenpair of a symmetric operator: `eigenpairs` for one.

    Its residual is at most `tolerance`·|λ|. Raise GrokscopeError as `eigenpairs` does.
    """
    top = eigenpairs(product, n, tolerance=tolerance, seed=seed, most_products=most_products, start=start)
    return Eigenpair(float(top.values[0]), top.vectors[0], float(top.residuals[0]), top.n_products)
