"""The Hessian of the loss at length: both ends of its spectrum, its size, where it lies, and what moves along it."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature
from grokscope.curvature import Eigenpairs, Estimate
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.model.components import COMPONENTS, by_component
from grokscope.series import Series, spelled
from grokscope.trajectory import Trajectory


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
    """Measure the Hessian H = ∇²L of the mean loss over the trained parameters, and its Gauss–Newton part G.

    L is the loss of the `part`, "train" or "test". Arrays over steps: `eigenvalues`, the `n_top` largest from the
    largest down, with `eigenvalues_residual` |Hv − λv|, at most `tolerance`·|λ₁|; `bottom_eigenvalue` with its
    residual, at most `bottom_tolerance`·|λ₁|: it is a Rayleigh quotient, so the smallest eigenvalue is no larger, and
    where the residual is not small beside it, no more is known. `trace` and `frobenius_norm`, with `_stderr`, from
    `n_probes` random sign vectors, the same at each step, relieved of the eigenvectors found (`curvature.samples`).
    `gauss_newton_eigenvalue` and `_trace` are those of G = Jᵀ(∇²L)J over the logits (`Objective.gauss_newton`), and
    `gauss_newton_share` is tr G / tr H with the standard error of the ratio: 1 where the logits' own curvature adds
    nothing, as after memorization (Sagun et al. 2018; Papyan 2019); above 1 where that is negative.

    For those `blocks` of the transformer's components that have trained parameters, which the constant `blocks`
    spells, with `block_sizes` parameters each: `block_eigenvalues`, the largest of that diagonal block of H,
    `block_traces` and `block_gauss_newton_traces`.

    `gradient_overlap` is |Vg|²/|g|², the share of the gradient that lies among the `n_top` eigenvectors V (Gur-Ari et
    al. 2018); `update_overlap` that of the way to the next checkpoint of this trajectory, for the last one of the way
    to it; `eigenspace_overlap` |V V'ᵀ|²/n_top with the checkpoint before, and 1 for the first. Random directions
    would have `chance_overlap`, n_top over the number of parameters; an overlap with no direction at all is 0.

    Raise GrokscopeError for an option out of range. Costs 40 to 90 products with H for the eigenvalues, `n_probes`
    with each of H and G, some 15 with G and as many with each block, each about two gradients.
    """
    if n_top < 1 or n_probes < 2 or not (tolerance > 0 and bottom_tolerance > 0):
        raise GrokscopeError(
            f"n_top: {n_top}, allowed: from 1; n_probes: {n_probes}, allowed: from 2; tolerance: {tolerance} and "
            f"bottom_tolerance: {bottom_tolerance}, allowed: above 0."
        )
    if unknown := [name for name in blocks if name not in COMPONENTS]:
        raise GrokscopeError(f"blocks: {', '.join(unknown)}; allowed: {', '.join(COMPONENTS)}.")
    there = {name: its for name, its in by_component(trajectory.model.trained).items() if name in blocks}
    parts = list(there.values())
    rows: list[dict[str, float | np.ndarray]] = []
    before: tuple[Tensor, Tensor] | None = None
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
        top, here = ends.vectors[:n_top], objective.point.double()
        gradient = objective.value_and_gradient(objective.point)[1].double()
        rows.append(
            {
                "eigenvalues": ends.values[:n_top],
                "eigenvalues_residual": ends.residuals[:n_top],
                "bottom_eigenvalue": ends.values[-1],
                "bottom_eigenvalue_residual": ends.residuals[-1],
                "gradient_norm": float(gradient.norm()),
                "gradient_overlap": _overlap(top, gradient),
                "update_overlap": 0.0,
                "eigenspace_overlap": 1.0,
                **_sizes(objective, product, ends, n_probes, seed, parts),
                **_tops(objective, parts, tolerance, seed),
            }
        )
        if before is not None:
            way = here - before[1]
            rows[-2]["update_overlap"], rows[-1]["update_overlap"] = _overlap(before[0], way), _overlap(top, way)
            rows[-1]["eigenspace_overlap"] = float((top @ before[0].T).square().sum()) / n_top
        before = top, here
        sizes = [sum(objective.parameters[name].numel() for name in names) for names in parts]
    constants = {
        "blocks": spelled(list(there)),
        "block_sizes": np.array(sizes, np.int64),
        "chance_overlap": n_top / n,
    }
    return Series.of_rows("hessian", trajectory.steps, rows, constants)


def _overlap(basis: Float[Tensor, "k n"], vector: Float[Tensor, " n"]) -> float:
    """Return the share of a vector's square that lies among orthonormal rows; 0 for no vector at all."""
    norm = float(vector.norm())
    return float((basis @ (vector / norm)).square().sum()) if norm else 0.0


def _sizes(
    objective: Objective,
    product: curvature.Product,
    known: Eigenpairs,
    n_probes: int,
    seed: int,
    blocks: list[list[str]],
) -> dict[str, float | np.ndarray]:
    """Return trace and norm of H and the trace of G, whole and by block, all from the same probes."""
    trained = objective.model.trained
    numbers = [objective.parameters[name].numel() for name in trained]
    columns = [[trained.index(name) for name in names] for names in blocks]
    found: dict[str, float | np.ndarray] = {}

    def note(name: str, estimate: Estimate) -> None:
        found[name], found[f"{name}_stderr"] = estimate.value, estimate.stderr

    taken = {}
    for name, of in (("", product), ("gauss_newton_", objective.gauss_newton()[0])):
        # The same is taken from both, so that their ratio has the error of the difference alone.
        taken[name] = curvature.samples(of, sum(numbers), n_probes=n_probes, seed=seed, sizes=numbers, known=known)
        note(f"{name}trace", Estimate.of(taken[name].trace))
        parts = [Estimate.of(taken[name].traces[:, its].sum(1)) for its in columns]
        found[f"block_{name}traces"] = np.array([one.value for one in parts])
        found[f"block_{name}traces_stderr"] = np.array([one.stderr for one in parts])
    note("frobenius_norm", Estimate.of(taken[""].squares).root())
    note("gauss_newton_share", curvature.ratio(taken["gauss_newton_"].trace, taken[""].trace))
    return found


def _tops(
    objective: Objective, blocks: list[list[str]], tolerance: float, seed: int
) -> dict[str, float | np.ndarray]:
    """Return the largest eigenvalue of G and of each diagonal block of H, with their residuals."""
    whole = curvature.lanczos(*objective.gauss_newton(), tolerance=tolerance, seed=seed)
    each = [curvature.lanczos(*objective.hessian(names), tolerance=tolerance, seed=seed) for names in blocks]
    return {
        "gauss_newton_eigenvalue": whole.value,
        "gauss_newton_eigenvalue_residual": whole.residual,
        "block_eigenvalues": np.array([one.value for one in each]),
        "block_eigenvalues_residual": np.array([one.residual for one in each]),
    }
