"""All pairs of operands, against HookedTransformer's own cache and hooks and against loops over the pairs."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from grokscope import Trajectory, tasks
from grokscope.circuits import pairs
from grokscope.circuits.pairs import CircleGrid, GroupLogits, pair_losses
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import families
from grokscope.tasks.group_pairs import as_composition

SMALL = ModelConfig(d_model=16, n_heads=2, d_mlp=24)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_trajectory(task: TaskConfig, model: ModelConfig = SMALL) -> Trajectory:
    """Return a trajectory of one checkpoint in float64 with noise in all parameters."""
    initialization = families.build(model, tasks.build(task)).initialize(0)
    parameters = {
        name: tensor.double() + 0.3 * noise(*tensor.shape, seed=i)
        for i, (name, tensor) in enumerate(initialization.items())
    }
    return Trajectory.from_state_dicts(RunConfig(task=task, model=model), {0: parameters})


def grid_of(trajectory: Trajectory) -> CircleGrid:
    return CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)


@pytest.mark.parametrize("form", ["a b =", "a ∘ b ="])
@pytest.mark.parametrize(
    "model",
    [
        {"act_fn": "relu"},
        {"n_layers": 2, "normalization_type": "LN", "act_fn": "gelu", "biases": "all"},
        {"n_layers": 3, "positions": "sinusoidal"},
    ],
    ids=["relu", "LN", "sinusoidal"],
)
def test_activations_equal_hooked_transformers_cache(model, form):
    config = dataclasses.replace(SMALL, **model)
    trajectory = random_trajectory(TaskConfig(name="subtraction", p=7, form=form), config)
    parameters, grid = trajectory.last.parameters, grid_of(trajectory)
    neurons, attention = grid.activations(parameters)
    logits, cache = trajectory.last.model.run_with_cache(grid.equations.tokens)
    assert len(neurons) == len(attention) == config.n_layers
    for layer in range(config.n_layers):
        post = cache[f"blocks.{layer}.mlp.hook_post"][:, -1]
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][:, :, -1, 0]
        torch.testing.assert_close(neurons[layer].flatten(0, 1), post)
        torch.testing.assert_close(attention[layer].flatten(0, 1), pattern)
    torch.testing.assert_close(grid.logits(parameters).flatten(0, 1), torch.as_tensor(logits)[:, -1])


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_logits_without_a_part_equal_zeroing_hooks(part):
    trajectory = random_trajectory(TaskConfig(p=7), dataclasses.replace(SMALL, n_layers=2))
    grid = grid_of(trajectory)
    hooks: list[Any] = [(f"blocks.{layer}.hook_{part}_out", lambda value, hook: value * 0) for layer in (0, 1)]
    expected = trajectory.last.model.run_with_hooks(grid.equations.tokens, fwd_hooks=hooks)[:, -1]
    torch.testing.assert_close(grid.logits_without(trajectory.last.parameters, part).flatten(0, 1), expected)


@pytest.mark.parametrize("name", ["subtraction", "division"])
def test_grid_has_equations_and_answers_in_circle_order(name):
    trajectory = random_trajectory(TaskConfig(name=name, p=7, outliers=3))
    grid, task = grid_of(trajectory), trajectory.task
    label_of = {tuple(pair): label for pair, label in zip(task.operands.tolist(), task.labels.tolist(), strict=True)}
    train = {tuple(pair) for pair in task.operands[trajectory.split.train].tolist()}
    tokens = grid.circle.tokens.tolist()
    for i, a in enumerate(tokens):
        for j, b in enumerate(tokens):
            answer = (a - b) % 7 if name == "subtraction" else a * pow(b, -1, 7) % 7
            assert grid.answer_tokens[i, j] == answer
            assert grid.labels[i, j] == label_of[a, b]
            assert grid.is_train[i, j] == ((a, b) in train)
    assert 0 < int((grid.labels != grid.answer_tokens).sum()) <= 3, "outliers, on the circle or off it"


def test_pair_losses_are_cross_entropies_of_pairs():
    logits, labels = noise(3, 3, 5), torch.tensor([[0, 1, 2], [3, 4, 0], [1, 2, 3]])
    losses = pair_losses(logits, labels)
    for i in range(3):
        for j in range(3):
            torch.testing.assert_close(losses[i, j], F.cross_entropy(logits[i, j], labels[i, j]))


@pytest.mark.parametrize("logits_per_batch", [2**24, 30])
def test_group_logits_are_reduced_as_loops_over_pairs(monkeypatch, logits_per_batch):
    """With 30 logits per batch, the 36 pairs of S3 are in batches of five."""
    monkeypatch.setattr(pairs, "_LOGITS_PER_BATCH", logits_per_batch)
    trajectory = random_trajectory(TaskConfig(name="composition", group="S3"))
    composition, model = as_composition(trajectory.task), trajectory.model
    group_logits = GroupLogits(model, trajectory.task, trajectory.split, composition)
    batches = group_logits.batches(trajectory.last.parameters)
    assert isinstance(batches, list) == (logits_per_batch == 2**24)
    table, n = torch.from_numpy(composition.group.table), 6
    logits = model.logits(trajectory.last.parameters, trajectory.task.inputs[composition.examples.flatten()])[:, :n]
    logits = (logits - logits.mean(-1, keepdim=True)).unflatten(0, (n, n))

    orders = torch.tensor([[1, 0, 2, 3, 5, 4], [5, 4, 3, 2, 1, 0]])
    means, shuffled, mean_square = group_logits.product_means(batches, orders)
    torch.testing.assert_close(mean_square, logits.square().mean())
    for order, order_means in zip([torch.arange(n), *orders], [means, *shuffled], strict=True):
        expected = torch.zeros(n, n, dtype=torch.float64)
        for a in range(n):
            for b in range(n):
                for c in range(n):
                    # The pair (a, b) and the answer order[c] are read as order[a], order[b] and c.
                    expected[table[order[a], order[b]], c] += logits[a, b, order.argsort()[c]] / n
        torch.testing.assert_close(order_means, expected)

    removed = noise(2, n, n)
    loss, train_loss, excluded = group_logits.losses(batches, removed)
    is_train = torch.isin(composition.examples, trajectory.split.train)
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), table.flatten()))
    torch.testing.assert_close(train_loss, F.cross_entropy(logits[is_train], table[is_train]))
    for i in range(2):
        without = logits[is_train] - removed[i][table[is_train]]
        torch.testing.assert_close(excluded[i], F.cross_entropy(without, table[is_train]))
