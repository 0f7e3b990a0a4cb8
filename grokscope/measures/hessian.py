"""The Hessian in full: both ends of its spectrum, its size, its blocks, and the overlap of updates with its top."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature
from grokscope.curvature import Eigenpairs, Estimate
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.model.components import COMPONENTS
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_VARIABLES = with_companions(
    {
        "eigenvalues": Variable(
            "largest eigenvalues of the Hessian, {loss} loss", "nats/weight²", ("eigenvalue",), is_logarithmic=True
        ),
        "bottom_eigenvalue": Variable("smallest eigenvalue of the Hessian, {loss} loss", "nats/weight²"),
        "trace": Variable("Hessian trace, {loss} loss", "nats/weight²", is_logarithmic=True),
        "frobenius_norm": Variable("Frobenius norm of the Hessian, {loss} loss", "nats/weight²", is_logarithmic=True),
        "gauss_newton_eigenvalue": Variable(
            "largest Gauss–Newton eigenvalue, {loss} loss", "nats/weight²", is_logarithmic=True
        ),
        "gauss_newton_trace": Variable("Gauss–Newton trace, {loss} loss", "nats/weight²", is_logarithmic=True),
        "gauss_newton_share": Variable("Gauss–Newton trace over Hessian trace, {loss} loss"),
        "block_eigenvalues": Variable(
            "largest eigenvalue of each Hessian block, {loss} loss", "nats/weight²", ("block",), is_logarithmic=True
        ),
        "block_traces": Variable(
            "trace of each Hessian block, {loss} loss", "nats/weight²", ("block",), is_logarithmic=True
        ),
        "block_gauss_newton_traces": Variable(
            "trace of each Gauss–Newton block, {loss} loss", "nats/weight²", ("block",), is_logarithmic=True
        ),
        "gradient_norm": Variable(
            "gradient norm ‖∇L‖ of the {loss} loss", "nats per unit of weight", is_logarithmic=True
        ),
        "gradient_overlap": Variable("gradient's share in the top eigenvectors"),
        "update_overlap": Variable("update's share in the top eigenvectors"),
        "eigenspace_overlap": Variable("overlap with the previous top eigenvectors"),
        "blocks": Variable("block", dims=("block",), role="coordinate"),
        "block_sizes": Variable("number of parameters in each block", dims=("block",)),
        "chance_overlap": Variable("overlap of a random vector"),
    },
    residual=("eigenvalues", "bottom_eigenvalue", "gauss_newton_eigenvalue", "block_eigenvalues"),
    stderr=(
        *("trace", "frobenius_norm", "gauss_newton_trace", "gauss_newton_share"),
        *("block_traces", "block_gauss_newton_traces"),
    ),
)


@measure(version=2, n_checkpoints=12, variables=_VARIABLES)
def hessian(
    trajectory: Trajectory,
    *,
    n_top: int = 10,
    n_probes: int = 16,
    tolerance: float = 1e-6,
    bottom_tolerance: float = 1e-3,
    seed: int = 0,
    dtype: str = "float32",
    part: str = "train",
    blocks: tuple[str, ...] = tuple(COMPONENTS),
) -> Series:
    """Compute the spectrum's ends, the size and the blocks of the Hessian H = ∇²L, and of its Gauss–Newton part G.

    L is the mean loss of a part of the equations over the trained parameters. G = Jᵀ(∇²L)J, with J the Jacobian of
    the logits and ∇²L the Hessian by the logits; H − G is the curvature of the logits themselves.

    Args:
        trajectory: The checkpoints to measure.
        n_top: The number of largest eigenvalues, from 1, at most the number of parameters. The overlaps use the same
            eigenvectors.
        n_probes: The number of random sign vectors for traces and norms, from 2, because one probe has no standard
            error. The error falls as 1/√n_probes.
        tolerance: The largest residual |Hv − λv| of a top eigenpair, relative to |λ₁|; above 0. At the default 1e-6
            Lanczos never ended on a later eigenvalue instead of an earlier one in 100 starts; at 1e-3 it did in 17.
        bottom_tolerance: The same for the smallest eigenvalue. The default is looser, because a Rayleigh quotient
            bounds the smallest eigenvalue at any tolerance.
        seed: The seed of the probes and of the start of Lanczos. All steps share the probes.
        dtype: The precision of parameters and logits, "float32" or "float64". The log-softmax has the config's
            `loss_dtype`. With "float32", a Rayleigh–Ritz step in float64 ends each search for eigenvalues. Without
            that, the second eigenvalue had a relative error of 6e-4 at a loss of 9e-9.
        part: The equations of the loss, "train" or "test".
        blocks: The components of the transformer (`model.components.COMPONENTS`) whose diagonal blocks of H are
            measured. The default is all of them; () measures none, and is faster.

    Returns:
        Series with arrays over the steps. Curvatures are in nats per squared unit of weight. `…_residual` is |Hv −
        λv| of an eigenvalue in float64, and `…_stderr` a standard error over the probes.

        - `eigenvalues`, `eigenvalues_residual` (steps, n_top): the largest, in descending order.
        - `bottom_eigenvalue`, `bottom_eigenvalue_residual` (steps): a Rayleigh quotient, so the smallest eigenvalue
          is at most this. A residual that is not small next to it tells no more.
        - `trace`, `trace_stderr`, `frobenius_norm`, `frobenius_norm_stderr` (steps): of H. Removing the eigenvectors
          already found from the probes lowers the error (`curvature.samples`).
        - `gauss_newton_eigenvalue`, `gauss_newton_eigenvalue_residual` (steps): the largest eigenvalue of G.
        - `gauss_newton_trace`, `gauss_newton_trace_stderr` (steps): the trace of G.
        - `gauss_newton_share`, `gauss_newton_share_stderr` (steps): tr G / tr H. It is 1 if the logits' own curvature
          adds nothing, as after memorization; above 1 if that curvature is negative.
        - `block_eigenvalues`, `block_eigenvalues_residual` (steps, blocks): the largest eigenvalue of a diagonal
          block.
        - `block_traces`, `block_gauss_newton_traces`, each with `…_stderr` (steps, blocks).
        - `gradient_norm` (steps), in nats per unit of weight: |g| with g = ∇L.
        - `gradient_overlap` (steps), from 0 to 1: |Vg|²/|g|², the gradient's share in the span of the top
          eigenvectors V.
        - `update_overlap` (steps), from 0 to 1: the same for the update to the next checkpoint of this trajectory;
          for the last checkpoint, the update to it. 0 if the weights do not move.
        - `eigenspace_overlap` (steps), from 0 to 1: |V V'ᵀ|²/n_top with V' of the previous checkpoint; 1 at the
          first.

        Constants: `blocks`, the names of the blocks that have trained parameters; `block_sizes`, the numbers of their
        parameters; `chance_overlap`.

    Raises:
        GrokscopeError: An option is out of range, or a product with H or G is not finite.

    References:
        - Sagun et al. 2018 and Papyan 2019: the Gauss–Newton part and the outliers of the spectrum.
        - Gur-Ari et al. 2018: the overlap of gradient and top eigenvectors.
        - Hutchinson 1990: the trace estimator.

    Invariances:
        - A shift of all logits.
        - The order of neurons and heads and a rotation of the residual stream; traces and norms only within their
          standard errors, because the probes have axes.
        - Not rescaled ReLU neurons.

    Controls:
        - `chance_overlap` is the expected overlap of a random direction: n_top over the number of parameters.

    Cost:
        - 40 to 90 products with H for the eigenvalues per checkpoint, each about two gradients.
        - `n_probes` products with each of H and G, some 15 more with G, and some 15 with each block.
        - With "float32", one product in float64 for each eigenvalue.
    """
    check_ranges(
        ("n_top", n_top, n_top >= 1, "from 1"),
        ("n_probes", n_probes, n_probes >= 2, "from 2"),
        ("tolerance", tolerance, tolerance > 0, "above 0"),
        ("bottom_tolerance", bottom_tolerance, bottom_tolerance > 0, "above 0"),
    )
    if unknown := [name for name in blocks if name not in COMPONENTS]:
        raise GrokscopeError(f"blocks: {', '.join(unknown)}. Allowed: {', '.join(COMPONENTS)}.")
    components = trajectory.model.components(trajectory.model.trained)
    block_parameters = {block: names for block, names in components.items() if block in blocks}
    parts = list(block_parameters.values())
    rows: list[dict[str, float | np.ndarray]] = []
    previous: tuple[Tensor, Tensor] | None = None
    n, sizes = 0, []
    for _, objective in objectives(trajectory, part=part, dtype=dtype):
        product, n = objective.hessian()
        ends = curvature.eigenpairs(
            product,
            n,
            n_top=n_top,
            n_bottom=1 if n > n_top else 0,
            tolerance=tolerance,
            bottom_tolerance=bottom_tolerance,
            seed=seed,
        )
        accurate = objective.in_float64() if dtype == "float32" else None
        ends = curvature.refined(ends, accurate.hessian()[0]) if accurate else ends
        top, weights = ends.vectors[:n_top], objective.point.double()
        gradient = objective.value_and_gradient(objective.point)[1].double()
        row = {
            "eigenvalues": ends.values[:n_top],
            "eigenvalues_residual": ends.residuals[:n_top],
            "bottom_eigenvalue": ends.values[-1],
            "bottom_eigenvalue_residual": ends.residuals[-1],
            "gradient_norm": float(gradient.norm()),
            "gradient_overlap": _overlap(top, gradient),
            "update_overlap": 0.0,
            "eigenspace_overlap": 1.0,
            **_traces_and_norms(objective, product, ends, n_probes, seed, parts),
            **_largest_eigenvalues(objective, accurate, parts, tolerance, seed),
        }
        if previous is not None:
            previous_top, previous_weights = previous
            update = weights - previous_weights
            rows[-1]["update_overlap"], row["update_overlap"] = _overlap(previous_top, update), _overlap(top, update)
            row["eigenspace_overlap"] = float((top @ previous_top.T).square().sum()) / n_top
        rows.append(row)
        previous = top, weights
        sizes = [sum(objective.parameters[name].numel() for name in names) for names in parts]
    constants = {
        "blocks": np.array(list(block_parameters), np.str_),
        "block_sizes": np.array(sizes, np.int64),
        "chance_overlap": n_top / n,
    }
    return Series.of_rows("hessian", trajectory.steps, rows, constants)


def _overlap(basis: Float[Tensor, "k n"], vector: Float[Tensor, " n"]) -> float:
    """Return the share of a vector's square in the span of orthonormal rows; 0 for a zero vector."""
    norm = float(vector.norm())
    return float((basis @ (vector / norm)).square().sum()) if norm else 0.0


def _traces_and_norms(
    objective: Objective,
    product: curvature.Product,
    known: Eigenpairs,
    n_probes: int,
    seed: int,
    blocks: list[list[str]],
) -> dict[str, float | np.ndarray]:
    """Return trace and norm of H and the trace of G, whole and by block, all from the same probes."""
    trained = objective.model.trained
    sizes = [objective.parameters[name].numel() for name in trained]
    columns = [[trained.index(name) for name in names] for names in blocks]

    def draw(matrix: curvature.Product) -> curvature.Samples:
        return curvature.samples(matrix, sum(sizes), n_probes=n_probes, seed=seed, sizes=sizes, known=known)

    # The same eigenvectors are removed from both, so that the ratio has the error of the difference alone.
    hessian, gauss_newton = draw(product), draw(objective.gauss_newton()[0])
    estimates = {
        "trace": Estimate.of(hessian.trace),
        "gauss_newton_trace": Estimate.of(gauss_newton.trace),
        "frobenius_norm": Estimate.of(hessian.squares).root(),
        "gauss_newton_share": curvature.ratio(gauss_newton.trace, hessian.trace),
    }
    row: dict[str, float | np.ndarray] = {}
    for name, estimate in estimates.items():
        row[name], row[f"{name}_stderr"] = estimate.value, estimate.stderr
    for name, samples in (("block_traces", hessian), ("block_gauss_newton_traces", gauss_newton)):
        traces = [Estimate.of(samples.traces[:, members].sum(1)) for members in columns]
        row[name] = np.array([trace.value for trace in traces])
        row[f"{name}_stderr"] = np.array([trace.stderr for trace in traces])
    return row


def _largest_eigenvalues(
    objective: Objective, accurate: Objective | None, blocks: list[list[str]], tolerance: float, seed: int
) -> dict[str, float | np.ndarray]:
    """Return the largest eigenvalue of G and of each diagonal block of H, with their residuals."""

    def largest(matrix: Callable[[Objective], tuple[curvature.Product, int]]) -> curvature.Eigenpair:
        accurate_product = matrix(accurate)[0] if accurate else None
        return curvature.lanczos(*matrix(objective), tolerance=tolerance, seed=seed, accurate=accurate_product)

    whole = largest(lambda function: function.gauss_newton())
    pairs = [largest(lambda function, names=names: function.hessian(names)) for names in blocks]
    return {
        "gauss_newton_eigenvalue": whole.value,
        "gauss_newton_eigenvalue_residual": whole.residual,
        "block_eigenvalues": np.array([pair.value for pair in pairs]),
        "block_eigenvalues_residual": np.array([pair.residual for pair in pairs]),
    }
