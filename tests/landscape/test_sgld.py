"""Langevin chains against closed forms: a quadratic, singular toys by quadrature, and controls that are not right."""

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
    """Return ½ Σ h w² and its gradient."""
    return lambda w: (float((h * w.square()).sum() / 2), h * w)


def polynomial(f):
    """Return a function of w with its gradient by autograd."""

    def both(w: torch.Tensor):
        with torch.enable_grad():
            leaf = w.detach().requires_grad_()
            value = f(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient

    return both


def chains(function, d: int, **options) -> sgld.Chains:
    given = {"lr": 1e-3, "localization": 10.0, "n_draws": 300, "n_burn_in": 400, "n_chains": 3, **options}
    return sgld.sgld(function, torch.zeros(d, dtype=torch.float64), n_beta=N_BETA, **given)


def test_a_regular_minimum_has_half_of_each_direction_that_the_localization_leaves_it():
    """Euler's step widens a Gaussian of precision k by 1/(1 − εk/4) exactly, so the answer is exact at any ε."""
    h = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64).repeat(COPIES)
    k = N_BETA * h + 10
    wider = 1 - 1e-3 * k / 4
    expected = float((N_BETA * h / (2 * k * wider)).sum())
    assert expected == pytest.approx(2.5 * COPIES, rel=0.05), "half of the five curved directions of each"
    drawn = chains(quadratic(h), len(h))
    found = sgld.coefficient(drawn, N_BETA)
    assert abs(found.value - expected) < 3 * found.stderr < 0.03 * expected
    assert found.at_equilibrium
    assert drawn.distance == pytest.approx([math.sqrt(float((1 / (k * wider)).sum()))] * 3, rel=0.05)


@pytest.mark.parametrize(
    ("f", "theory"),
    [
        (lambda x, y: x**2 * y**2, 0.5),
        (lambda x, y: x**4 + 0 * y, 0.25),
        (lambda x, y: (x * y) ** 2 * (1 + x**2), 0.5),
    ],
    ids=["normal crossing", "fourth power", "crossing with more"],
)
def test_a_singular_minimum_has_less_than_half_a_dimension_as_quadrature_says(f, theory):
    """A regular one in two dimensions would have 1. At finite nβ and γ the coefficient is not yet the theory's.

    Many copies side by side are one function whose coefficient is the sum, which few draws tell well.
    """
    side = np.linspace(-3, 3, 1501)
    x, y = np.meshgrid(side, side)
    weight = np.exp(-N_BETA * f(x, y) - 5.0 * (x**2 + y**2))
    expected = float((N_BETA * f(x, y) * weight).sum() / weight.sum())
    assert expected < theory + 0.01, "it comes from below: the multiplicity and the localization take from it"
    function = polynomial(lambda w: f(*w.unflatten(0, (2, COPIES))).sum())
    found = sgld.coefficient(chains(function, 2 * COPIES), N_BETA)
    assert abs(found.value / COPIES - expected) < 3 * found.stderr / COPIES + 0.02 * expected
    assert found.stderr < 0.05 * found.value and found.at_equilibrium


def test_without_burn_in_short_chains_fall_short_and_are_told_so():
    """The control: all begin at w*, where the loss is least."""
    h = torch.full((200,), 0.5, dtype=torch.float64)
    k = N_BETA * h + 10
    expected = float((N_BETA * h / (2 * k)).sum())
    short = sgld.coefficient(chains(quadratic(h), 200, n_burn_in=0, n_draws=30), N_BETA)
    assert short.value < expected - 5 * short.stderr and not short.at_equilibrium and short.drift > 0
    settled = sgld.coefficient(chains(quadratic(h), 200), N_BETA)
    assert settled.value == pytest.approx(expected, rel=0.05) and settled.at_equilibrium


def test_where_the_centre_is_no_minimum_the_coefficient_is_negative_and_no_equilibrium():
    away = polynomial(lambda w: (w - 1).square().sum())
    found = sgld.coefficient(chains(away, 2, n_burn_in=20, n_draws=60), N_BETA)
    assert found.value < 0 and not found.at_equilibrium


def test_a_step_that_is_too_long_is_seen_in_the_acceptance_and_one_far_too_long_is_refused():
    h = torch.tensor([1.0], dtype=torch.float64)
    acceptance = [
        chains(quadratic(h), 1, lr=lr, n_draws=200, n_burn_in=0).acceptance.mean() for lr in (1e-4, 1e-2, 3e-2)
    ]
    assert acceptance[0] > 0.999 and acceptance[0] > acceptance[1] > acceptance[2] and acceptance[2] < 0.8
    with pytest.raises(GrokscopeError, match="not finite after .* take an lr below 10"):
        chains(quadratic(h), 1, lr=10.0)


def test_the_acceptance_is_metropolis_ratio_of_densities():
    """One step by hand, the two Gaussian densities of the proposals written out."""
    h, lr, gamma = torch.tensor([3.0], dtype=torch.float64), 1e-2, 10.0
    function, start = quadratic(h), torch.zeros(1, dtype=torch.float64)
    seen: list[float] = []

    def recording(w: torch.Tensor):
        seen.append(float(w))
        return function(w)

    found = sgld.sgld(recording, start, n_beta=N_BETA, lr=lr, localization=gamma, n_draws=50, n_burn_in=0, n_chains=2)
    k = N_BETA * 3 + gamma

    def density(x: float, mean: float) -> float:
        return math.exp(-((x - mean) ** 2) / (2 * lr)) / math.sqrt(2 * math.pi * lr)

    ratios = []
    for a, b in zip(seen[:49], seen[1:50], strict=True):
        p = math.exp(-k * b**2 / 2) / math.exp(-k * a**2 / 2)
        q = density(a, b - lr / 2 * k * b) / density(b, a - lr / 2 * k * a)
        ratios.append(min(1.0, p * q))
    assert found.acceptance[0] == pytest.approx(np.mean(ratios), rel=1e-9)


def test_the_standard_error_is_the_spread_of_repetitions():
    """Of autoregressions, whose mean and autocorrelation are known, drawn many times."""
    generator = np.random.Generator(np.random.Philox(0))
    rho, n_sets = 0.8, 200
    x = np.zeros((n_sets, 3, 400))
    noise = generator.standard_normal(x.shape)
    x[..., 0] = noise[..., 0] / math.sqrt(1 - rho**2)
    for i in range(1, x.shape[-1]):
        x[..., i] = rho * x[..., i - 1] + noise[..., i]
    ones = np.ones(3)
    found = [sgld.coefficient(sgld.Chains(0.0, 10 + one, ones, ones), 1.0) for one in x]
    standardised = np.array([(one.value - 10) / one.stderr for one in found])
    assert abs(standardised.mean()) < 0.2 and 0.7 < standardised.std() < 1.1
    assert np.mean([one.at_equilibrium for one in found]) > 0.97
    drifting = [sgld.coefficient(sgld.Chains(0.0, 10 + one + np.linspace(-3, 3, 400), ones, ones), 1.0) for one in x]
    assert np.mean([one.at_equilibrium for one in drifting]) < 0.05


def test_the_autocorrelation_time_is_that_of_an_autoregression():
    """Of x ← ρ x + noise it is (1 + ρ)/(1 − ρ)."""
    generator = np.random.Generator(np.random.Philox(0))
    for rho, expected in ((0.0, 1.0), (0.5, 3.0), (0.9, 19.0)):
        x = np.zeros(40_000)
        noise = generator.standard_normal(len(x))
        for i in range(1, len(x)):
            x[i] = rho * x[i - 1] + noise[i]
        assert sgld.autocorrelation_time(x) == pytest.approx(expected, rel=0.15)
    assert sgld.autocorrelation_time(np.ones(10)) == 1.0


def test_chains_are_a_function_of_the_seed_and_differ_from_each_other():
    h = torch.tensor([1.0], dtype=torch.float64)
    one, same, other = (chains(quadratic(h), 1, n_draws=20, n_burn_in=0, seed=seed).values for seed in (0, 0, 1))
    assert one.tobytes() == same.tobytes() and not np.allclose(one, other)
    assert not np.allclose(one[0], one[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 0.0}, "lr: 0.0, allowed: above 0"),
        ({"localization": -1.0}, "localization: -1.0, allowed: from 0"),
        ({"n_chains": 1}, "n_chains: 1, allowed: from 2"),
        ({"n_draws": 3, "n_burn_in": -1}, "n_draws: 3, .*n_burn_in: -1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, said):
    with pytest.raises(GrokscopeError, match=said):
        chains(quadratic(torch.ones(1, dtype=torch.float64)), 1, **options)


def test_without_devinterp_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "devinterp.optim", None)
    with pytest.raises(GrokscopeError, match=r"pip install 'grokscope\[llc\]'"):
        chains(quadratic(torch.ones(1, dtype=torch.float64)), 1)
