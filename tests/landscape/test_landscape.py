"""The landscape: checkpoints at the centres and ends to the bit, derivatives and closed forms along the way."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from support.shared import LOSSES, own_losses, row

from grokscope import Trajectory, landscape, measures
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.landscape.path_plane import random_walk
from grokscope.model.transformer import build


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


@pytest.fixture(scope="module")
def own(trajectory: Trajectory):
    return own_losses(trajectory)


def at(trajectory: Trajectory, step: int, dtype: str = "float64") -> Objective:
    ((_, objective),) = objectives(trajectory.select([step]), dtype=dtype)
    return objective


def hooked_loss(trajectory: Trajectory, objective: Objective, x: torch.Tensor) -> float:
    """Return the train loss at some weights by HookedTransformer's own forward."""
    hooked = trajectory.model.hooked({**objective.parameters, **objective.unflat(x)})
    train = trajectory.split.train
    logits = hooked(trajectory.task.inputs[train])[:, -1]
    return F.cross_entropy(logits, trajectory.task.labels[train]).item()


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights(trajectory: Trajectory):
    """Filter by filter, the axes written out; biases do not move."""
    objective = at(trajectory, 60)
    w, d = objective.unflat(objective.point), objective.unflat(landscape.random_direction(objective))
    pairs = []
    for name in w:
        a, b = w[name], d[name]
        kind = name.split(".")[-1]
        if kind in ("W_E", "W_pos", "W_out"):
            pairs += [(a[i], b[i]) for i in range(len(a))]
        elif kind in ("W_in", "W_U"):
            pairs += [(a[:, i], b[:, i]) for i in range(a.shape[1])]
        elif kind in ("W_Q", "W_K", "W_V", "W_O"):
            pairs += [(a[h], b[h]) for h in range(2)]
        else:
            assert kind.startswith("b_") and not b.any()
    assert len(pairs) == 8 + 3 + 4 * 2 + 24 * 2 + 7
    for a, b in pairs:
        assert float(b.norm()) == pytest.approx(float(a.norm()), rel=1e-12) and float(a.norm()) > 0


def test_the_centre_of_every_slice_is_the_checkpoint_to_the_bit(trajectory: Trajectory, own):
    scan = landscape.slices(trajectory, [10, 50], n_points=5, along=("random", "random", "gradient"))
    assert scan["alpha"].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert scan["direction"].tolist() == ["random 0", "random 1", "gradient 2"]
    for i, step in enumerate((10, 50)):
        assert all(row(scan, i, j, 2) == own(step) for j in range(3))
    middle = landscape.surface(trajectory, 50, n_points=3)
    assert row(middle, 1, 1) == own(50)
    assert row(middle, 2, 1) == row(landscape.slices(trajectory, [50], n_points=3), 0, 0, 2)
    assert row(middle, 1, 0) == row(landscape.slices(trajectory, [50], n_points=3), 0, 1, 0)


def test_a_slice_is_hooked_transformers_loss_along_the_line(trajectory: Trajectory):
    scan = landscape.slices(trajectory, [60], reach=0.5, n_points=3, dtype="float64")
    objective = at(trajectory, 60)
    for j in (0, 4):
        d = landscape.random_direction(objective, 0, j)
        for i, alpha in enumerate((-0.5, 0, 0.5)):
            expected = hooked_loss(trajectory, objective, objective.point + alpha * d)
            assert scan["train_loss"][0, j, i] == pytest.approx(expected, rel=1e-9)


def test_directions_are_a_function_of_the_seed_and_no_two_alike(trajectory: Trajectory):
    objective = at(trajectory, 60)
    directions = [landscape.random_direction(objective, *one) for one in ((0, 0), (0, 1), (1, 0))]
    assert torch.equal(landscape.random_direction(objective, 0, 1), directions[1])
    for i in range(3):
        for j in range(i):
            cosine = torch.nn.functional.cosine_similarity(directions[i], directions[j], dim=0)
            assert abs(float(cosine)) < 0.15


def test_scaling_neurons_moves_no_slice_unless_filters_are_not_normalised(trajectory: Trajectory):
    """Three times into a ReLU and a third out of it is the same network. The control: one plain Gaussian for both."""
    scaled = dict(trajectory.at(60).parameters)
    for name, factor in (("W_in", 3.0), ("b_in", 3.0), ("W_out", 1 / 3)):
        scaled[f"blocks.0.mlp.{name}"] = scaled[f"blocks.0.mlp.{name}"].double() * factor
    one = Trajectory.from_state_dicts(trajectory.config, {60: trajectory.at(60).parameters})
    other = Trajectory.from_state_dicts(trajectory.config, {60: scaled})
    found = [landscape.slices(run, [60], n_points=5, dtype="float64")["train_loss"] for run in (one, other)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    n = len(at(trajectory, 60).point)
    plain = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = [landscape.slices(run, [60], n_points=5, along=[plain])["train_loss"][0, 0] for run in (one, other)]
    assert np.abs(np.log(given[0] / given[1]))[[0, 1, 3, 4]].max() > 0.1


def test_the_gradients_slice_has_its_slope_and_the_top_eigenvectors_its_curvature(trajectory: Trajectory):
    scan = landscape.slices(
        trajectory, [20], along=("gradient", "eigenvector"), reach=1e-6, n_points=3, dtype="float64"
    )
    objective = at(trajectory, 20)
    length = float(objective.point.norm())
    gradient = float(objective.value_and_gradient(objective.point)[1].norm())
    low, _, high = scan["train_loss"][0, 0]
    assert (high - low) / (2e-6 * length) == pytest.approx(gradient, rel=1e-5)
    low, centre, high = scan["train_loss"][0, 1]
    top = measures.evaluate("sharpness", trajectory.select([20]), dtype="float64")["sharpness"][0]
    assert (high - 2 * centre + low) / (1e-6 * length) ** 2 == pytest.approx(top, rel=1e-2)


def test_a_direction_that_leads_nowhere_is_refused(trajectory: Trajectory):
    n = len(at(trajectory, 20).point)
    for along, said in (
        (["gradiant"], "along: 'gradiant'; allowed: random, gradient, eigenvector"),
        ([torch.zeros(n)], "no length"),
        ([torch.ones(3)], r"shape \(3,\); allowed: a flat vector over the"),
        ([], "at least one step and one direction"),
    ):
        with pytest.raises(GrokscopeError, match=said):
            landscape.slices(trajectory, [20], along=along)
    wrong: list[dict[str, Any]] = [{"n_points": 4}, {"reach": 0.0}, {"n_points": 1}]
    for options in wrong:
        with pytest.raises(GrokscopeError, match="n_points: .*an odd number from 3.*reach: .*above 0"):
            landscape.slices(trajectory, [20], **options)
    with pytest.raises(GrokscopeError, match="along: 1 directions; allowed: two"):
        landscape.surface(trajectory, 20, along=["random"])
    with pytest.raises(GrokscopeError, match="dtype: 'float16'"):
        landscape.slices(trajectory, [20], dtype="float16")


def test_the_ends_of_the_line_are_the_checkpoints(trajectory: Trajectory, own):
    scan = landscape.interpolate(trajectory, 10, 50, n_points=5)
    assert scan["t"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (row(scan, 0), row(scan, -1)) == (own(10), own(50))
    a, b = (trajectory.at(step).parameters for step in (10, 50))
    state = {name: 0.25 * a[name] + 0.75 * b[name] for name in a}
    between = Trajectory.from_state_dicts(trajectory.config, {0: state})
    assert row(scan, 3) == pytest.approx([measures.evaluate("loss", between)[name][0] for name in LOSSES], rel=1e-6)
    nowhere = landscape.interpolate(trajectory, 20, 20)
    assert all(row(nowhere, i) == pytest.approx(own(20), rel=1e-5) for i in range(25))


def test_the_line_may_end_in_another_run_of_the_same_architecture(trajectory: Trajectory, own):
    moved = {name: one + 0.1 for name, one in trajectory.at(50).parameters.items()}
    other = Trajectory.from_state_dicts(trajectory.config, {7: moved})
    scan = landscape.interpolate(trajectory, 10, 7, other=other, n_points=2)
    assert row(scan, 0) == own(10)
    assert row(scan, 1) == [float(measures.evaluate("loss", other)[name][0]) for name in LOSSES]
    config = dataclasses.replace(trajectory.config, model=ModelConfig(d_model=16, n_heads=2, d_mlp=8))
    wider = Trajectory.from_state_dicts(config, {0: build(config.model, trajectory.task).initialize(0)})
    with pytest.raises(GrokscopeError, match="other architectures"):
        landscape.interpolate(trajectory, 10, 0, other=wider)
    with pytest.raises(GrokscopeError, match="n_points: 1; allowed: from 2"):
        landscape.interpolate(trajectory, 10, 20, n_points=1)
    with pytest.raises(GrokscopeError, match="no checkpoint at step 11"):
        landscape.interpolate(trajectory, 11, 20)


def planted_path(trajectory: Trajectory, moves: np.ndarray, directions: torch.Tensor) -> Trajectory:
    """Return a run whose trained weights at step t are those of the end plus Σ moves[t, i] directions[i]."""
    objective = at(trajectory, 60)
    states = {
        step: {**objective.parameters, **objective.unflat(objective.point + torch.from_numpy(move) @ directions)}
        for step, move in enumerate(moves)
    }
    return Trajectory.from_state_dicts(trajectory.config, states)


@pytest.fixture(scope="module")
def orthonormal(trajectory: Trajectory) -> torch.Tensor:
    n = len(at(trajectory, 60).point)
    drawn = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q.T.contiguous()


def test_a_straight_path_has_one_component_and_no_distance_from_its_plane(trajectory: Trajectory, orthonormal):
    s = np.array([9.0, 5.0, 4.5, 2.0, 0.0])
    found = landscape.path_plane(planted_path(trajectory, s[:, None], orthonormal[:1]), n_points=2)
    assert found.components["explained_variance_ratio"] == pytest.approx([1, 0, 0, 0], abs=1e-12)
    assert found.path["first"] == pytest.approx(s, rel=1e-9), "distances from the end, in units of the weights"
    assert found.path["second"] == pytest.approx(np.zeros(5), abs=1e-4)
    assert found.path["distance"] == pytest.approx(np.zeros(5), abs=1e-4)


def test_a_curved_path_lies_in_its_plane_as_scikit_learn_says(trajectory: Trajectory, orthonormal):
    """An arc in two directions, and a third, smaller one that the plane leaves out."""
    angle = np.linspace(0, np.pi, 9)
    moves = np.stack([4 * np.cos(angle), 2 * np.sin(angle), 0.3 * np.sin(3 * angle)], 1)
    moves -= moves[-1]
    run = planted_path(trajectory, moves, orthonormal)
    found = landscape.path_plane(run, n_points=4, margin=0.5, dtype="float64")
    oracle = PCA().fit(moves)
    axes = np.array(oracle.components_)
    assert found.components["explained_variance_ratio"][:3] == pytest.approx(oracle.explained_variance_ratio_)
    places = moves @ axes[:2].T
    for i, name in enumerate(("first", "second")):
        sign = np.sign(places[np.abs(places[:, i]).argmax(), i])
        assert found.path[name] == pytest.approx(sign * places[:, i], abs=1e-8)
        axes[i] *= sign
    left = moves - moves @ axes[:2].T @ axes[:2]
    assert found.path["distance"] == pytest.approx(np.linalg.norm(left, axis=1), abs=1e-6)
    span = found.grid["first"][[0, -1]]
    assert span == pytest.approx([found.path["first"].min() - 4, found.path["first"].max() + 4], rel=1e-6)
    objective = at(trajectory, 60)
    for i, j in ((0, 0), (3, 1)):
        in_plane = found.grid["first"][i] * axes[0] + found.grid["second"][j] * axes[1]
        expected = hooked_loss(trajectory, objective, objective.point + torch.from_numpy(in_plane) @ orthonormal)
        assert found.grid["train_loss"][i, j] == pytest.approx(expected, rel=1e-6)


def test_the_paths_own_losses_are_the_checkpoints_to_the_bit(trajectory: Trajectory, own):
    found = landscape.path_plane(trajectory, n_points=2)
    assert found.path["step"].tolist() == trajectory.steps.tolist()
    assert all(row(found.path, i) == own(step) for i, step in enumerate(trajectory.steps))
    assert found.path["first"][-1] == found.path["second"][-1] == found.path["distance"][-1] == 0
    assert len(landscape.path_plane(trajectory, n_points=2, n_checkpoints=4).path["step"]) == 4


def test_a_random_walk_of_many_steps_has_six_over_pi_squared_of_its_variance_on_the_first_component():
    """(Antognini and Sohl-Dickstein 2018.) So a plane that holds three quarters of a path says little."""
    gram = random_walk(torch.ones(150, dtype=torch.float64), 20_000).numpy()
    centring = np.eye(151) - 1 / 151
    shares = np.linalg.eigvalsh(centring @ gram @ centring)[::-1]
    assert shares[:4] / shares.sum() == pytest.approx(6 / np.pi**2 / np.arange(1, 5) ** 2, rel=0.05)
    steps = gram.diagonal()[1:] + gram.diagonal()[:-1] - 2 * gram.diagonal(1)
    assert steps == pytest.approx(np.ones(150), rel=0.05)
    assert gram[-1] == pytest.approx(np.zeros(151)), "places are taken from the end"


def test_a_walk_of_many_steps_is_the_control_beside_a_path(trajectory: Trajectory, orthonormal):
    moves = np.linspace(8, 0, 60)[:, None]
    found = landscape.path_plane(planted_path(trajectory, moves, orthonormal[:1]), n_points=2, n_checkpoints=60)
    walk = found.components["explained_variance_ratio_random_walk"]
    assert walk[:2] == pytest.approx([0.608, 0.152], rel=0.1)
    assert found.components["explained_variance_ratio"][0] > 0.999


def test_a_path_that_spans_no_plane_is_refused(trajectory: Trajectory, orthonormal):
    with pytest.raises(GrokscopeError, match="There are 2 checkpoints; a plane needs three"):
        landscape.path_plane(trajectory.select([0, 60]))
    with pytest.raises(GrokscopeError, match="do not move"):
        landscape.path_plane(planted_path(trajectory, np.zeros((3, 1)), orthonormal[:1]))
    with pytest.raises(GrokscopeError, match="n_checkpoints: 2, allowed: from 3"):
        landscape.path_plane(trajectory, n_checkpoints=2)


def test_the_lowest_point_of_a_quadratic_on_a_sphere_solves_the_secular_equation():
    """At it (H + μ) x = b with μ above −λ_min and ‖x‖ = R: the one root, by bisection (Sorensen 1982)."""
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
        found = landscape.lowest_on_sphere(function, b, radius, n_steps=1500)
        assert found.value == pytest.approx(function(x)[0], rel=1e-6)
        assert torch.allclose(found.point, x, atol=1e-2 * radius)
        assert float(found.point.norm()) == pytest.approx(radius, rel=1e-12)
        short = landscape.lowest_on_sphere(function, b, radius, n_steps=5)
        assert short.value > found.value and short.residual > 10 * found.residual


def test_a_ray_goes_through_the_checkpoint_and_is_hooked_transformers_loss_elsewhere(trajectory: Trajectory, own):
    objective = at(trajectory, 60)
    norm = float(objective.point.norm())
    scan = landscape.rays(trajectory, [0, 60], weight_norms=[norm / 2, norm, 2 * norm], dtype="float64")
    assert scan["step"].tolist() == [0, 60]
    assert row(scan, 1, 1) == pytest.approx(own(60), rel=1e-5)
    for i, factor in ((0, 0.5), (2, 2.0)):
        expected = hooked_loss(trajectory, objective, objective.point * factor)
        assert scan["train_loss"][1, i] == pytest.approx(expected, rel=1e-9)
    spread = landscape.rays(trajectory, [60], n_points=3)["weight_norm"]
    assert spread == pytest.approx([norm / 2, norm, 2 * norm], rel=1e-6)


def test_shells_begin_on_the_rays_and_are_lower_on_the_same_sphere(trajectory: Trajectory):
    norms = [3.0, 6.0]
    rays = landscape.rays(trajectory, [0, 60], weight_norms=norms)
    there = landscape.shells(trajectory, [0, 60], weight_norms=norms, n_steps=0)
    for name in LOSSES:
        assert np.array_equal(there[name], rays[name])
    lower = landscape.shells(trajectory, [0, 60], weight_norms=norms, n_steps=30)
    assert lower["start"].tolist() == [0, 60]
    assert (lower["train_loss"] < 0.99 * rays["train_loss"]).all()
    assert lower["start_train_loss"] == pytest.approx(rays["train_loss"], rel=1e-6)
    assert (lower["residual"] > 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_norms": [0.0]}, "weight_norms: .*above 0"),
        ({"weight_norms": []}, "weight_norms"),
        ({"n_steps": -1}, "n_steps: -1, allowed: from 0"),
        ({"lr": 0.0}, "lr: 0.0, allowed: above 0"),
        ({"n_points": 0}, "n_points: 0; allowed: from 1"),
    ],
)
def test_a_shell_that_there_is_not_is_refused(trajectory: Trajectory, options, said):
    with pytest.raises(GrokscopeError, match=said):
        landscape.shells(trajectory, [60], **options)


def test_weights_that_are_all_zero_lie_on_no_sphere(trajectory: Trajectory):
    zeros = {name: torch.zeros_like(one) for name, one in trajectory.last.parameters.items()}
    with pytest.raises(GrokscopeError, match="lie on no sphere"):
        landscape.rays(Trajectory.from_state_dicts(trajectory.config, {0: zeros}), [0])
