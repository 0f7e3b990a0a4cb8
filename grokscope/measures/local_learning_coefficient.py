"""The local learning coefficient: how fast the volume of low-loss weights around a checkpoint shrinks."""

import math

from grokscope.errors import GrokscopeError
from grokscope.landscape import sgld
from grokscope.landscape.objective import objectives
from grokscope.measures._declaration import measure
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_VARIABLES = with_companions(
    {
        "local_learning_coefficient": Variable("local learning coefficient λ̂ of the {loss} loss"),
        "local_learning_coefficient_by_chain": Variable("λ̂ of each chain", dims=("chain",)),
        "llc_drift": Variable("drift of λ̂ between the halves"),
        "llc_at_equilibrium": Variable("whether the chains are at equilibrium"),
        "llc_acceptance": Variable("share of steps that Metropolis would accept"),
        "llc_autocorrelation_time": Variable("autocorrelation time", "draws"),
        "llc_distance": Variable("root mean square of |w − w*|", "L2 norm"),
        "train_loss": Variable("{loss} train loss", "nats", is_logarithmic=True),
    },
    stderr=("local_learning_coefficient", "llc_drift"),
)


@measure(n_checkpoints=6, by_checkpoint=True, only_when_named=True, variables=_VARIABLES)
def local_learning_coefficient(
    trajectory: Trajectory,
    *,
    lr: float = 1e-4,
    localization: float = 300.0,
    n_draws: int = 150,
    n_burn_in: int = 150,
    n_chains: int = 3,
    seed: int = 0,
    dtype: str = "float32",
) -> Series:
    """Compute λ̂ = nβ (E[L(w)] − L(w*)) with w* the checkpoint, L the mean train loss and β = 1/log n.

    n is the number of train equations. The mean is over draws from exp(−nβ L(w) − γ/2 |w − w*|²), which Langevin
    chains from w* sample over the trained parameters (`landscape.sgld`). At a minimum with curvatures h_i, λ̂ = Σ ½
    nβ h_i/(nβ h_i + γ). For γ = 0 that is half the number of curved directions: small for a flat, degenerate minimum
    and large for a sharp one. Away from a minimum, as early in a run, λ̂ lacks this meaning and may be negative.

    Compare only checkpoints and runs of one architecture at one γ: λ̂ depends on γ as much as on the network.

    Args:
        trajectory: The checkpoints to measure.
        lr: The step ε of a chain, above 0. ε nβ h/4 must be small for every curvature h. On the preset `quick` at
            memorization, 5e-5 gave 439 ± 5, the default 1e-4 gave 444 ± 5, and 2e-4 gave 513.
        localization: γ, from 0. The default 300 lets each weight move by about 300^-½ = 0.06. All weights together
            move by `llc_distance`, which is not small in so many dimensions.
        n_draws: The number of draws per chain that count, from 4.
        n_burn_in: The number of steps per chain before them, from 0. Chains forget their start in 2/(εγ) steps, 67 at
            the defaults, so the default 150 is twice that.
        n_chains: The number of chains, from 2, because the standard error is over the chains.
        seed: The seed of the chains. All steps share the noise.
        dtype: The precision of parameters and logits, "float32" or "float64". The log-softmax has the config's
            `loss_dtype`. The default is float32, whose rounding is far below the chains' noise.

    Returns:
        Series with arrays over the steps.

        - `local_learning_coefficient` (steps): λ̂.
        - `local_learning_coefficient_stderr` (steps): the standard error over the chains, or over the draws with
          their autocorrelation if that is larger.
        - `local_learning_coefficient_by_chain` (steps, n_chains): λ̂ of each chain.
        - `llc_drift`, `llc_drift_stderr` (steps): λ̂ of the second half of the draws minus that of the first half.
        - `llc_at_equilibrium` (steps): whether λ̂ ≥ 0 and the drift is within three standard errors or 5% of λ̂. If
          not, λ̂ is not an estimate: take more burn-in or a smaller `lr`.
        - `llc_acceptance` (steps), from 0 to 1: the share of steps that Metropolis' rule would accept. A smaller `lr`
          raises it.
        - `llc_autocorrelation_time` (steps), in draws.
        - `llc_distance` (steps): the root mean square of |w − w*|.
        - `train_loss` (steps), in nats: L(w*).

    Raises:
        GrokscopeError: devinterp is not installed, there are fewer than three train equations, an option is out of
            range, or a chain diverges.

    References:
        - Lau et al. 2023: the estimator and its localization.

    Invariances:
        - The order of neurons and heads, and a rotation of the residual stream, within the standard error.
        - A shift of all logits.
        - Not rescaled layers.

    Cost:
        - n_chains · (n_burn_in + n_draws) gradients per checkpoint, over all train equations. Minibatches would add
          their noise to the temperature.
    """
    n = len(trajectory.split.train)
    if n < 3:
        raise GrokscopeError(f"{n} train equations. Allowed: from 3, because the temperature is 1/log n.")
    n_beta = n / math.log(n)
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        chains = sgld.run_chains(
            train_loss.value_and_gradient,
            train_loss.point,
            n_beta=n_beta,
            lr=lr,
            localization=localization,
            n_draws=n_draws,
            n_burn_in=n_burn_in,
            n_chains=n_chains,
            seed=seed,
        )
        coefficient = sgld.learning_coefficient(chains, n_beta)
        row = {
            "local_learning_coefficient": coefficient.value,
            "local_learning_coefficient_stderr": coefficient.stderr,
            "local_learning_coefficient_by_chain": coefficient.by_chain,
            "llc_drift": coefficient.drift,
            "llc_drift_stderr": coefficient.drift_stderr,
            "llc_at_equilibrium": coefficient.at_equilibrium,
            "llc_acceptance": chains.acceptance.mean(),
            "llc_autocorrelation_time": coefficient.autocorrelation_time,
            "llc_distance": math.sqrt((chains.distance**2).mean()),
            "train_loss": chains.at_centre,
        }
        rows.append(row)
    return Series.of_rows("local_learning_coefficient", trajectory.steps, rows)
