"""Sharpness: the largest eigenvalue and the trace of the train loss's Hessian."""

from grokscope import curvature
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import objectives
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

_NEAR_UP_TO = 1e-6
"""The loosest tolerance at which Lanczos may begin near the checkpoint before. Where the top two eigenvalues had
crossed and lay 0.1% apart, 7 of 30 such starts ended on the second one at 1e-5, and none at 1e-6."""


@by_checkpoint
def sharpness(
    trajectory: Trajectory,
    *,
    tolerance: float = 1e-6,
    n_probes: int = 16,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Measure λ_max and the trace of the Hessian ∇²L of the mean train loss over the trained parameters.

    Arrays over steps: `sharpness` (the largest algebraic eigenvalue, by Lanczos) with `sharpness_residual`
    |Hv − λv|, at most `tolerance`·|λ| (see `curvature.lanczos` before you loosen it); `hessian_trace` with
    `hessian_trace_stderr` (Hutchinson, `n_probes` random sign vectors, the same at each step). A frozen bias is
    no direction. Large: a small step along one direction changes the loss much; 0: flat. Parameters and logits
    are in `dtype`, the log-softmax in the config's `loss_dtype`: with that float64, float32 logits gave the same
    eigenvalue and trace to 1e-6 also where the loss is 1e-7. Not invariant to rescaling layers. (Keskar et al.
    2016; Cohen et al. 2021.) Costs 10 to 50 + `n_probes` products with the Hessian a checkpoint, each about two
    gradients. Each checkpoint's Lanczos begins near the top eigenvector of the one before (unless `tolerance` is
    above 1e-6), which saves a quarter of its products; the eigenvalue depends on that neighbour by less than the
    residual.
    """
    if n_probes < 2 or not tolerance > 0:
        raise GrokscopeError(f"n_probes: {n_probes}, allowed: from 2; tolerance: {tolerance}, allowed: above 0.")
    rows, before = [], None
    for _, train_loss in objectives(trajectory, dtype=dtype):
        product, n = train_loss.hessian()
        top = curvature.lanczos(product, n, tolerance=tolerance, seed=seed, start=before)
        trace = curvature.hutchinson(product, n, n_probes=n_probes, seed=seed)
        before = top.vector if tolerance <= _NEAR_UP_TO else None
        row = {
            "sharpness": top.value,
            "sharpness_residual": top.residual,
            "hessian_trace": trace.value,
            "hessian_trace_stderr": trace.stderr,
        }
        rows.append(row)
    return Series.of_rows("sharpness", trajectory.steps, rows)
