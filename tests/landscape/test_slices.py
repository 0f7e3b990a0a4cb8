"""Slices against HookedTransformer, finite differences, and the losses of the checkpoints."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.landscape import hooked_loss, objective_at
from support.shared import LOSSES, row

from grokscope import Trajectory, landscape, measures
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model.families import build


def test_centre_of_every_slice_equals_the_checkpoint(trajectory: Trajectory, own):
    scan = landscape.slices(trajectory, [10, 50], n_points=5, along=("random", "random", "gradient"))
    assert scan["alpha"].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert scan["direction"].tolist() == ["random 0", "random 1", "gradient 2"]
    for i, step in enumerate((10, 50)):
        assert all(row(scan, i, j, 2) == own(step) for j in range(3))
    surface = landscape.surface(trajectory, 50, n_points=3)
    assert row(surface, 1, 1) == own(50)
    assert row(surface, 2, 1) == row(landscape.slices(trajectory, [50], n_points=3), 0, 0, 2)
    assert row(surface, 1, 0) == row(landscape.slices(trajectory, [50], n_points=3), 0, 1, 0)


def test_slice_is_hooked_transformers_loss_on_the_line(trajectory: Trajectory):
    scan = landscape.slices(trajectory, [60], reach=0.5, n_points=3, dtype="float64")
    objective = objective_at(trajectory, 60)
    for j in (0, 4):
        d = landscape.random_direction(objective, 0, j)
        for i, alpha in enumerate((-0.5, 0, 0.5)):
            expected = hooked_loss(trajectory, objective, objective.point + alpha * d)
            assert scan["train_loss"][0, j, i] == pytest.approx(expected, rel=1e-9)


def test_rescaled_neurons_change_only_plain_slices(trajectory: Trajectory):
    """Scaling by 3 into a ReLU and by 1/3 out of it gives the same network.

    The control is one Gaussian direction without filter normalisation for both networks.
    """
    scaled = dict(trajectory.at(60).parameters)
    for name, factor in (("W_in", 3.0), ("b_in", 3.0), ("W_out", 1 / 3)):
        scaled[f"blocks.0.mlp.{name}"] = scaled[f"blocks.0.mlp.{name}"].double() * factor
    runs = [
        Trajectory.from_state_dicts(trajectory.config, {60: parameters})
        for parameters in (trajectory.at(60).parameters, scaled)
    ]
    normalised = [landscape.slices(run, [60], n_points=5, dtype="float64")["train_loss"] for run in runs]
    np.testing.assert_allclose(normalised[0], normalised[1], rtol=1e-6)
    n = len(objective_at(trajectory, 60).point)
    gaussian = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = [landscape.slices(run, [60], n_points=5, along=[gaussian])["train_loss"][0, 0] for run in runs]
    assert np.abs(np.log(plain[0] / plain[1]))[[0, 1, 3, 4]].max() > 0.1


def test_slices_have_gradients_slope_and_top_curvature(trajectory: Trajectory):
    along, reach = ("gradient", "eigenvector"), 1e-6
    scan = landscape.slices(trajectory, [20], along=along, reach=reach, n_points=3, dtype="float64")
    objective = objective_at(trajectory, 20)
    step = reach * float(objective.point.norm())
    gradient = float(objective.value_and_gradient(objective.point)[1].norm())
    low, _, high = scan["train_loss"][0, 0]
    assert (high - low) / (2 * step) == pytest.approx(gradient, rel=1e-5)
    low, centre, high = scan["train_loss"][0, 1]
    sharpness = measures.evaluate("sharpness", trajectory.select([20]), dtype="float64")["sharpness"][0]
    assert (high - 2 * centre + low) / step**2 == pytest.approx(sharpness, rel=1e-2)


def test_invalid_slices_are_refused(trajectory: Trajectory):
    n = len(objective_at(trajectory, 20).point)
    for along, message in (
        (["gradiant"], "along: 'gradiant'. Allowed: random, gradient, eigenvector"),
        ([torch.zeros(n)], "norm of a direction is 0.0"),
        ([torch.ones(3)], r"shape \(3,\). Allowed: a vector of the"),
        ([], "at least one step and one direction"),
    ):
        with pytest.raises(GrokscopeError, match=message):
            landscape.slices(trajectory, [20], along=along)
    ranges: list[dict[str, Any]] = [{"n_points": 4}, {"reach": 0.0}, {"n_points": 1}]
    for options in ranges:
        with pytest.raises(GrokscopeError, match="n_points: .*an odd number from 3.*reach: .*above 0"):
            landscape.slices(trajectory, [20], **options)
    with pytest.raises(GrokscopeError, match="along: 1 directions. Allowed: two"):
        landscape.surface(trajectory, 20, along=["random"])
    with pytest.raises(GrokscopeError, match="dtype: 'float16'"):
        landscape.slices(trajectory, [20], dtype="float16")


def test_ends_of_the_line_equal_the_checkpoints(trajectory: Trajectory, own):
    scan = landscape.interpolate(trajectory, 10, 50, n_points=5)
    assert scan["t"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (row(scan, 0), row(scan, -1)) == (own(10), own(50))
    a, b = (trajectory.at(step).parameters for step in (10, 50))
    parameters = {name: 0.25 * a[name] + 0.75 * b[name] for name in a}
    between = Trajectory.from_state_dicts(trajectory.config, {0: parameters})
    assert row(scan, 3) == pytest.approx([measures.evaluate("loss", between)[name][0] for name in LOSSES], rel=1e-6)
    constant = landscape.interpolate(trajectory, 20, 20)
    assert all(row(constant, i) == pytest.approx(own(20), rel=1e-5) for i in range(25))


def test_line_ends_in_another_run_of_the_same_architecture(trajectory: Trajectory, own):
    shifted = {name: tensor + 0.1 for name, tensor in trajectory.at(50).parameters.items()}
    other = Trajectory.from_state_dicts(trajectory.config, {7: shifted})
    scan = landscape.interpolate(trajectory, 10, 7, other=other, n_points=2)
    assert row(scan, 0) == own(10)
    assert row(scan, 1) == [float(measures.evaluate("loss", other)[name][0]) for name in LOSSES]
    config = dataclasses.replace(trajectory.config, model=ModelConfig(d_model=16, n_heads=2, d_mlp=8))
    narrower = Trajectory.from_state_dicts(config, {0: build(config.model, trajectory.task).initialize(0)})
    with pytest.raises(GrokscopeError, match="architectures of the two runs differ"):
        landscape.interpolate(trajectory, 10, 0, other=narrower)
    with pytest.raises(GrokscopeError, match="n_points: 1. Allowed: from 2"):
        landscape.interpolate(trajectory, 10, 20, n_points=1)
    with pytest.raises(GrokscopeError, match="no checkpoint at step 11"):
        landscape.interpolate(trajectory, 11, 20)
