"""The density of the Hessian's eigenvalues over the steps, on a grid that shows all their decades."""

import numpy as np

from grokscope import curvature
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

_N_MOMENTS = 4
_PER_WIDTH = 2
"""How many points of the grid a broadened node's standard deviation has: the density is then smooth to the eye."""


@by_checkpoint
def hessian_spectrum(
    trajectory: Trajectory,
    *,
    n_probes: int = 4,
    n_products: int = 30,
    linear_below: float = 1e-6,
    largest: float = 100.0,
    width: float = 0.1,
    seed: int = 0,
    dtype: str = "float32",
    part: str = "train",
) -> Series:
    """Measure the spectral density of the Hessian of the mean loss over the trained parameters.

    By stochastic Lanczos quadrature (`curvature.quadrature`). Eigenvalues of both signs span many decades, and
    memorization moves them all: so the coordinate is x = sgn(λ) log₁₀(1 + |λ| / `linear_below`), linear within
    ±`linear_below` and decades beyond, and nodes are broadened to Gaussians of standard deviation `width` in x.

    Arrays over steps: `density` of x on a grid, with `density_stderr` over the probes; it integrates to 1 less what
    lies beyond ±`largest`, and one of n eigenvalues by itself is a peak of area 1/n. `nodes` and `weights`, a row a
    probe, are the quadrature itself, without any broadening; `moments` tr(H^k)/n for k = 1 … 4 with
    `moments_stderr`. Constants: `grid`, `eigenvalue_grid` (the λ there), `n_parameters`. A peak within the bulk is
    as sharp as the quadrature resolves it, not as the spectrum is. `resolution` is π (max θ − min θ) / 2m, how far
    apart m nodes lie in the middle of the spectrum: nearer to zero than that, where a bulk lies between eigenvalues
    of both signs, as in an untrained model, is not known, and a gap there means nothing. More `n_products` resolve
    more; at an end of the spectrum finer things are resolved than that.

    Raise GrokscopeError for an option out of range. Costs `n_probes` · `n_products` products with the Hessian.
    """
    if n_probes < 2 or n_products < 2 or not (0 < linear_below < largest and width > 0):
        raise GrokscopeError(
            f"n_probes: {n_probes} and n_products: {n_products}, allowed: from 2; linear_below: {linear_below} and "
            f"largest: {largest}, allowed: above 0, the second the larger; width: {width}, allowed: above 0."
        )

    def coordinate(eigenvalues: np.ndarray) -> np.ndarray:
        return np.sign(eigenvalues) * np.log10(1 + np.abs(eigenvalues) / linear_below)

    end = float(coordinate(np.array([largest]))[0])
    grid = np.linspace(-end, end, 2 * int(np.ceil(end * _PER_WIDTH / width)) + 1)
    rows, n = [], 0
    for _, objective in objectives(trajectory, part=part, dtype=dtype):
        product, n = objective.hessian()
        found = curvature.quadrature(product, n, n_probes=n_probes, n_products=n_products, seed=seed)
        apart = np.pi * np.ptp(found.nodes) / (2 * found.nodes.shape[1])
        moments = found.moments(_N_MOMENTS)
        rows.append((*found.density(grid, width, coordinate), found.nodes, found.weights, *moments, np.array(apart)))
    keys = ("density", "density_stderr", "nodes", "weights", "moments", "moments_stderr", "resolution")
    return Series(
        "hessian_spectrum",
        trajectory.steps,
        {key: np.stack(column) for key, column in zip(keys, zip(*rows, strict=True), strict=True)},
        {
            "grid": grid,
            "eigenvalue_grid": np.sign(grid) * linear_below * (10 ** np.abs(grid) - 1),
            "n_parameters": np.array(n),
        },
    )
