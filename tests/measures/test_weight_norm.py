"""The measure `weight_norm` against sums by hand."""

import math

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.measures import weight_norm as module


def filled(model, value: float) -> dict[str, torch.Tensor]:
    """Return parameters that are all equal to a value."""
    return {name: torch.full(shape, value) for name, shape in model.shapes.items()}


def test_norms_of_constant_tensors_are_the_roots_of_their_sizes(plant):
    model = plant({0: {}}).model
    series = measures.evaluate("weight_norm", plant({0: filled(model, 2.0), 10: filled(model, -1.5)}))
    sizes = {name: math.prod(model.shapes[name]) for name in model.trained}
    for name, size in sizes.items():
        np.testing.assert_allclose(series[f"weight_norm.{name}"], [2 * size**0.5, 1.5 * size**0.5], rtol=1e-12)
    total = sum(sizes.values()) ** 0.5
    np.testing.assert_allclose(series["weight_norm"], [2 * total, 1.5 * total], rtol=1e-12)
    np.testing.assert_allclose(series["distance_from_initialization"], [0, 3.5 * total], rtol=1e-12)


@pytest.mark.parametrize("biases", ["all", "mlp", "none"])
def test_frozen_bias_has_no_norm_and_no_part_in_the_total(plant, biases):
    model = plant({0: {}}, biases=biases).model
    series = measures.evaluate("weight_norm", plant({0: filled(model, 1.0)}, biases=biases))
    keys = {name.removeprefix("weight_norm.") for name in series.arrays if name.startswith("weight_norm.")}
    assert keys == set(model.trained)
    squares = sum(series[f"weight_norm.{name}"] ** 2 for name in keys)
    np.testing.assert_allclose(series["weight_norm"] ** 2, squares, rtol=1e-12)


def test_distance_without_step_0_is_nan(plant):
    series = measures.evaluate("weight_norm", plant({5: {}, 10: {}}))
    assert np.isnan(series["distance_from_initialization"]).all()
    assert np.isfinite(series["weight_norm"]).all()


def test_selection_without_step_0_still_has_the_distance(plant):
    moved = {"embed.W_E": torch.zeros(12, 16)}
    trajectory = plant({0: {}, 10: moved})
    expected = trajectory.at(0).parameters["embed.W_E"].double().norm().item()
    series = measures.evaluate("weight_norm", trajectory.select([10]))
    assert series["distance_from_initialization"].tolist() == pytest.approx([expected], rel=1e-12)


def test_float32_squares_do_not_overflow_or_vanish():
    for size in (1e30, 1e-30):
        norms = module.row_norms(torch.full((2, 100), size, dtype=torch.float32))
        torch.testing.assert_close(norms, torch.full((2,), 10 * size, dtype=torch.float64), rtol=1e-6, atol=0)


def test_norms_do_not_depend_on_the_chunk_size(plant, monkeypatch):
    trajectory = plant({step: {"embed.W_E": torch.full((12, 16), float(step))} for step in range(7)})
    whole = measures.evaluate("weight_norm", trajectory)
    monkeypatch.setattr(module, "_CHECKPOINTS_PER_CHUNK", 3)
    chunked = measures.evaluate("weight_norm", trajectory)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(chunked[name], array)
