"""Traces and norms from products with random signs, each with its standard error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from grokscope.curvature.lanczos import Eigenpairs
from grokscope.curvature.products import Product


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes and its standard error."""

    value: float
    stderr: float
    n_probes: int

    @classmethod
    def of(cls, samples: Float[np.ndarray, " n_probes"]) -> "Estimate":
        """Return the samples' mean, with their standard deviation over the square root of their number."""
        n = len(samples)
        return cls(float(np.mean(samples)), float(np.std(samples, ddof=1) / n**0.5) if n > 1 else float("nan"), n)

    def root(self) -> "Estimate":
        """Return the square root of what is estimated: of a value x ± s it is √x ± s / 2√x."""
        root = max(self.value, 0.0) ** 0.5
        return Estimate(root, self.stderr / (2 * root) if root else self.stderr, self.n_probes)


@dataclass(frozen=True, eq=False)
class Samples:
    """What each probe says of a symmetric operator."""

    traces: Float[np.ndarray, "n_probes blocks"]
    """Unbiased estimates of the trace of each diagonal block."""
    squares: Float[np.ndarray, " n_probes"]
    """Unbiased estimates of the squared Frobenius norm."""

    @property
    def trace(self) -> Float[np.ndarray, " n_probes"]:
        """Unbiased estimates of the whole trace."""
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
    """Return what products with random signs z say: z_bᵀ(Hz)_b for each block b of `sizes` in a row, and |Hz|².

    E[z_bᵀ(Hz)_b] = tr H_bb and E|Hz|² = |H|²_F because E[z zᵀ] = 1; the variance of zᵀHz is 2 Σ_{i≠j} H_ij²
    (Hutchinson 1990). From `known` eigenpairs (λ, v) each sample is relieved of λ ((z·v)² − 1), or λ² ((z·v)² − 1)
    for the square, whose mean is zero whatever v is: unbiased all the same, and the variance is then that of the
    matrix without them. So a few large eigenvalues, which Lanczos has found already, cost no accuracy; it is the idea
    of Hutch++ (Meyer et al. 2021) with eigenvectors in the place of a sketch. The same seed gives the same probes.
    """
    generator = torch.Generator().manual_seed(seed)
    edges = np.cumsum([0, *(sizes or [n])])
    if edges[-1] != n:
        raise ValueError(f"blocks of {sizes} do not make {n}")
    blocks = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    traces, squares = np.empty((n_probes, len(blocks))), np.empty(n_probes)
    values = np.empty(0) if known is None else known.values
    for probe in range(n_probes):
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        image = product(signs).double().cpu()
        traces[probe] = [float(signs[block] @ image[block]) for block in blocks]
        squares[probe] = float(image @ image)
        if known is not None:
            along = (known.vectors @ signs).numpy()
            for b, block in enumerate(blocks):
                part = known.vectors[:, block]
                beside = along * (part @ signs[block]).numpy() - part.square().sum(1).numpy()
                traces[probe, b] -= values @ beside
            squares[probe] -= values**2 @ (along**2 - 1)
    return Samples(traces, squares)


def hutchinson(
    product: Product, n: int, *, n_probes: int = 32, seed: int = 0, known: Eigenpairs | None = None
) -> Estimate:
    """Estimate the trace of a symmetric operator: the mean of zᵀHz over random signs z (see `samples`)."""
    return Estimate.of(samples(product, n, n_probes=n_probes, seed=seed, known=known).trace)


def ratio(above: Float[np.ndarray, " n_probes"], below: Float[np.ndarray, " n_probes"]) -> Estimate:
    """Estimate a ratio of means from samples of the same probes, with the standard error to first order.

    r = mean(a)/mean(b); its error is that of the mean of a − r b, over mean(b): what a and b have in common cancels
    (Cochran 1977, equation 2.39). The bias is of the order of one over the number of probes.
    """
    r = above.mean() / below.mean()
    rest = Estimate.of(above - r * below)
    return Estimate(float(r), rest.stderr / abs(float(below.mean())), rest.n_probes)
