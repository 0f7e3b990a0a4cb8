"""Stochastic gradient Langevin dynamics around a point, and the local learning coefficient with its reliability."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import rng
from grokscope.errors import GrokscopeError

Function = Callable[[Float[Tensor, " n"]], tuple[float, Float[Tensor, " n"]]]
"""A function f of a vector that returns f(w) and ∇f(w)."""


@dataclass(frozen=True, eq=False)
class Chains:
    """The values of a function f along Langevin chains that start at w*."""

    at_centre: float
    """f(w*)."""
    values: Float[np.ndarray, "chains draws"]
    """f at every draw after the burn-in."""
    distance: Float[np.ndarray, " chains"]
    """The root mean square of |w − w*| over the draws: how local the coefficient is."""
    acceptance: Float[np.ndarray, " chains"]
    """The mean probability with which Metropolis' rule would accept the steps between draws.

    It is near 1 if the steps are short enough to sample the right density, and near 0 if they are too long.
    """


@dataclass(frozen=True, eq=False)
class LearningCoefficient:
    """An estimate of a local learning coefficient and its reliability."""

    value: float
    stderr: float
    by_chain: Float[np.ndarray, " chains"]
    """The estimate of each chain alone."""
    drift: float
    """The estimate from the second half of the draws minus that from the first half; near 0 at equilibrium."""
    drift_stderr: float
    autocorrelation_time: float
    """The number of draws that are worth one independent draw, averaged over the chains."""
    at_equilibrium: bool
    """Whether the drift is small and the estimate is not negative; see `learning_coefficient`."""


def run_chains(
    function: Function,
    start: Float[Tensor, " n"],
    *,
    n_beta: float,
    lr: float,
    localization: float,
    n_draws: int,
    n_burn_in: int,
    n_chains: int,
    seed: int = 0,
) -> Chains:
    """Run Langevin chains w ← w − ε/2 (nβ ∇f(w) + γ(w − w*)) + √ε ξ from w* = `start`, with ξ standard normal.

    For small ε the chains sample the density exp(−nβ f(w) − γ/2 |w − w*|²). devinterp's sampler takes the steps. Each
    chain has a random generator that is a function of (seed, chain), and no global generator is used. The cost is
    n_chains · (n_burn_in + n_draws) gradients.

    Args:
        function: Returns f(w) and ∇f(w) over all data. The noise of a minibatch gradient would raise the temperature.
        start: The point w* at which every chain starts.
        n_beta: nβ, the number of examples times the inverse temperature, above 0.
        lr: The step size ε, above 0.
        localization: The strength γ of the pull towards w*, from 0.
        n_draws: The number of draws per chain, from 4.
        n_burn_in: The number of steps before the first draw, from 0.
        n_chains: The number of chains, from 2, because the estimate has a standard error.
        seed: The seed of the chains.

    Raises:
        GrokscopeError: devinterp is not installed, an option is out of range, or f is not finite along a chain, which
            a much too large ε causes.

    References:
        Lau et al. 2023.
    """
    faults = [
        f"{name}: {value}. Allowed: {allowed}."
        for name, value, allowed, is_allowed in (
            ("n_beta", n_beta, "above 0", 0 < n_beta < math.inf),
            ("lr", lr, "above 0", 0 < lr < math.inf),
            ("localization", localization, "from 0", 0 <= localization < math.inf),
            ("n_draws", n_draws, "from 4", n_draws >= 4),
            ("n_burn_in", n_burn_in, "from 0", n_burn_in >= 0),
            ("n_chains", n_chains, "from 2, because the estimate has a standard error", n_chains >= 2),
        )
        if not is_allowed
    ]
    if faults:
        raise GrokscopeError(" ".join(faults))
    SGMCMC = _import_sampler()
    at_centre, values = math.nan, np.empty((n_chains, n_draws))
    distance, acceptance = np.empty(n_chains), np.empty(n_chains)
    for chain in range(n_chains):
        generator = rng.generator("sgld", seed, chain)
        w = start.clone()
        optimizer = SGMCMC.sgld([w], lr=lr, nbeta=n_beta, localization=localization)
        previous, squares, probabilities = None, [], []
        for i in range(-n_burn_in, n_draws):
            value, gradient = function(w)
            if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
                raise GrokscopeError(
                    f"The loss is not finite after {i + n_burn_in} steps of a Langevin chain. Use an lr below {lr}."
                )
            displacement = w - start
            square = float(displacement.double().square().sum())
            energy = n_beta * value + localization / 2 * square
            slope = n_beta * gradient + localization * displacement
            if i == -n_burn_in:
                at_centre = value
            if i >= 0:
                values[chain, i] = value
                squares.append(square)
            if previous is not None and i >= 0:
                probabilities.append(_acceptance_probability(previous, (w, energy, slope), lr))
            previous = w.clone(), energy, slope
            w.grad = gradient
            optimizer.step(noise_generator=generator)
        distance[chain], acceptance[chain] = math.sqrt(np.mean(squares)), np.mean(probabilities)
    return Chains(at_centre, values, distance, acceptance)


def learning_coefficient(chains: Chains, n_beta: float) -> LearningCoefficient:
    """Return λ̂ = nβ (mean f − f(w*)) over the draws of all chains, and whether the chains are at equilibrium.

    - The standard error is the larger of two estimates. The first is the standard error of the mean over chains; it
      includes any correlation within a chain, but is rough for few chains. The second is that of all draws, counted
      as their number divided by their autocorrelation time.
    - Chains are at equilibrium if λ̂ ≥ 0 and the drift is within three of its standard errors or within a twentieth of
      λ̂. The twentieth allows for chains that start together and therefore agree with each other too well.
    - The criterion is necessary, not sufficient: slow chains can look settled before they have explored the density.

    Args:
        chains: The chains, from `run_chains`.
        n_beta: The nβ of the chains.

    References:
        Lau et al. 2023.
    """
    scaled = n_beta * (chains.values - chains.at_centre)
    by_chain = scaled.mean(1)
    times = np.array([autocorrelation_time(values) for values in scaled])
    value, half = float(by_chain.mean()), scaled.shape[1] // 2
    first, second = scaled[:, :half], scaled[:, -half:]
    drift = float(second.mean() - first.mean())
    drift_stderr = math.hypot(_stderr_of_mean(first, times), _stderr_of_mean(second, times))
    at_equilibrium = value >= 0 and abs(drift) <= max(3 * drift_stderr, abs(value) / 20)
    return LearningCoefficient(
        value, _stderr_of_mean(scaled, times), by_chain, drift, drift_stderr, float(times.mean()), at_equilibrium
    )


def autocorrelation_time(values: Float[np.ndarray, " draws"]) -> float:
    """Return the integrated autocorrelation time τ = 1 + 2 Σ ρ(t): the mean of n values has variance τ/n · var.

    The sum ends at the first window M ≥ 5 τ(M), because later terms are mostly noise. For positive correlations this
    is `emcee.autocorr.integrated_time` up to rounding. emcee returns NaN for constant values and values below 1 for
    negative correlations; here both are 1, which never makes a standard error too small.

    Args:
        values: A stationary sequence. The result is too small for fewer than about 50 τ values.

    References:
        Sokal 1997, section 3.
    """
    centred = values - values.mean()
    n = len(centred)
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:n] / n
    if covariance[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    windows = np.flatnonzero(np.arange(n) >= 5 * times)
    return max(float(times[windows[0] if len(windows) else -1]), 1.0)


def _stderr_of_mean(values: Float[np.ndarray, "chains draws"], times: Float[np.ndarray, " chains"]) -> float:
    """Return the standard error of the mean of all draws, the larger of the two in `learning_coefficient`."""
    n_chains, n_draws = values.shape
    between = values.mean(1).std(ddof=1) / math.sqrt(n_chains)
    within = math.sqrt(float((values.var(1) * np.minimum(times, n_draws)).sum()) / n_draws) / n_chains
    return max(float(between), within)


def _acceptance_probability(
    before: tuple[Tensor, float, Tensor], after: tuple[Tensor, float, Tensor], lr: float
) -> float:
    """Return min(1, p(w′) q(w | w′) / (p(w) q(w′ | w))) of a step w → w′ (Roberts and Tweedie 1996)."""
    (w, energy, slope), (w_after, energy_after, slope_after) = before, after
    forward = (w_after - w + lr / 2 * slope).double().square().sum()
    backward = (w - w_after + lr / 2 * slope_after).double().square().sum()
    return math.exp(min(0.0, energy - energy_after + float(forward - backward) / (2 * lr)))


def _import_sampler():
    """Return devinterp's sampler class."""
    try:
        from devinterp.optim import SGMCMC
    except ImportError as error:
        raise GrokscopeError(
            "devinterp is not installed; the local learning coefficient needs it. Run: pip install 'grokscope[llc]'"
        ) from error
    return SGMCMC
