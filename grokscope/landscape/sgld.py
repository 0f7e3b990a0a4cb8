"""Langevin chains: samples around a point of a function, and what tells whether they are at equilibrium."""

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


@dataclass(frozen=True, eq=False)
class Chains:
    """Values of a function along Langevin chains."""

    at_centre: float
    """f(w*), where every chain begins."""
    values: Float[np.ndarray, "chains draws"]
    """f at every draw, those of the burn-in left out."""
    distance: Float[np.ndarray, " chains"]
    """The root mean square of the draws' distance |w − w*|: how local the local coefficient is."""
    acceptance: Float[np.ndarray, " chains"]
    """The mean probability with which Metropolis' rule would have taken the draws' steps: 1 where the steps are so
    short that they sample exactly, near 0 where they are too long."""


@dataclass(frozen=True, eq=False)
class Coefficient:
    """A local learning coefficient with what it is worth."""

    value: float
    stderr: float
    by_chain: Float[np.ndarray, " chains"]
    drift: float
    """The estimate of the draws' second half less that of the first; 0 at equilibrium, but for chance."""
    drift_stderr: float
    autocorrelation_time: float
    """In draws, the mean over the chains: so many draws are worth an independent one."""
    at_equilibrium: bool


def sgld(
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
    """Run chains w ← w − ε/2 (nβ ∇f(w) + γ(w − w*)) + √ε ξ, ξ standard normal, from w* = `start` (Lau et al. 2023).

    ε is `lr`, γ the `localization`; for small ε they sample exp(−nβ f(w) − γ/2 |w − w*|²). `function` gives f and its
    gradient, over all data: of minibatches the gradient's noise would be a part of the temperature. devinterp's
    sampler takes the steps, with a generator for each chain, a function of (seed, chain); no global one is touched.
    Each of the chains costs n_burn_in + n_draws gradients. Raise GrokscopeError if devinterp is not installed, for an
    option out of range, and where f is not finite, as where ε is far too large.
    """
    faults = [
        f"{name}: {value}, allowed: {allowed}"
        for name, value, allowed, fits in (
            ("n_beta", n_beta, "above 0", 0 < n_beta < math.inf),
            ("lr", lr, "above 0", 0 < lr < math.inf),
            ("localization", localization, "from 0", 0 <= localization < math.inf),
            ("n_draws", n_draws, "from 4", n_draws >= 4),
            ("n_burn_in", n_burn_in, "from 0", n_burn_in >= 0),
            ("n_chains", n_chains, "from 2, or there is no standard error", n_chains >= 2),
        )
        if not fits
    ]
    if faults:
        raise GrokscopeError("; ".join(faults) + ".")
    SGMCMC = _sampler()
    at_centre, values = math.nan, np.empty((n_chains, n_draws))
    distance, acceptance = np.empty(n_chains), np.empty(n_chains)
    for chain in range(n_chains):
        generator = rng.generator("sgld", seed, chain)
        w = start.clone()
        optimizer = SGMCMC.sgld([w], lr=lr, nbeta=n_beta, localization=localization)
        before, squares, probabilities = None, [], []
        for i in range(-n_burn_in, n_draws):
            value, gradient = function(w)
            if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
                raise GrokscopeError(
                    f"The loss is not finite after {i + n_burn_in} steps of a Langevin chain; take an lr below {lr}."
                )
            away = w - start
            square = float(away.double().square().sum())
            energy = n_beta * value + localization / 2 * square
            slope = n_beta * gradient + localization * away
            if i == -n_burn_in:
                at_centre = value
            if i >= 0:
                values[chain, i] = value
                squares.append(square)
            if before is not None and i >= 0:
                probabilities.append(_acceptance(before, (w, energy, slope), lr))
            before = w.clone(), energy, slope
            w.grad = gradient
            optimizer.step(noise_generator=generator)
        distance[chain], acceptance[chain] = math.sqrt(np.mean(squares)), np.mean(probabilities)
    return Chains(at_centre, values, distance, acceptance)


def coefficient(chains: Chains, n_beta: float) -> Coefficient:
    """Return λ̂ = nβ (mean f − f(w*)) over the draws of all chains, and whether the chains have settled.

    The standard error is the larger of two: that of the mean over chains, which need not know of a correlation, but
    is itself rough where chains are few; and that of all draws, as many as there are over their autocorrelation
    time. Chains are at equilibrium unless λ̂ < 0 or the drift is both beyond three of its standard errors and a
    twentieth of λ̂ (chains that began together are far more alike than they are right). Equilibrium is necessary:
    slow chains can hide that they have seen little.
    """
    scaled = n_beta * (chains.values - chains.at_centre)
    by_chain = scaled.mean(1)
    n_chains, n_draws = scaled.shape
    times = np.array([autocorrelation_time(one) for one in scaled])
    value, half = float(by_chain.mean()), n_draws // 2
    stderr = _stderr(scaled, times)
    halves = scaled[:, :half], scaled[:, -half:]
    drift = float(halves[1].mean() - halves[0].mean())
    drift_stderr = math.hypot(*(_stderr(one, times) for one in halves))
    settled = value >= 0 and abs(drift) <= max(3 * drift_stderr, abs(value) / 20)
    return Coefficient(value, stderr, by_chain, drift, drift_stderr, float(times.mean()), settled)


def autocorrelation_time(values: Float[np.ndarray, " draws"]) -> float:
    """Return τ = 1 + 2 Σ ρ(t): the variance of the mean of a stationary sequence is τ/n of that of one value.

    The sum ends at the first window M ≥ 5 τ(M) (Sokal 1997, section 3): beyond it there is only noise. 1 for
    independent values and for constant ones. A sequence shorter than about 50 τ gives too small a number.
    """
    centred = values - values.mean()
    n = len(centred)
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:n] / n
    if covariance[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    window = np.flatnonzero(np.arange(n) >= 5 * times)
    return max(float(times[window[0] if len(window) else -1]), 1.0)


def _stderr(values: Float[np.ndarray, "chains draws"], times: Float[np.ndarray, " chains"]) -> float:
    """Return the standard error of the mean of all draws, the larger of the two that `coefficient` names."""
    n_chains, n_draws = values.shape
    between = values.mean(1).std(ddof=1) / math.sqrt(n_chains)
    within = math.sqrt(float((values.var(1) * np.minimum(times, n_draws)).sum()) / n_draws) / n_chains
    return max(float(between), within)


def _acceptance(before: tuple[Tensor, float, Tensor], after: tuple[Tensor, float, Tensor], lr: float) -> float:
    """Return min(1, p(w′) q(w | w′) / (p(w) q(w′ | w))) of a step w → w′ (Roberts and Tweedie 1996)."""
    (w, energy, slope), (w_after, energy_after, slope_after) = before, after
    there = (w_after - w + lr / 2 * slope).double().square().sum()
    back = (w - w_after + lr / 2 * slope_after).double().square().sum()
    return math.exp(min(0.0, energy - energy_after + float(there - back) / (2 * lr)))


def _sampler():
    try:
        from devinterp.optim import SGMCMC
    except ImportError as error:
        raise GrokscopeError(
            "The local learning coefficient needs devinterp, which is not installed: pip install 'grokscope[llc]'."
        ) from error
    return SGMCMC
