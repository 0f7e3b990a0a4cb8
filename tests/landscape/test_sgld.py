"""Langevin chains against closed forms, quadrature and known autoregressions, and chains that are not settled."""

import math
import sys

import numpy as np
import pytest
import torch

from grokscope.errors import GrokscopeError
from grokscope.landscape import sgld

N_BETA = 100.0
COPIES = 200


def quadratic(h: torch.Tensor):
    """Return the function ½ Σ h w² with its gradient."""
    return lambda w: (float((h * w.square()).sum() / 2), h * w)


def with_gradient(f):
    """Return a function with its gradient by autograd."""

    def value_and_gradient(w: torch.Tensor):
        with torch.enable_grad():
            leaf = w.detach().requires_grad_()
            value = f(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient

    return value_and_gradient


def chains(function, d: int, **options) -> sgld.Chains:
    """Return chains that start at zero in d dimensions."""
    options = {"lr": 1e-3, "localization": 10.0, "n_draws": 300, "n_burn_in": 400, "n_chains": 3, **options}
    return sgld.run_chains(function, torch.zeros(d, dtype=torch.float64), n_beta=N_BETA, **options)


def autoregression(rho: float, noise: np.ndarray) -> np.ndarray:
    """Return x_t = ρ x_(t−1) + noise_t along the last axis, from x_0 = noise_0."""
    x = noise.copy()
    for t in range(1, x.shape[-1]):
        x[..., t] = rho * x[..., t - 1] + noise[..., t]
    return x


def test_regular_minimum_has_half_a_unit_per_direction():
    """Euler's step divides the variance of a Gaussian with precision k by 1 − εk/4, so the answer is exact."""
    h = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64).repeat(COPIES)
    k = N_BETA * h + 10
    narrowing = 1 - 1e-3 * k / 4
    expected = float((N_BETA * h / (2 * k * narrowing)).sum())
    assert expected == pytest.approx(2.5 * COPIES, rel=0.05), "a half for each of five curved directions"
    drawn = chains(quadratic(h), len(h))
    coefficient = sgld.learning_coefficient(drawn, N_BETA)
    assert abs(coefficient.value - expected) < 3 * coefficient.stderr < 0.03 * expected
    assert coefficient.at_equilibrium
    assert drawn.distance == pytest.approx([math.sqrt(float((1 / (k * narrowing)).sum()))] * 3, rel=0.05)


@pytest.mark.parametrize(
    ("f", "theory"),
    [
        (lambda x, y: x**2 * y**2, 0.5),
        (lambda x, y: x**4 + 0 * y, 0.25),
        (lambda x, y: (x * y) ** 2 * (1 + x**2), 0.5),
    ],
    ids=["normal crossing", "fourth power", "crossing with a factor"],
)
def test_singular_minimum_has_the_value_of_quadrature(f, theory):
    """A regular minimum in two dimensions would have 1. At finite nβ and γ the value is not yet the theory's.

    The function is a sum over many copies, whose coefficients add, because few draws measure a large sum well.
    """
    side = np.linspace(-3, 3, 1501)
    x, y = np.meshgrid(side, side)
    weight = np.exp(-N_BETA * f(x, y) - 5.0 * (x**2 + y**2))
    expected = float((N_BETA * f(x, y) * weight).sum() / weight.sum())
    assert expected < theory + 0.01, "the multiplicity and the localization lower the value"
    function = with_gradient(lambda w: f(*w.unflatten(0, (2, COPIES))).sum())
    coefficient = sgld.learning_coefficient(chains(function, 2 * COPIES), N_BETA)
    assert abs(coefficient.value / COPIES - expected) < 3 * coefficient.stderr / COPIES + 0.02 * expected
    assert coefficient.stderr < 0.05 * coefficient.value and coefficient.at_equilibrium


def test_short_chains_without_burn_in_are_reported():
    """All chains start at w*, where the loss is least. The control is a longer run."""
    h = torch.full((200,), 0.5, dtype=torch.float64)
    expected = float((N_BETA * h / (2 * (N_BETA * h + 10))).sum())
    short = sgld.learning_coefficient(chains(quadratic(h), 200, n_burn_in=0, n_draws=30), N_BETA)
    assert short.value < expected - 5 * short.stderr and not short.at_equilibrium and short.drift > 0
    settled = sgld.learning_coefficient(chains(quadratic(h), 200), N_BETA)
    assert settled.value == pytest.approx(expected, rel=0.05) and settled.at_equilibrium


def test_centre_that_is_not_a_minimum_has_a_negative_value():
    function = with_gradient(lambda w: (w - 1).square().sum())
    coefficient = sgld.learning_coefficient(chains(function, 2, n_burn_in=20, n_draws=60), N_BETA)
    assert coefficient.value < 0 and not coefficient.at_equilibrium


def test_long_steps_lower_acceptance_or_are_refused():
    h = torch.tensor([1.0], dtype=torch.float64)
    acceptance = [
        chains(quadratic(h), 1, lr=lr, n_draws=200, n_burn_in=0).acceptance.mean() for lr in (1e-4, 1e-2, 3e-2)
    ]
    assert acceptance[0] > 0.999 and acceptance[0] > acceptance[1] > acceptance[2] and acceptance[2] < 0.8
    with pytest.raises(GrokscopeError, match="not finite after .* Use an lr below 10"):
        chains(quadratic(h), 1, lr=10.0)


def test_acceptance_is_metropolis_ratio_of_densities():
    """The reference writes out the two Gaussian densities of the proposals."""
    h, lr, gamma = torch.tensor([3.0], dtype=torch.float64), 1e-2, 10.0
    function, start = quadratic(h), torch.zeros(1, dtype=torch.float64)
    visited: list[float] = []

    def recording(w: torch.Tensor):
        visited.append(float(w))
        return function(w)

    options = {"n_beta": N_BETA, "lr": lr, "localization": gamma, "n_draws": 50, "n_burn_in": 0, "n_chains": 2}
    drawn = sgld.run_chains(recording, start, **options)
    k = N_BETA * 3 + gamma

    def density(x: float, mean: float) -> float:
        return math.exp(-((x - mean) ** 2) / (2 * lr)) / math.sqrt(2 * math.pi * lr)

    ratios = []
    for a, b in zip(visited[:49], visited[1:50], strict=True):
        p = math.exp(-k * b**2 / 2) / math.exp(-k * a**2 / 2)
        q = density(a, b - lr / 2 * k * b) / density(b, a - lr / 2 * k * a)
        ratios.append(min(1.0, p * q))
    assert drawn.acceptance[0] == pytest.approx(np.mean(ratios), rel=1e-9)


def test_standard_error_is_the_spread_of_repetitions():
    """The chains are autoregressions, whose mean and autocorrelation are known."""
    generator = np.random.Generator(np.random.Philox(0))
    rho, ones = 0.8, np.ones(3)
    noise = generator.standard_normal((200, 3, 400))
    noise[..., 0] /= math.sqrt(1 - rho**2)
    repetitions = 10 + autoregression(rho, noise)

    def coefficients(drift: np.ndarray | float) -> list[sgld.LearningCoefficient]:
        return [
            sgld.learning_coefficient(sgld.Chains(0.0, values + drift, ones, ones), 1.0) for values in repetitions
        ]

    stationary = coefficients(0.0)
    standardised = np.array([(coefficient.value - 10) / coefficient.stderr for coefficient in stationary])
    assert abs(standardised.mean()) < 0.2 and 0.7 < standardised.std() < 1.1
    assert np.mean([coefficient.at_equilibrium for coefficient in stationary]) > 0.97
    drifting = coefficients(np.linspace(-3, 3, 400))
    assert np.mean([coefficient.at_equilibrium for coefficient in drifting]) < 0.05


def test_autocorrelation_time_is_that_of_an_autoregression():
    """For x_t = ρ x_(t−1) + noise it is (1 + ρ)/(1 − ρ)."""
    generator = np.random.Generator(np.random.Philox(0))
    for rho, expected in ((0.0, 1.0), (0.5, 3.0), (0.9, 19.0)):
        noise = generator.standard_normal(40_000)
        noise[0] = 0
        assert sgld.autocorrelation_time(autoregression(rho, noise)) == pytest.approx(expected, rel=0.15)
    assert sgld.autocorrelation_time(np.ones(10)) == 1.0


def test_chains_are_functions_of_seed_and_number():
    h = torch.tensor([1.0], dtype=torch.float64)
    first, repeated, other_seed = (
        chains(quadratic(h), 1, n_draws=20, n_burn_in=0, seed=seed).values for seed in (0, 0, 1)
    )
    assert first.tobytes() == repeated.tobytes() and not np.allclose(first, other_seed)
    assert not np.allclose(first[0], first[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr: 0.0. Allowed: above 0"),
        ({"localization": -1.0}, "localization: -1.0. Allowed: from 0"),
        ({"n_chains": 1}, "n_chains: 1. Allowed: from 2"),
        ({"n_draws": 3, "n_burn_in": -1}, "n_draws: 3. .*n_burn_in: -1"),
    ],
)
def test_chain_options_out_of_range_are_refused(options, message):
    with pytest.raises(GrokscopeError, match=message):
        chains(quadratic(torch.ones(1, dtype=torch.float64)), 1, **options)


def test_missing_devinterp_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "devinterp.optim", None)
    with pytest.raises(GrokscopeError, match=r"pip install 'grokscope\[llc\]'"):
        chains(quadratic(torch.ones(1, dtype=torch.float64)), 1)
