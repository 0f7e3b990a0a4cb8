"""Rays and shells against HookedTransformer, and the lowest point of a quadratic in closed form."""

import numpy as np
import pytest
import torch
from support.landscape import hooked_loss, objective_at
from support.shared import LOSSES, row

from grokscope import Trajectory, landscape
from grokscope.errors import GrokscopeError


def test_lowest_point_of_a_quadratic_solves_its_equation():
    """It satisfies (H + μ)x = b with μ > −λ_min and ‖x‖ = R; bisection finds the single root (Sorensen 1982)."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    H, b = A @ A.T - 4 * torch.eye(12), torch.randn(12, generator=generator, dtype=torch.float64)
    eigenvalues, vectors = np.linalg.eigh(H.numpy())
    c = vectors.T @ b.numpy()
    assert eigenvalues[0] < 0 < eigenvalues[-1]

    def function(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        return float(x @ H @ x / 2 - b @ x), H @ x - b

    for radius in (0.5, 3.0):
        low, high = -eigenvalues[0], -eigenvalues[0] + 100
        for _ in range(200):
            mu = (low + high) / 2
            low, high = (mu, high) if np.linalg.norm(c / (eigenvalues + mu)) > radius else (low, mu)
        x = torch.from_numpy(vectors @ (c / (eigenvalues + mu)))
        lowest = landscape.lowest_on_sphere(function, b, radius, n_steps=1500)
        assert lowest.value == pytest.approx(function(x)[0], rel=1e-6)
        assert torch.allclose(lowest.point, x, atol=1e-2 * radius)
        assert float(lowest.point.norm()) == pytest.approx(radius, rel=1e-12)
        short = landscape.lowest_on_sphere(function, b, radius, n_steps=5)
        assert short.value > lowest.value and short.residual > 10 * lowest.residual


def test_deprecated_name_of_lowest_point_warns():
    with pytest.warns(DeprecationWarning, match="is now LowestPoint"):
        assert landscape.Lowest is landscape.LowestPoint
    with pytest.raises(AttributeError, match="no attribute 'Highest'"):
        _ = landscape.Highest


def test_ray_has_hooked_transformers_losses(trajectory: Trajectory, own):
    objective = objective_at(trajectory, 60)
    norm = float(objective.point.norm())
    scan = landscape.rays(trajectory, [0, 60], weight_norms=[norm / 2, norm, 2 * norm], dtype="float64")
    assert scan["step"].tolist() == [0, 60]
    assert row(scan, 1, 1) == pytest.approx(own(60), rel=1e-5)
    for i, factor in ((0, 0.5), (2, 2.0)):
        expected = hooked_loss(trajectory, objective, objective.point * factor)
        assert scan["train_loss"][1, i] == pytest.approx(expected, rel=1e-9)
    default_norms = landscape.rays(trajectory, [60], n_points=3)["weight_norm"]
    assert default_norms == pytest.approx([norm / 2, norm, 2 * norm], rel=1e-6)


def test_shells_start_on_the_rays_and_are_lower(trajectory: Trajectory):
    norms = [3.0, 6.0]
    rays = landscape.rays(trajectory, [0, 60], weight_norms=norms)
    start = landscape.shells(trajectory, [0, 60], weight_norms=norms, n_steps=0)
    for name in LOSSES:
        assert np.array_equal(start[name], rays[name])
    lower = landscape.shells(trajectory, [0, 60], weight_norms=norms, n_steps=30)
    assert lower["start"].tolist() == [0, 60]
    assert (lower["train_loss"] < 0.99 * rays["train_loss"]).all()
    assert lower["start_train_loss"] == pytest.approx(rays["train_loss"], rel=1e-6)
    assert (lower["residual"] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_norms": [0.0]}, "weight_norms: .*above 0"),
        ({"weight_norms": []}, "weight_norms"),
        ({"n_steps": -1}, "n_steps: -1. Allowed: from 0"),
        ({"lr": 0.0}, "lr: 0.0. Allowed: above 0"),
        ({"n_points": 0}, "n_points: 0. Allowed: from 1"),
    ],
)
def test_shell_options_out_of_range_are_refused(trajectory: Trajectory, options, message):
    with pytest.raises(GrokscopeError, match=message):
        landscape.shells(trajectory, [60], **options)


def test_zero_weights_are_refused(trajectory: Trajectory):
    zeros = {name: torch.zeros_like(tensor) for name, tensor in trajectory.last.parameters.items()}
    with pytest.raises(
        GrokscopeError, match=r"weight norms of the checkpoints: \[0.0\]. Allowed: finite norms above 0"
    ):
        landscape.rays(Trajectory.from_state_dicts(trajectory.config, {0: zeros}), [0])
