"""Circuit measures on tasks that lack part of the table: losses cover the task's equations, and only those."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.plugin_tasks import holed_composition, holed_division, ordered_addition
from support.plugin_tasks import register_task as register_task

from grokscope import Trajectory, measures, tasks
from grokscope.circuits.key_frequencies import restricted_logits
from grokscope.circuits.pairs import CircleGrid
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.fourier import cyclic_2d
from grokscope.model import families
from grokscope.tasks.circle import on_circle

MODEL = ModelConfig(d_model=16, n_heads=2, d_mlp=24)


def trajectory_of(task: TaskConfig) -> Trajectory:
    """Return a trajectory of two checkpoints, with noise in all parameters of the second."""
    start = families.build(MODEL, tasks.build(task)).initialize(0)
    generator = torch.Generator().manual_seed(1)
    noisy = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
    return Trajectory.from_state_dicts(RunConfig(task=task, model=MODEL), {0: start, 1: noisy})


@pytest.mark.parametrize("function", [ordered_addition, holed_division])
def test_losses_of_a_partial_circle_equal_the_measure_loss(function, register_task):
    trajectory = trajectory_of(register_task(function))
    task, split = trajectory.task, trajectory.split
    # The measure `loss` includes equations with zero, which division leaves out.
    is_on_circle = torch.isin(task.operands, on_circle(task).tokens).all(1)
    losses = torch.from_numpy(measures.evaluate("example_loss", trajectory)["example_loss"])
    expected = {"loss": losses[:, is_on_circle].mean(1)}
    for name, part in (("train_loss", split.train), ("test_loss", split.test)):
        expected[name] = losses[:, part[is_on_circle[part]]].mean(1)
    progress, ablations = (measures.evaluate(name, trajectory) for name in ("progress", "ablations"))
    for name, array in ((name, progress[name]) for name in ("train_loss", "test_loss")):
        np.testing.assert_allclose(array, expected[name], rtol=1e-5)
    np.testing.assert_allclose(ablations["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(measures.evaluate("fourier", trajectory)["loss"], expected["loss"][-1], rtol=1e-5)


def test_restricted_loss_of_a_partial_circle_is_a_mean_of_losses(register_task):
    trajectory = trajectory_of(register_task(ordered_addition))
    series = measures.evaluate("progress", trajectory)
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    pairs = torch.cartesian_prod(torch.arange(11), torch.arange(11), torch.tensor([11]))
    logits = trajectory.model.logits(trajectory.last.parameters, pairs)
    logits = logits.double().unflatten(0, (11, 11))
    means = cyclic_2d.answer_means(logits, grid.circle.answers)
    restricted = restricted_logits(means, torch.from_numpy(series["key_frequencies"]))
    answers = [(a + b) % 11 for a in range(11) for b in range(a, 11)]
    losses = [F.cross_entropy(restricted[answer], torch.tensor(answer)) for answer in answers]
    np.testing.assert_allclose(series["restricted_loss"][-1], torch.stack(losses).mean(), rtol=1e-6)


@pytest.mark.parametrize("function", [holed_composition, ordered_addition])
def test_losses_of_a_partial_group_equal_the_measure_loss(function, register_task):
    trajectory = trajectory_of(register_task(function))
    series, loss = (measures.evaluate(name, trajectory) for name in ("representations", "loss"))
    for name in ("loss", "train_loss"):
        np.testing.assert_allclose(series[name], loss[name], rtol=1e-5)


@pytest.mark.parametrize("name", ["progress", "ablations", "neurons", "fourier", "algorithm", "representations"])
def test_partial_table_gives_the_same_numbers_in_every_call(name, register_task):
    trajectory = trajectory_of(register_task(ordered_addition))
    first = measures.evaluate(name, trajectory)
    # Memory that earlier tensors leave behind must not matter.
    leftover = [torch.full((121,), 7 + i) for i in range(50)]
    del leftover
    second = measures.evaluate(name, trajectory)
    for key in list(first.keys()):
        np.testing.assert_array_equal(first[key], second[key])


def test_structure_of_a_partial_table_is_that_of_all_pairs(register_task):
    """The Fourier analysis covers all pairs, so it equals that of the complete task with the same parameters."""
    partial = trajectory_of(register_task(ordered_addition))
    config = dataclasses.replace(partial.config, task=TaskConfig(p=11, train_fraction=0.5))
    parameters = {int(step): partial.at(int(step)).parameters for step in partial.steps}
    complete = Trajectory.from_state_dicts(config, parameters)
    for name, keys in (
        ("progress", ["cosine_coefficients"]),
        ("neurons", ["neuron_share", "head_share"]),
        ("algorithm", ["gradient_symmetricity", "distance_irrelevance", "clock_explained_variance"]),
        ("representations", ["logit_similarity", "neuron_shares"]),
    ):
        partial_series, complete_series = (measures.evaluate(name, whole) for whole in (partial, complete))
        for key in keys:
            np.testing.assert_array_equal(partial_series[key], complete_series[key])
