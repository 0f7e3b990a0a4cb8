"""The measure `weight_average` on planted paths, where the average has a closed form."""

import numpy as np
import pytest
import torch

from grokscope import measures
from grokscope.errors import GrokscopeError
from grokscope.model import losses

W_U = "unembed.W_U"


def columns(value: float) -> torch.Tensor:
    return torch.full((16, 11), value, dtype=torch.float64)


def test_constant_weights_have_their_own_losses(plant):
    series = measures.evaluate("weight_average", plant({0: {}, 5: {}, 50: {}}))
    loss = measures.evaluate("loss", plant({0: {}, 5: {}, 50: {}}))
    for name in loss.arrays:
        np.testing.assert_allclose(series[name], loss[name], rtol=1e-12)
    assert not series["distance"].any()


def test_average_of_a_jump_decays_by_half_per_half_life(plant):
    """After a jump of one weight from 0 to 1, the average is 1 − 2^(−t / half_life) for any spacing."""
    steps = [0, 1, 2, 7, 10, 30]
    path = {step: {W_U: columns(0.0 if step == 0 else 1.0)} for step in steps}
    series = measures.evaluate("weight_average", plant(path), half_life=5.0)
    expected = 2.0 ** (-np.array(steps) / 5.0) * (16 * 11) ** 0.5
    np.testing.assert_allclose(series["distance"], [0.0, *expected[1:]], rtol=1e-12)


def test_average_at_every_step_is_that_of_training_code(plant):
    """Against the recursion w̄ ← βw̄ + (1 − β)w with a checkpoint at every step, and a forward pass of its own."""
    generator, half_life = torch.Generator().manual_seed(0), 3.0
    weights = [torch.randn(16, 11, generator=generator, dtype=torch.float64) for _ in range(6)]
    trajectory = plant({step: {W_U: weight} for step, weight in enumerate(weights)})
    series = measures.evaluate("weight_average", trajectory, half_life=half_life)
    average, beta = weights[0], 2 ** (-1 / half_life)
    task, split = trajectory.task, trajectory.split
    for step, weight in enumerate(weights):
        average = weight if step == 0 else beta * average + (1 - beta) * weight
        parameters = {**trajectory.at(step).parameters, W_U: average}
        loss, is_right = losses.evaluate(trajectory.model, parameters, task.inputs, task.labels)
        assert series["train_loss"][step] == pytest.approx(float(loss[split.train].mean()), rel=1e-10)
        assert series["test_accuracy"][step] == float(is_right[split.test].double().mean())


def test_short_half_life_gives_the_loss_of_the_weights(plant):
    trajectory = plant({step: {W_U: columns(0.1 * step)} for step in range(4)})
    series = measures.evaluate("weight_average", trajectory, half_life=1e-3)
    np.testing.assert_allclose(series["loss"], measures.evaluate("loss", trajectory)["loss"], rtol=1e-12)


def test_unknown_training_set_leaves_all_equations(plant):
    series = measures.evaluate("weight_average", plant({0: {}, 5: {}}, split="unknown"))
    assert set(series.arrays) == {"loss", "accuracy", "distance"}


@pytest.mark.parametrize("half_life", [0.0, -1.0])
def test_half_life_that_is_not_positive_is_refused(plant, half_life: float):
    with pytest.raises(GrokscopeError, match=r"half_life: .*Allowed: a number of steps above 0"):
        measures.evaluate("weight_average", plant({0: {}, 5: {}}), half_life=half_life)
