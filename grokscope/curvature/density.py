"""The density of a symmetric operator's eigenvalues, by stochastic Lanczos quadrature."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from grokscope.curvature.lanczos import recurrence
from grokscope.curvature.products import Product


@dataclass(frozen=True, eq=False)
class Quadrature:
    """For each probe z the nodes θ and weights τ of Gauss' quadrature: Σ τ f(θ) ≈ zᵀf(H)z / n, on average tr f(H)/n.

    A probe's weights sum to 1. It is exact for polynomials f of a degree below twice the number of nodes.
    """

    nodes: Float[np.ndarray, "n_probes m"]
    weights: Float[np.ndarray, "n_probes m"]

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of a function over all eigenvalues, and its standard error over the probes.

        What `function` adds as last axes, such as the points of a grid, the results have as theirs.
        """
        values = function(self.nodes)
        weights = self.weights.reshape(self.weights.shape + (1,) * (values.ndim - 2))
        of_probe = (weights * values).sum(1)
        return of_probe.mean(0), of_probe.std(0, ddof=1) / len(of_probe) ** 0.5

    def moments(self, n_moments: int) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Return tr(H^k)/n for k = 1 … `n_moments`, and its standard errors."""
        return self.mean(lambda nodes: nodes[..., None] ** np.arange(1, n_moments + 1))

    def density(
        self,
        grid: Float[np.ndarray, " points"],
        width: float,
        coordinate: Callable[[np.ndarray], np.ndarray] = lambda eigenvalue: eigenvalue,
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Return the density of x = coordinate(λ) at the points of `grid`, and its standard error.

        Each node is broadened to a Gaussian of standard deviation `width` in x; over all x the density integrates
        to 1, so that one of n eigenvalues standing alone is a peak of area 1/n.
        """

        def bumps(nodes: np.ndarray) -> np.ndarray:
            away = (grid - coordinate(nodes)[..., None]) / width
            return np.exp(-(away**2) / 2) / (width * (2 * np.pi) ** 0.5)

        return self.mean(bumps)


def quadrature(product: Product, n: int, *, n_probes: int = 4, n_products: int = 40, seed: int = 0) -> Quadrature:
    """Return stochastic Lanczos quadrature of a symmetric operator (Ubaru, Chen & Saad 2017; Ghorbani et al. 2019).

    From each probe, random signs z, `n_products` steps of Lanczos' recurrence, fully reorthogonalised, give the
    tridiagonal T; its eigenvalues are the nodes, the squared first entries of its eigenvectors the weights. Towards
    the ends of the spectrum nodes are eigenvalues; within a bulk they say how much mass lies about there. The same
    seed gives the same probes. Costs `n_probes` · `n_products` products.
    """
    generator = torch.Generator().manual_seed(seed)
    nodes, weights = np.zeros((2, n_probes, min(n_products, n)))
    for probe in range(n_probes):
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        for space in recurrence(product, signs, n_products, generator):
            # What lies beyond an invariant space has no part in this probe.
            if space.is_closed:
                break
        values, vectors = space.eigh()
        nodes[probe, : len(values)], weights[probe, : len(values)] = values, vectors[0] ** 2
    return Quadrature(nodes, weights)
