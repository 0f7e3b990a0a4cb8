"""The local learning coefficient: how fast the volume of weights of low loss around a checkpoint shrinks."""

import math

from grokscope.errors import GrokscopeError
from grokscope.landscape import sgld
from grokscope.landscape.objective import objectives
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory


@by_checkpoint
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
    """Measure λ̂ = nβ (E[L(w)] − L(w*)), w* the checkpoint, L the mean train loss, β = 1/log n (Lau et al. 2023).

    n is the number of train equations; the mean is over draws from exp(−nβ L(w) − γ/2 |w − w*|²) by Langevin
    chains (`langevin.sgld`) from w* over the trained parameters, γ the `localization`, after a burn-in that does not
    count. Arrays over steps:

    - `local_learning_coefficient`, with `local_learning_coefficient_stderr` over chains, or over draws with their
      autocorrelation where that is larger, and `local_learning_coefficient_by_chain`;
    - `llc_drift`, the second half of the draws less the first, in units of λ̂, and `llc_drift_stderr`;
    - `llc_at_equilibrium`, whether the drift is within three standard errors or 5% of λ̂, and λ̂ ≥ 0; where it is
      not, the number is no estimate: take more burn-in, or a smaller `lr`;
    - `llc_acceptance`, the share of steps that Metropolis' rule would have taken, which a shorter step raises;
      `llc_autocorrelation_time` in draws; `llc_distance`, the root mean square |w − w*|; `train_loss`, L(w*).

    At a minimum with curvatures h_i, λ̂ = Σ ½ nβ h_i/(nβ h_i + γ), for γ = 0 half the number of curved directions:
    small for a flat, degenerate minimum, large for a sharp one. Where w* is no minimum, as early in a run, it has no
    such meaning and may be negative. It depends on γ as much as on the network: γ = 300 lets each weight go about
    300^-½ = 0.06, and all of them `llc_distance`, which in so many dimensions is no longer near. Compare only
    checkpoints and runs of one architecture, at one γ. Not invariant to rescaling layers. Chains forget in 2/(εγ)
    steps, and ε nβ h/4 must be small. On the preset `quick` ε = 5e-5 gave what 1e-4 gives, 439 ± 5 and 444 ± 5 at
    memorization; 2e-4 gave 513. Gradients are over all equations: no minibatch adds its noise. Parameters and logits
    are in `dtype`, the log-softmax in the config's `loss_dtype`.

    Costs n_chains · (n_burn_in + n_draws) gradients a checkpoint. Raise GrokscopeError if devinterp is not
    installed, for fewer than three train equations, for an option out of range, and where a chain runs away.
    """
    n = len(trajectory.split.train)
    if n < 3:
        raise GrokscopeError(f"There are {n} train equations; the temperature 1/log n needs three.")
    n_beta = n / math.log(n)
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        chains = sgld.sgld(
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
        found = sgld.coefficient(chains, n_beta)
        row = {
            "local_learning_coefficient": found.value,
            "local_learning_coefficient_stderr": found.stderr,
            "local_learning_coefficient_by_chain": found.by_chain,
            "llc_drift": found.drift,
            "llc_drift_stderr": found.drift_stderr,
            "llc_at_equilibrium": found.at_equilibrium,
            "llc_acceptance": chains.acceptance.mean(),
            "llc_autocorrelation_time": found.autocorrelation_time,
            "llc_distance": math.sqrt((chains.distance**2).mean()),
            "train_loss": chains.at_centre,
        }
        rows.append(row)
    return Series.of_rows("local_learning_coefficient", trajectory.steps, rows)
