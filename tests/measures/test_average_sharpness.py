"""The measure `average_sharpness` against the trace of a dense Hessian, and radii against a known crossing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.memorizing import memorized, rescaled

from grokscope import measures
from grokscope.curvature import Estimate
from grokscope.errors import GrokscopeError
from grokscope.measures.average_sharpness import crossing

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
    series = measures.evaluate("average_sharpness", trajectory, n_pairs=16)
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
        {"share_kept": 1.0},
        {"tolerance": 0.0},
        {"dtype": "f"},
    ],
)
def test_option_out_of_range_is_rejected_by_name(plant, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("average_sharpness", plant({0: {}}, **TINY), **option)
