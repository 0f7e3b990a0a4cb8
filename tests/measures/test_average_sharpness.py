"""The measure `average_sharpness` against the trace of a dense Hessian, and radii against a known crossing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from support.memorizing import memorized, rescaled

from grokscope import measures
from grokscope.curvature import Estimate
from grokscope.errors import GrokscopeError
from grokscope.measures.average_sharpness import crossing, skewed_interval

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}


@pytest.fixture(scope="module")
def weights(plant_once) -> dict[str, torch.Tensor]:
    """The parameters of a model that has memorized the train set, in float64."""
    return {name: tensor.double() for name, tensor in memorized(plant_once({0: {}}, **TINY), 40).items()}


def test_small_noise_gives_half_the_variance_times_the_trace(plant, weights):
    """The diagonal of the Hessian is torch's own, over HookedTransformer's forward pass."""
    trajectory = plant({0: weights}, **TINY)
    hooked, train = trajectory.model.hooked_transformer(weights), trajectory.split.train
    w = {name: weights[name] for name in trajectory.model.trained}

    def loss(moved: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = torch.func.functional_call(hooked, moved, (trajectory.task.inputs[train],))[:, -1]
        return F.cross_entropy(logits, trajectory.task.labels[train])

    leaves = {name: tensor.clone().requires_grad_() for name, tensor in w.items()}
    gradient = torch.cat(
        [tensor.flatten() for tensor in torch.autograd.grad(loss(leaves), [*leaves.values()], create_graph=True)]
    )
    flat = torch.cat([tensor.flatten() for tensor in w.values()])
    diagonal = []
    for i in range(len(flat)):
        row = torch.autograd.grad(gradient[i], [*leaves.values()], retain_graph=True, materialize_grads=True)
        diagonal.append(float(torch.cat([tensor.flatten() for tensor in row])[i]))
    diagonal = torch.tensor(diagonal).double()

    sigma = 1e-4
    series = measures.evaluate(
        "average_sharpness",
        trajectory,
        sigma=sigma,
        adaptive_sigma=sigma,
        n_pairs=16,
        tolerance=1e3,
        dtype="float64",
    )
    for prefix, scale in (("", 1.0), ("adaptive_", flat.square())):
        expected = sigma**2 / 2 * float((diagonal * scale).sum())
        rise, stderr = (series[f"{prefix}average_sharpness{end}"][0] for end in ("", "_stderr"))
        assert abs(rise - expected) < 4 * stderr < expected
    assert series["train_loss"][0] == pytest.approx(loss(w).item(), rel=1e-9)


def test_interval_of_symmetric_samples_is_students():
    samples = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0]) + 10
    expected = stats.t.interval(0.95, 5, loc=10, scale=samples.std(ddof=1) / math.sqrt(6))
    np.testing.assert_allclose(skewed_interval(samples), expected, rtol=1e-12)
    assert skewed_interval(np.full(5, 2.0)) == (2.0, 2.0)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_solve_halls_transformation(seed):
    """Hall 1992: g(T) = T + γT²/3 + γ²T³/27 + γ/6n is the quantile over √n at T = (mean − bound)/std."""
    samples = np.random.default_rng(seed).lognormal(0, 1.5, 20) * (1 if seed % 2 else -1)
    n, std = len(samples), samples.std(ddof=1)
    skewness = ((samples - samples.mean()) ** 3).mean() / std**3
    quantile = stats.t.ppf(0.975, n - 1)
    for bound, t in zip(skewed_interval(samples), (quantile, -quantile), strict=True):
        T = (samples.mean() - bound) / std
        transformed = T + skewness * T**2 / 3 + skewness**2 * T**3 / 27 + skewness / (6 * n)
        assert transformed == pytest.approx(t / math.sqrt(n), rel=1e-9)


def test_interval_of_a_heavy_tail_contains_the_mean_more_often():
    """The mean of exp(N(0, 1.5²)) is exp(1.5²/2)."""
    mean = math.exp(1.5**2 / 2)
    draws = np.random.default_rng(0).lognormal(0, 1.5, (1000, 64))
    errors = 2 * draws.std(1, ddof=1) / 8
    by_errors = (np.abs(draws.mean(1) - mean) <= errors).mean()
    intervals = np.array([skewed_interval(draw) for draw in draws])
    by_interval = ((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])).mean()
    assert by_errors < 0.86 and by_interval > 0.89


@pytest.mark.slow
def test_interval_contains_the_mean_of_a_memorized_model(plant):
    """With four pairs, two standard errors contained it for 41 of these 60 seeds."""
    small = {"p": 7, "d_model": 16, "d_mlp": 24}
    trajectory = plant({0: memorized(plant({0: {}}, **small), 300)}, **small)
    options = {"tolerance": 1e3, "n_radius_pairs": 2}
    many = measures.evaluate("average_sharpness", trajectory, n_pairs=6000, seed=1000, **options)
    mean, inside = many["adaptive_average_sharpness"][0], {4: 0, 64: 0}
    assert many["adaptive_average_sharpness_stderr"][0] < 0.05 * mean
    for seed in range(60):
        few = measures.evaluate("average_sharpness", trajectory, n_pairs=4, seed=seed, **options)
        error = 2 * few["adaptive_average_sharpness_stderr"][0]
        inside[4] += abs(few["adaptive_average_sharpness"][0] - mean) <= error
        default = measures.evaluate("average_sharpness", trajectory, seed=seed, **options)
        low, high = default["adaptive_average_sharpness_interval"][0]
        inside[64] += low <= mean <= high
    assert inside[4] <= 45 and inside[64] >= 54


def falling(middle: float, noise: float = 0.0):
    """Return samples whose mean falls from 1 to 0 around σ = middle, where it is ½."""
    return lambda sigma: 1 / (1 + (sigma / middle) ** 2) + noise * np.array([-1.0, -0.5, 0.5, 1.0])


@pytest.mark.parametrize("middle", [1e-4, 0.3, 77.0])
@pytest.mark.parametrize("start", [0.01, 1.0])
def test_crossing_is_within_its_interval_for_any_start(middle, start):
    radius = crossing(falling(middle), 0.5, start=start)
    low, high = radius.interval
    assert low <= middle <= high <= 1.05 * low
    assert radius.value == pytest.approx(middle, rel=1e-3) and radius.stderr == 0


def test_error_of_a_crossing_is_the_curves_error_over_its_slope():
    """At the middle, the derivative of the mean by log σ is −½."""
    noise = 0.02
    radius = crossing(falling(1.0, noise), 0.5, start=0.1)
    expected = Estimate.of(falling(1.0, noise)(1.0)).stderr / 0.5
    assert radius.stderr == pytest.approx(expected, rel=0.15)


def test_curve_without_a_crossing_gets_the_limit():
    never = crossing(lambda sigma: np.ones(4), 0.9, start=0.1)
    assert (never.value, never.stderr, never.interval) == (1000.0, 0.0, (1000.0, 1000.0))
    assert crossing(lambda sigma: np.zeros(4), 0.9, start=0.1).value == 1e-6


def test_a_tenth_of_the_answers_is_lost_at_the_radius(plant, weights):
    """The noise differs from the measure's own."""
    trajectory = plant({0: weights}, **TINY)
    series = measures.evaluate("average_sharpness", trajectory, n_pairs=16, n_radius_pairs=16)
    train, generator = trajectory.split.train, torch.Generator().manual_seed(7)
    assert series["train_accuracy"][0] == 1
    for prefix in ("", "adaptive_"):
        accuracies = []
        for _ in range(60):
            moved = dict(weights)
            for name in trajectory.model.trained:
                noise = torch.randn(weights[name].shape, generator=generator, dtype=torch.float64)
                scale = weights[name].abs() if prefix else 1.0
                moved[name] = weights[name] + series[f"{prefix}perturbation_radius"][0] * scale * noise
            logits = trajectory.model.logits(moved, trajectory.task.inputs[train])
            accuracies.append((logits.argmax(1) == trajectory.task.labels[train]).double().mean().item())
        estimate = Estimate.of(np.array(accuracies))
        accuracy, stderr = estimate.value, estimate.stderr
        assert abs(accuracy - 0.9) < 4 * stderr + 0.02
        assert 0 < series[f"{prefix}perturbation_radius_stderr"][0] < 0.2 * series[f"{prefix}perturbation_radius"][0]


@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_only_the_adaptive_form_is_invariant_to_rescaling(plant, weights, kind):
    before, after = (
        measures.evaluate("average_sharpness", plant({0: parameters}, **TINY), n_pairs=2, dtype="float64", sigma=0.1)
        for parameters in (weights, rescaled(weights, kind))
    )
    for key in ("average_sharpness", "perturbation_radius"):
        assert after[f"adaptive_{key}"] == pytest.approx(before[f"adaptive_{key}"], rel=1e-6)
    assert abs(after["average_sharpness"][0] / before["average_sharpness"][0] - 1) > 1e-3


def test_both_signs_cancel_the_gradients_part_of_the_error(plant):
    """The loss of an untrained network has a slope, which would dominate the error of a single sign."""
    start = plant({0: {}}, **TINY)
    series = measures.evaluate("average_sharpness", start, sigma=1e-5, n_pairs=16, dtype="float64", tolerance=1e3)
    parameters = {name: tensor.double().requires_grad_() for name, tensor in start.first.parameters.items()}
    train = start.split.train
    loss = F.cross_entropy(start.model.logits(parameters, start.task.inputs[train]), start.task.labels[train])
    slope = torch.autograd.grad(loss, [parameters[name] for name in start.model.trained])
    of_one_sign = 1e-5 * math.sqrt(sum(float(tensor.square().sum()) for tensor in slope) / 32)
    assert series["average_sharpness_stderr"][0] < 1e-2 * of_one_sign


@pytest.mark.parametrize(
    "option",
    [
        {"sigma": 0.0},
        {"adaptive_sigma": 1e4},
        {"n_pairs": 1},
        {"n_radius_pairs": 1},
        {"share_kept": 1.0},
        {"tolerance": 0.0},
        {"dtype": "f"},
    ],
)
def test_option_out_of_range_is_rejected_by_name(plant, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("average_sharpness", plant({0: {}}, **TINY), **option)
