"""Sharpness: the largest eigenvalue and the trace of the train loss's Hessian."""

from grokscope import curvature
from grokscope.landscape.objective import objectives
from grokscope.measures._declaration import Panel, measure
from grokscope.measures._ranges import check_ranges
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_LOOSEST_WARM_START = 1e-6
"""The loosest tolerance at which Lanczos starts near the previous eigenvector. With the top two eigenvalues crossed
and 0.1% apart, 7 of 30 such starts at 1e-5 ended on the second eigenvalue; at 1e-6 none did."""


_VARIABLES = with_companions(
    {
        "sharpness": Variable("sharpness λ₁ of the {loss} train loss", "nats/weight²", is_logarithmic=True),
        "hessian_trace": Variable("Hessian trace of the {loss} train loss", "nats/weight²", is_logarithmic=True),
    },
    residual=("sharpness",),
    stderr=("hessian_trace",),
)
_PANELS = (Panel("both", "top eigenvalue and trace of the {loss} loss's Hessian", ("sharpness", "hessian_trace")),)


@measure(version=2, n_checkpoints=24, by_checkpoint=True, variables=_VARIABLES, panels=_PANELS)
def sharpness(
    trajectory: Trajectory,
    *,
    tolerance: float = 1e-6,
    n_probes: int = 16,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Compute λ_max and the trace of the Hessian ∇²L of the mean train loss L over the trained parameters.

    A large λ_max means that a small step along one direction changes the loss much; 0 is flat.

    Args:
        trajectory: The checkpoints to measure.
        tolerance: The largest residual |Hv − λv| of the eigenpair in `dtype`, relative to |λ|; above 0. At 1e-3,
            Lanczos ended on the second eigenvalue in 17 of 100 starts with a gap of 0.3%. At the default 1e-6 it
            never did, for six more products with the Hessian.
        n_probes: The number of random sign vectors for the trace, from 2, because one probe has no standard error.
            The error falls as 1/√n_probes. The default 16 costs about as much as the eigenvalue.
        seed: The seed of the probes and of the start of Lanczos. All steps share the probes.
        dtype: The precision of parameters and logits, "float32" or "float64". The log-softmax has the config's
            `loss_dtype`. With "float32", a Rayleigh quotient in float64 ends the search for the eigenvalue. Without
            that, float32 logits gave a relative error of 5e-5 at a loss of 9e-9, fifty times the residual.

    Returns:
        Series with arrays over the steps. The unit is nats per squared unit of weight.

        - `sharpness` (steps): the largest algebraic eigenvalue, by Lanczos.
        - `sharpness_residual` (steps): |Hv − λv| in float64; some eigenvalue is that near. The error of λ is of order
          residual²/gap, with the distance to the next eigenvalue as the gap.
        - `hessian_trace` (steps): the trace, by Hutchinson's estimator.
        - `hessian_trace_stderr` (steps): the standard error of the trace over the probes.

    Raises:
        GrokscopeError: An option is out of range, or a product with the Hessian is not finite.

    References:
        - Keskar et al. 2016: sharpness and generalisation.
        - Cohen et al. 2021: the top eigenvalue at the edge of stability.
        - Hutchinson 1990: the trace estimator.

    Invariances:
        - `sharpness`: the order of neurons and heads, a rotation of the residual stream, and a shift of all logits.
        - `hessian_trace`: the same within its standard error, because the probes have axes.
        - Not rescaled ReLU neurons.

    Cost:
        - 10 to 50 + `n_probes` products with the Hessian per checkpoint, each about two gradients; one in float64.
        - Each Lanczos starts near the previous checkpoint's top eigenvector, unless `tolerance` is above 1e-6. That
          saves a quarter of its products, and moves the eigenvalue by less than the residual.
    """
    check_ranges(
        ("n_probes", n_probes, n_probes >= 2, "from 2"),
        ("tolerance", tolerance, tolerance > 0, "above 0"),
    )
    rows, previous_vector = [], None
    for _, train_loss in objectives(trajectory, dtype=dtype):
        product, n = train_loss.hessian()
        accurate = train_loss.in_float64().hessian()[0] if dtype == "float32" else None
        start = previous_vector
        top = curvature.lanczos(product, n, tolerance=tolerance, seed=seed, start=start, accurate=accurate)
        trace = curvature.hutchinson(product, n, n_probes=n_probes, seed=seed)
        previous_vector = top.vector if tolerance <= _LOOSEST_WARM_START else None
        row = {
            "sharpness": top.value,
            "sharpness_residual": top.residual,
            "hessian_trace": trace.value,
            "hessian_trace_stderr": trace.stderr,
        }
        rows.append(row)
    return Series.of_rows("sharpness", trajectory.steps, rows)
