"""Traces and norms from products with random sign vectors, each with its standard error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from grokscope.curvature.lanczos import Eigenpairs
from grokscope.curvature.products import Product


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes, with its standard error (NaN for a single probe)."""

    value: float
    stderr: float
    n_probes: int

    @classmethod
    def of(cls, samples: Float[np.ndarray, " n_probes"]) -> "Estimate":
        """Return the mean of the samples, with the standard error std/√n_probes."""
        n = len(samples)
        return cls(float(np.mean(samples)), float(np.std(samples, ddof=1) / n**0.5) if n > 1 else float("nan"), n)

    def root(self) -> "Estimate":
        """Return the square root of the estimated quantity: x ± s becomes √x ± s / 2√x."""
        root = max(self.value, 0.0) ** 0.5
        return Estimate(root, self.stderr / (2 * root) if root else self.stderr, self.n_probes)


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples that each probe gives of a symmetric operator H."""

    traces: Float[np.ndarray, "n_probes blocks"]
    """Unbiased samples of the trace of each diagonal block."""
    squares: Float[np.ndarray, " n_probes"]
    """Unbiased samples of the squared Frobenius norm."""

    @property
    def trace(self) -> Float[np.ndarray, " n_probes"]:
        """Unbiased samples of the trace of H."""
        return self.traces.sum(1)


def samples(
    product: Product,
    n: int,
    *,
    n_probes: int = 32,
    seed: int = 0,
    sizes: Sequence[int] | None = None,
    known: Eigenpairs | None = None,
) -> Samples:
    """Return z_bᵀ(Hz)_b for each block b, and |Hz|², for random sign vectors z.

    - Both are unbiased because E[z zᵀ] = 1: E[z_bᵀ(Hz)_b] = tr H_bb and E|Hz|² = |H|²_F.
    - The variance of zᵀHz is 2 Σ_{i≠j} H_ij².
    - The same seed gives the same probes.
    - The cost is one product per probe.

    Args:
        product: The product with H.
        n: The length of the vectors.
        n_probes: The number of probes, from 1.
        seed: Decides the probes.
        sizes: The sizes of consecutive diagonal blocks, with sum n; by default one block.
        known: Eigenpairs (λ, v) that reduce the variance to that of H without them, such as the largest from Lanczos.
            From the samples, λ ((z·v)² − 1) and λ² ((z·v)² − 1) are subtracted. These have mean zero for every unit
            vector v, so inaccurate eigenpairs do not bias the samples.

    Raises:
        ValueError: The sizes do not sum to n.

    References:
        Hutchinson 1990. Meyer et al. 2021 (Hutch++), which uses a sketch instead of eigenvectors.
    """
    generator = torch.Generator().manual_seed(seed)
    edges = np.cumsum([0, *(sizes or [n])])
    if edges[-1] != n:
        raise ValueError(f"sizes: {sizes} has the sum {edges[-1]}. Allowed: the sum {n}.")
    blocks = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    traces, squares = np.empty((n_probes, len(blocks))), np.empty(n_probes)
    values = np.empty(0) if known is None else known.values
    for probe in range(n_probes):
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        image = product(signs).double().cpu()
        traces[probe] = [float(signs[block] @ image[block]) for block in blocks]
        squares[probe] = float(image @ image)
        if known is not None:
            components = (known.vectors @ signs).numpy()
            for b, block in enumerate(blocks):
                vectors = known.vectors[:, block]
                deviations = components * (vectors @ signs[block]).numpy() - vectors.square().sum(1).numpy()
                traces[probe, b] -= values @ deviations
            squares[probe] -= values**2 @ (components**2 - 1)
    return Samples(traces, squares)


def hutchinson(
    product: Product, n: int, *, n_probes: int = 32, seed: int = 0, known: Eigenpairs | None = None
) -> Estimate:
    """Estimate the trace of a symmetric operator H as the mean of zᵀHz over random sign vectors z.

    The arguments are those of `samples`.
    """
    return Estimate.of(samples(product, n, n_probes=n_probes, seed=seed, known=known).trace)


def ratio(numerators: Float[np.ndarray, " n_probes"], denominators: Float[np.ndarray, " n_probes"]) -> Estimate:
    """Estimate the ratio of two means, r = mean(a)/mean(b), from samples a and b of the same probes.

    The standard error is that of the mean of a − r b, divided by |mean(b)|, so the common variation of a and b
    cancels. It is exact to first order, and the bias of r is of order 1/n_probes.

    Args:
        numerators: The samples a.
        denominators: The samples b, whose mean must not be zero.

    References:
        Cochran 1977, equation 2.39.
    """
    r = numerators.mean() / denominators.mean()
    rest = Estimate.of(numerators - r * denominators)
    return Estimate(float(r), rest.stderr / abs(float(denominators.mean())), rest.n_probes)
