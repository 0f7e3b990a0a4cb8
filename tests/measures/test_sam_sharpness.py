"""The measure `sam_sharpness` against the closed form of a quadratic in a ball, and its invariances.

The largest value of g·e + eᵀHe/2 for ‖e‖ ≤ ρ is at (μ − H) e = g with μ above every eigenvalue and ‖e(μ)‖ = ρ (the
secular equation; Moré and Sorensen 1983), or at −H⁻¹g if that is a maximum inside the ball.
"""

from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from support.memorizing import memorized, rescaled

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures.sam_sharpness import largest_in_ball

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}
N = 20


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(g: torch.Tensor, H: torch.Tensor):
    """Return g·e + eᵀHe/2 with its gradient."""
    return lambda e: (float(g @ e + e @ H @ e / 2), g + H @ e)


def largest(g: torch.Tensor, H: torch.Tensor, radius: float) -> float:
    """Return the largest value of the quadratic in a ball, by the secular equation."""
    eigenvalues, Q = torch.linalg.eigh(H)
    b = Q.T @ g

    def at(mu: Any) -> torch.Tensor:
        return b / (mu - eigenvalues)

    top = max(float(eigenvalues[-1]), 0.0)
    inside = float(eigenvalues[-1]) < 0 and float(at(0.0).norm()) <= radius
    e = at(0.0) if inside else at(brentq(lambda mu: float(at(mu).norm()) - radius, top + 1e-9, top + 1e6))
    return float(b @ e + (eigenvalues * e.square()).sum() / 2)


KINDS = {
    "convex": lambda B: B @ B.T,
    "indefinite": lambda B: B + B.T,
    "concave": lambda B: -B @ B.T - torch.eye(N),
}


@pytest.mark.parametrize("radius", [0.1, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_maximum_of_a_quadratic_solves_the_secular_equation(kind, radius):
    H, g = KINDS[kind](random(N, N)), random(N, seed=1)
    maximum = largest_in_ball(quadratic(g, H), torch.zeros(N).double(), radius=radius, n_iterations=800)
    assert maximum.value == pytest.approx(largest(g, H, radius), rel=1e-6)
    assert maximum.point.norm() <= radius * (1 + 1e-12)
    assert maximum.residual > -1e-12 and maximum.residual < 1e-3 * maximum.value


def test_elliptic_ball_is_a_ball_in_stretched_axes():
    H, g, scale = KINDS["convex"](random(N, N)), random(N, seed=1), random(N, seed=2).abs()
    maximum = largest_in_ball(quadratic(g, H), torch.zeros(N).double(), radius=0.5, scale=scale, n_iterations=400)
    assert maximum.value == pytest.approx(largest(scale * g, scale[:, None] * H * scale, 0.5), rel=1e-8)
    assert (maximum.point / scale).norm() <= 0.5 * (1 + 1e-12)


def test_first_point_is_the_step_of_sam_and_of_asam():
    g, H, x = random(N, seed=1), random(N, N), random(N, seed=3)
    f = quadratic(g, H + H.T)
    gradient = f(x)[1]
    maximum = largest_in_ball(f, x, radius=0.3, n_iterations=1)
    assert maximum.first == pytest.approx(f(x + 0.3 * gradient / gradient.norm())[0], rel=1e-12)
    maximum = largest_in_ball(f, x, radius=0.3, scale=x.abs(), n_iterations=1)
    assert maximum.first == pytest.approx(f(x + 0.3 * x**2 * gradient / (x * gradient).norm())[0], rel=1e-12)


def test_random_start_finds_the_steepest_side_of_a_bowl():
    H = KINDS["convex"](random(N, N))
    bowl, x = quadratic(torch.zeros(N).double(), H), torch.zeros(N).double()
    assert largest_in_ball(bowl, x, radius=0.1).value == 0
    start = random(N, seed=5)
    maximum = largest_in_ball(bowl, x, radius=0.1, n_iterations=600, start=start / start.norm())
    assert maximum.value == pytest.approx(0.01 * float(torch.linalg.eigvalsh(H)[-1]) / 2, rel=1e-8)


def test_zero_scale_is_fixed_and_value_not_below_the_centre():
    peak = quadratic(torch.zeros(N).double(), -torch.eye(N).double())
    start = torch.eye(N).double()[0]
    assert largest_in_ball(peak, torch.zeros(N).double(), radius=1.0, start=start, n_iterations=1).value == 0
    fixed = largest_in_ball(quadratic(random(N), torch.eye(N).double()), random(N), radius=1.0, scale=torch.zeros(N))
    assert fixed.value == fixed.at_centre and not fixed.point.any() and fixed.residual == 0


def test_function_that_is_not_finite_is_rejected():
    with pytest.raises(GrokscopeError, match="not finite"):
        largest_in_ball(lambda x: (float("nan"), x), random(N), radius=1.0)


@pytest.fixture(scope="module")
def weights(plant_once) -> dict[str, torch.Tensor]:
    """The parameters of a model that has memorized the train set, in float64."""
    return {name: tensor.double() for name, tensor in memorized(plant_once({0: {}}, **TINY), 40).items()}


@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_only_the_adaptive_form_is_invariant_to_rescaling(plant, weights, kind):
    before, after = (
        measures.evaluate(
            "sam_sharpness", plant({0: parameters}, **TINY), n_starts=1, n_iterations=4, dtype="float64"
        )
        for parameters in (weights, rescaled(weights, kind))
    )
    assert after["train_loss"] == pytest.approx(before["train_loss"], rel=1e-9), "the function is the same"
    for key in ("sam_sharpness", "sam_sharpness_step"):
        assert after[f"adaptive_{key}"] == pytest.approx(before[f"adaptive_{key}"], rel=1e-6)
        assert abs(after[key][0] / before[key][0] - 1) > 1e-3


def test_more_iterations_never_lower_the_value(plant, weights):
    trajectory: Trajectory = plant({0: weights}, **TINY)
    few, many = (measures.evaluate("sam_sharpness", trajectory, n_iterations=n) for n in (1, 20))
    for prefix in ("", "adaptive_"):
        assert many[f"{prefix}sam_sharpness"] >= few[f"{prefix}sam_sharpness"]
        assert many[f"{prefix}sam_sharpness"] > 1.01 * many[f"{prefix}sam_sharpness_step"]
        by_start = many[f"{prefix}sam_sharpness_by_start"]
        assert by_start.shape == (1, 2) and by_start.max() == many[f"{prefix}sam_sharpness"]


@pytest.mark.parametrize(
    "option", [{"radius": 0.0}, {"adaptive_radius": -1.0}, {"n_iterations": 0}, {"n_starts": 0}, {"dtype": "float16"}]
)
def test_option_out_of_range_is_rejected_by_name(plant, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("sam_sharpness", plant({0: {}}, **TINY), **option)
