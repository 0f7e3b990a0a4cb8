"""The spectral density of a symmetric operator by stochastic Lanczos quadrature."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from grokscope.curvature.lanczos import recurrence
from grokscope.curvature.products import Product


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Nodes θ and weights τ of a Gauss quadrature for each probe z: Σ τ f(θ) ≈ zᵀf(H)z / n, with mean tr f(H)/n.

    The weights of a probe sum to 1. The quadrature is exact for polynomials f of degree below twice the number of
    nodes. `quadrature` computes it.
    """

    nodes: Float[np.ndarray, "n_probes m"]
    weights: Float[np.ndarray, "n_probes m"]

    def mean(self, function: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of a function over all eigenvalues, and its standard error over the probes.

        Args:
            function: Maps the nodes to values of shape (n_probes, m, *rest). The results have the shape `rest`.
        """
        values = function(self.nodes)
        weights = self.weights.reshape(self.weights.shape + (1,) * (values.ndim - 2))
        probe_means = (weights * values).sum(1)
        return probe_means.mean(0), probe_means.std(0, ddof=1) / len(probe_means) ** 0.5

    def moments(self, n_moments: int) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Return tr(H^k)/n for k = 1 … n_moments, and their standard errors."""
        return self.mean(lambda nodes: nodes[..., None] ** np.arange(1, n_moments + 1))

    def density(
        self,
        grid: Float[np.ndarray, " points"],
        width: float,
        coordinate: Callable[[np.ndarray], np.ndarray] = lambda eigenvalue: eigenvalue,
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Return the density of x = coordinate(λ) at the points of a grid, and its standard error.

        The density integrates to 1 over x, so a single isolated eigenvalue of n is a peak of area 1/n.

        Args:
            grid: The values of x.
            width: The standard deviation in x of the Gaussian that replaces each node, above 0.
            coordinate: The function x of λ, such as a logarithm; by default λ itself.
        """

        def gaussians(nodes: np.ndarray) -> np.ndarray:
            distances = (grid - coordinate(nodes)[..., None]) / width
            return np.exp(-(distances**2) / 2) / (width * (2 * np.pi) ** 0.5)

        return self.mean(gaussians)


def quadrature(product: Product, n: int, *, n_probes: int = 4, n_products: int = 40, seed: int = 0) -> Quadrature:
    """Return the stochastic Lanczos quadrature of a symmetric operator.

    For each probe, a random sign vector, the Lanczos recurrence gives a tridiagonal matrix T. The nodes are the
    eigenvalues of T, and the weights are the squared first entries of its eigenvectors. Nodes near the ends of the
    spectrum are eigenvalues; nodes within a bulk represent the mass around them.

    - The same seed gives the same probes.
    - The cost is n_probes · n_products products.

    Args:
        product: The product with the operator.
        n: The length of the vectors.
        n_probes: The number of probes, from 1; standard errors need at least 2.
        n_products: The number of Lanczos steps, and therefore of nodes, per probe.
        seed: Decides the probes.

    Returns:
        The quadrature, with zero weights after the last node if the Krylov space of a probe is complete early.

    References:
        Ubaru, Chen & Saad 2017. Ghorbani et al. 2019.
    """
    generator = torch.Generator().manual_seed(seed)
    nodes, weights = np.zeros((2, n_probes, min(n_products, n)))
    for probe in range(n_probes):
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        for space in recurrence(product, signs, n_products, generator):
            # The probe has no component outside an invariant space.
            if space.is_invariant:
                break
        values, vectors = space.eigh()
        nodes[probe, : len(values)], weights[probe, : len(values)] = values, vectors[0] ** 2
    return Quadrature(nodes, weights)
