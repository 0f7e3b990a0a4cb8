"""The density of the Hessian's eigenvalues over the steps, on a grid that shows all their decades."""

import numpy as np

from grokscope import curvature
from grokscope.landscape.objective import objectives
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_N_MOMENTS = 4
_GRID_POINTS_PER_WIDTH = 2
"""The number of grid points per standard deviation of a broadened node, enough for a density that looks smooth."""


_VARIABLES = with_companions(
    {
        "density": Variable("spectral density of the Hessian, {loss} loss", dims=("grid",)),
        "nodes": Variable("nodes of the quadrature", "nats/weight²", ("probe", "product")),
        "weights": Variable("weights of the quadrature", dims=("probe", "product")),
        "moments": Variable("tr(Hᵏ)/n for k = 1 … 4", dims=("order",)),
        "resolution": Variable("resolution of the spectrum", "nats/weight²", is_logarithmic=True),
        "grid": Variable("position on the grid", dims=("grid",), role="coordinate"),
        "eigenvalue_grid": Variable("eigenvalue at the grid", "nats/weight²", ("grid",)),
        "n_parameters": Variable("number of parameters"),
    },
    stderr=("density", "moments"),
)


@measure(n_checkpoints=12, by_checkpoint=True, variables=_VARIABLES)
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
    """Compute the spectral density (1/n) Σ_i δ(x − x(λ_i)) of the n × n Hessian of the mean loss.

    The coordinate is x = sgn(λ) log₁₀(1 + |λ| / `linear_below`), because the eigenvalues have both signs and span
    many decades, and memorization moves them all. x is linear within ±`linear_below` and counts decades beyond. The
    density comes from stochastic Lanczos quadrature (`curvature.quadrature`), whose nodes are broadened to Gaussians
    in x.

    Args:
        trajectory: The checkpoints to measure.
        n_probes: The number of random sign vectors, from 2, because the standard error is over the probes.
        n_products: The number of products with the Hessian per probe, which is the number of nodes; from 2. More
            products resolve more of the bulk. The default 30 makes 120 products per checkpoint with 4 probes.
        linear_below: The |λ| below which x is linear, above 0 and below `largest`. A smaller value shows more
            decades; the loss of a memorized model is about 1e-7.
        largest: The |λ| at which the grid ends. The density lacks eigenvalues beyond it.
        width: The standard deviation of a broadened node in x, above 0. The default is a tenth of a decade.
        seed: The seed of the probes. All steps share the probes.
        dtype: The precision of parameters and logits, "float32" or "float64". The log-softmax has the config's
            `loss_dtype`.
        part: The equations of the loss, "train" or "test".

    Returns:
        Series with arrays over the steps.

        - `density`, `density_stderr` (steps, grid): the density of x, and its standard error over the probes. Its
          integral is 1 minus the share of eigenvalues beyond ±`largest`. A single eigenvalue is a peak of area 1/n.
        - `nodes`, `weights` (steps, n_probes, n_products): the quadrature itself, not broadened.
        - `moments`, `moments_stderr` (steps, 4): tr(H^k)/n for k = 1 … 4.
        - `resolution` (steps): π (max θ − min θ) / 2m, the distance of m nodes θ in the middle of the spectrum. A gap
          nearer to zero than that means nothing if the bulk contains eigenvalues of both signs, as in an untrained
          model. The ends of the spectrum are resolved better.

        Constants: `grid` (x), `eigenvalue_grid` (λ at the grid), `n_parameters` (n). A peak within the bulk is as
        sharp as the quadrature resolves it, not as the spectrum is.

    Raises:
        GrokscopeError: An option is out of range, or a product with the Hessian is not finite.

    References:
        - Ubaru, Chen & Saad 2017: stochastic Lanczos quadrature.
        - Ghorbani et al. 2019: Hessian spectra of networks.

    Invariances:
        - A shift of all logits.
        - The order of neurons and heads and a rotation of the residual stream, within the standard error, because the
          probes have axes.
        - Not rescaled ReLU neurons.

    Cost:
        - `n_probes` · `n_products` products with the Hessian per checkpoint, each about two gradients.
    """
    check_ranges(
        ("n_probes", n_probes, n_probes >= 2, "from 2"),
        ("n_products", n_products, n_products >= 2, "from 2"),
        ("linear_below", linear_below, 0 < linear_below < largest, f"above 0 and below largest, {largest}"),
        ("width", width, width > 0, "above 0"),
    )

    def coordinate(eigenvalues: np.ndarray) -> np.ndarray:
        return np.sign(eigenvalues) * np.log10(1 + np.abs(eigenvalues) / linear_below)

    end = float(coordinate(np.array([largest]))[0])
    grid = np.linspace(-end, end, 2 * int(np.ceil(end * _GRID_POINTS_PER_WIDTH / width)) + 1)
    rows, n = [], 0
    for _, objective in objectives(trajectory, part=part, dtype=dtype):
        product, n = objective.hessian()
        quadrature = curvature.quadrature(product, n, n_probes=n_probes, n_products=n_products, seed=seed)
        density, density_stderr = quadrature.density(grid, width, coordinate)
        moments, moments_stderr = quadrature.moments(_N_MOMENTS)
        row = {
            "density": density,
            "density_stderr": density_stderr,
            "nodes": quadrature.nodes,
            "weights": quadrature.weights,
            "moments": moments,
            "moments_stderr": moments_stderr,
            "resolution": np.pi * np.ptp(quadrature.nodes) / (2 * quadrature.nodes.shape[1]),
        }
        rows.append(row)
    eigenvalue_grid = np.sign(grid) * linear_below * (10 ** np.abs(grid) - 1)
    constants = {"grid": grid, "eigenvalue_grid": eigenvalue_grid, "n_parameters": n}
    return Series.of_rows("hessian_spectrum", trajectory.steps, rows, constants)
