"""The measure `path` on known paths: a straight line, a circle, steps of chosen lengths."""

import math

import numpy as np
import pytest
import torch

from grokscope import Trajectory, measures
from grokscope.model.components import COMPONENTS

W_E, W_U = "embed.W_E", "unembed.W_U"


def with_W_E(plant, points: dict[int, torch.Tensor], **model: str) -> Trajectory:
    """Return a trajectory on which only W_E moves and all other parameters are zero."""
    zeros = {name: torch.zeros(shape) for name, shape in plant({0: {}}).model.shapes.items()}
    return plant({step: {**zeros, W_E: point} for step, point in points.items()}, **model)


def on_circle(angle: float, radius: float = 3.0) -> torch.Tensor:
    """Return a W_E on a circle around zero."""
    point = torch.zeros(12, 16, dtype=torch.float64)
    point[0, 0], point[5, 3] = radius * math.cos(angle), radius * math.sin(angle)
    return point


def test_straight_line_from_zero_scales_without_turning(plant):
    direction = torch.arange(192, dtype=torch.float64).reshape(12, 16)
    unit = direction / direction.norm()
    series = measures.evaluate("path", with_W_E(plant, {0: unit, 10: 3 * unit, 40: 4 * unit, 50: 9 * unit}))
    np.testing.assert_allclose(series["update_size"][1:], [2, 1, 5], rtol=1e-12)
    np.testing.assert_allclose(series["update_size_per_step"][1:], [0.2, 1 / 30, 0.5], rtol=1e-12)
    np.testing.assert_allclose(series["path_length"], [0, 2, 3, 8], rtol=1e-12)
    np.testing.assert_allclose(series["displacement"], [0, 2, 3, 8], atol=1e-12)
    for name in ("straightness", "update_weight_cosine"):
        np.testing.assert_allclose(series[name][1:], 1, rtol=1e-12)
    np.testing.assert_allclose(series["update_cosine"][2:], 1, rtol=1e-12)


def test_quantities_without_a_previous_checkpoint_are_nan(plant):
    series = measures.evaluate("path", with_W_E(plant, {5: on_circle(0), 6: on_circle(1), 7: on_circle(2)}))
    undefined = {name: int(np.isnan(array).reshape(3, -1).all(1).sum()) for name, array in series.arrays.items()}
    assert undefined.pop("update_cosine") == 2
    assert undefined.pop("path_length") == undefined.pop("displacement") == 0
    assert set(undefined.values()) == {1}


def test_circle_is_a_closed_polygon(plant):
    n = 12
    angle = 2 * math.pi / n
    series = measures.evaluate("path", with_W_E(plant, {10 * i: on_circle(i * angle) for i in range(n + 1)}))
    chord = 2 * 3 * math.sin(angle / 2)
    np.testing.assert_allclose(series["path_length"], chord * np.arange(n + 1), rtol=1e-12)
    assert series["path_length"][-1] < 2 * math.pi * 3, "a chord is a lower bound of its arc"
    np.testing.assert_allclose(series["update_cosine"][2:], math.cos(angle), rtol=1e-12)
    # A chord leaves the circle inwards at half the angle.
    np.testing.assert_allclose(series["update_weight_cosine"][1:], -math.sin(angle / 2), rtol=1e-12)
    half, whole = series["straightness"][[n // 2, n]]
    assert half == pytest.approx(2 * 3 / (n / 2 * chord), rel=1e-12)
    assert whole == pytest.approx(0, abs=1e-12)


def test_reversal_has_cosine_minus_1_and_rest_has_cosine_0(plant):
    points = {0: on_circle(0), 1: on_circle(0, 4.0), 2: on_circle(0), 3: on_circle(0), 4: on_circle(0, 5.0)}
    series = measures.evaluate("path", with_W_E(plant, points))
    assert series["update_cosine"][2:].tolist() == pytest.approx([-1, 0, 0])
    assert series["update_weight_cosine"][1:].tolist() == pytest.approx([1, -1, 0, 1])


def test_each_component_has_its_own_part_of_the_update(plant):
    trajectory = plant({0: {}, 3: {W_U: torch.zeros(16, 11), "blocks.0.mlp.b_in": torch.full((24,), 2.0)}})
    series = measures.evaluate("path", trajectory)
    assert series.words("components") == list(COMPONENTS)
    sizes = dict(zip(COMPONENTS, series["component_update_sizes"][1], strict=True))
    norm = trajectory.first.parameters[W_U].double().norm().item()
    assert sizes["unembedding"] == pytest.approx(norm, rel=1e-12) and sizes["mlp"] == pytest.approx(2 * 24**0.5)
    assert sizes["embedding"] == sizes["positions"] == sizes["attention"] == 0
    assert series["update_size"][1] == pytest.approx(math.hypot(*sizes.values()), rel=1e-12)
    cosines = dict(zip(COMPONENTS, series["component_update_weight_cosines"][1], strict=True))
    assert cosines["unembedding"] == pytest.approx(-1, rel=1e-12)
    # The bias was zero and the matrices do not move, so the update is orthogonal to the weights.
    assert cosines["mlp"] == cosines["embedding"] == 0


def test_fixed_parameters_have_no_part_in_the_path(plant):
    series = measures.evaluate(
        "path", plant({0: {}, 1: {"blocks.0.attn.b_O": torch.ones(16)}}, positions="sinusoidal")
    )
    assert series.words("components") == ["embedding", "attention", "mlp", "unembedding"]
    assert series["update_size"][1] == 0
    norms = measures.evaluate("weight_norm", plant({0: {}}, positions="sinusoidal"))
    assert norms.words("components") == series.words("components")
    assert norms["component_norms"].shape == (1, 4)


def test_close_float32_weights_have_an_exact_difference(plant):
    near = torch.full((12, 16), 1.0), torch.full((12, 16), 1.0 + 2.0**-23)
    series = measures.evaluate("path", with_W_E(plant, dict(enumerate(near))))
    assert series["update_size"][1] == pytest.approx(2.0**-23 * 192**0.5, rel=1e-12)


def test_fewer_checkpoints_shorten_path_but_not_displacement(tiny_run):
    trajectory = Trajectory.open(tiny_run)
    dense, few = (measures.evaluate("path", checkpoints) for checkpoints in (trajectory, trajectory.thin(3)))
    assert few["path_length"][-1] < dense["path_length"][-1]
    assert few["displacement"][-1] == dense["displacement"][-1]
    from_start = measures.evaluate("weight_norm", trajectory)["distance_from_initialization"]
    np.testing.assert_allclose(dense["displacement"], from_start, rtol=1e-7)
