"""The plane of a path against scikit-learn's PCA, HookedTransformer, and the law of random walks."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from support.landscape import hooked_loss, objective_at
from support.shared import row

from grokscope import Trajectory, landscape
from grokscope.errors import GrokscopeError
from grokscope.landscape.path_plane import random_walk_gram


def planted_path(trajectory: Trajectory, moves: np.ndarray, directions: torch.Tensor) -> Trajectory:
    """Return a run whose weights at step t are those at step 60 plus Σ_i moves[t, i] directions[i]."""
    objective = objective_at(trajectory, 60)
    checkpoints = {
        step: {**objective.parameters, **objective.to_tensors(objective.point + torch.from_numpy(move) @ directions)}
        for step, move in enumerate(moves)
    }
    return Trajectory.from_state_dicts(trajectory.config, checkpoints)


@pytest.fixture(scope="module")
def orthonormal(trajectory: Trajectory) -> torch.Tensor:
    """Three orthonormal directions in weight space, one per row."""
    n = len(objective_at(trajectory, 60).point)
    gaussian = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.T.contiguous()


def test_straight_path_has_one_component(trajectory: Trajectory, orthonormal):
    s = np.array([9.0, 5.0, 4.5, 2.0, 0.0])
    plane = landscape.path_plane(planted_path(trajectory, s[:, None], orthonormal[:1]), n_points=2)
    assert plane.components["explained_variance_ratio"] == pytest.approx([1, 0, 0, 0], abs=1e-12)
    assert plane.path["first"] == pytest.approx(s, rel=1e-9), "distances from the end, in units of the weights"
    assert plane.path["second"] == pytest.approx(np.zeros(5), abs=1e-4)
    assert plane.path["distance"] == pytest.approx(np.zeros(5), abs=1e-4)


def test_curved_path_has_scikit_learns_plane(trajectory: Trajectory, orthonormal):
    """The path is an arc in two directions plus a smaller third direction, which the plane does not contain."""
    angle = np.linspace(0, np.pi, 9)
    moves = np.stack([4 * np.cos(angle), 2 * np.sin(angle), 0.3 * np.sin(3 * angle)], 1)
    moves -= moves[-1]
    run = planted_path(trajectory, moves, orthonormal)
    plane = landscape.path_plane(run, n_points=4, margin=0.5, dtype="float64")
    oracle = PCA().fit(moves)
    axes = np.array(oracle.components_)
    assert plane.components["explained_variance_ratio"][:3] == pytest.approx(oracle.explained_variance_ratio_)
    coordinates = moves @ axes[:2].T
    for i, name in enumerate(("first", "second")):
        sign = np.sign(coordinates[np.abs(coordinates[:, i]).argmax(), i])
        assert plane.path[name] == pytest.approx(sign * coordinates[:, i], abs=1e-8)
        axes[i] *= sign
    outside = moves - moves @ axes[:2].T @ axes[:2]
    assert plane.path["distance"] == pytest.approx(np.linalg.norm(outside, axis=1), abs=1e-6)
    span = plane.grid["first"][[0, -1]]
    assert span == pytest.approx([plane.path["first"].min() - 4, plane.path["first"].max() + 4], rel=1e-6)
    objective = objective_at(trajectory, 60)
    for i, j in ((0, 0), (3, 1)):
        in_plane = plane.grid["first"][i] * axes[0] + plane.grid["second"][j] * axes[1]
        expected = hooked_loss(trajectory, objective, objective.point + torch.from_numpy(in_plane) @ orthonormal)
        assert plane.grid["train_loss"][i, j] == pytest.approx(expected, rel=1e-6)


def test_losses_of_the_path_equal_the_checkpoints(trajectory: Trajectory, own):
    plane = landscape.path_plane(trajectory, n_points=2)
    assert plane.path["step"].tolist() == trajectory.steps.tolist()
    assert all(row(plane.path, i) == own(step) for i, step in enumerate(trajectory.steps))
    assert plane.path["first"][-1] == plane.path["second"][-1] == plane.path["distance"][-1] == 0
    assert len(landscape.path_plane(trajectory, n_points=2, n_checkpoints=4).path["step"]) == 4


def test_random_walk_has_variance_shares_6_over_pi2_i2():
    """Antognini and Sohl-Dickstein 2018. A plane with three quarters of a path's variance is therefore expected."""
    gram = random_walk_gram(torch.ones(150, dtype=torch.float64), 20_000).numpy()
    centring = np.eye(151) - 1 / 151
    shares = np.linalg.eigvalsh(centring @ gram @ centring)[::-1]
    assert shares[:4] / shares.sum() == pytest.approx(6 / np.pi**2 / np.arange(1, 5) ** 2, rel=0.05)
    squared_lengths = gram.diagonal()[1:] + gram.diagonal()[:-1] - 2 * gram.diagonal(1)
    assert squared_lengths == pytest.approx(np.ones(150), rel=0.05)
    assert gram[-1] == pytest.approx(np.zeros(151)), "positions are relative to the end"


def test_random_walk_control_has_the_paths_number_of_steps(trajectory: Trajectory, orthonormal):
    moves = np.linspace(8, 0, 60)[:, None]
    plane = landscape.path_plane(planted_path(trajectory, moves, orthonormal[:1]), n_points=2, n_checkpoints=60)
    walk = plane.components["explained_variance_ratio_random_walk"]
    assert walk[:2] == pytest.approx([0.608, 0.152], rel=0.1)
    assert plane.components["explained_variance_ratio"][0] > 0.999


def test_path_without_a_plane_is_refused(trajectory: Trajectory, orthonormal):
    with pytest.raises(GrokscopeError, match="The run has 2 checkpoints. Allowed: from 3"):
        landscape.path_plane(trajectory.select([0, 60]))
    with pytest.raises(GrokscopeError, match="do not move"):
        landscape.path_plane(planted_path(trajectory, np.zeros((3, 1)), orthonormal[:1]))
    with pytest.raises(GrokscopeError, match="n_checkpoints: 2. Allowed: from 3"):
        landscape.path_plane(trajectory, n_checkpoints=2)
