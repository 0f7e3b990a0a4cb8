"""The measure `ablations` against closed forms for models made by hand, and HookedTransformer's hooks for others."""

import math

import numpy as np
import pytest
import torch
from support.circuits import cosines, lookup, reader, sizes

from grokscope import measures, tasks
from grokscope.circuits.pairs import CircleGrid
from grokscope.config import TaskConfig

P = 11


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(name: str, table: torch.Tensor) -> float:
    """Return the mean cross-entropy of a table (a, b, class) over the pairs on the circle, with correct answers."""
    task = tasks.build(TaskConfig(name=name, p=P))
    assert task.circle is not None
    on = torch.isin(task.operands, task.circle).all(1)
    a, b = task.operands[on].T
    return torch.nn.functional.cross_entropy(table[a, b], task.labels[on]).item()


@pytest.mark.parametrize(("name", "alpha"), [("addition", {2: 3.0, 5: 1.5}), ("division", {3: 3.0, 5: 2.0})])
def test_only_planted_frequencies_change_the_loss(plant, name, alpha):
    config = TaskConfig(name=name, p=P)
    table = cosines(config, alpha)
    series = measures.evaluate("ablations", plant({0: lookup(table)}, p=P, name=name, **sizes(P, P * P)))
    assert series["loss"][0] == pytest.approx(loss_of(name, table))
    for k in series["frequencies"].tolist():
        without = cosines(config, {frequency: size for frequency, size in alpha.items() if frequency != k})
        only = cosines(config, {k: alpha[k]} if k in alpha else {})
        assert series["loss_without_frequency"][0, k - 1] == pytest.approx(loss_of(name, without))
        assert series["loss_with_only_frequency"][0, k - 1] == pytest.approx(loss_of(name, only))
    for part in ("attention", "mlp"):
        # The neurons get no input, or are not read, so all logits are zero.
        assert series[f"loss_without_{part}"][0] == pytest.approx(math.log(P))


def test_linear_neurons_equal_their_polynomials(plant):
    angle = 2 * math.pi * torch.arange(P, dtype=torch.float64)[:, None] * torch.tensor([1, 2, 4]) / P
    parameters = reader(P, angle.cos(), angle.sin(), torch.full((3,), 4.0, dtype=torch.float64), noise(3, P))
    series = measures.evaluate("ablations", plant({0: parameters}, p=P, **sizes(P, 3)))
    for name in ("loss_with_polynomials", "loss_with_all_polynomials"):
        assert series[name][0] == pytest.approx(series["loss"][0], rel=1e-12)


@pytest.fixture
def generic(plant):
    """A model of two blocks with LayerNorm and random parameters, its series and its HookedTransformer."""
    model = {"n_layers": 2, "normalization_type": "LN", "act_fn": "gelu", "biases": "all"}
    shapes = plant({0: {}}, **model).model.shapes
    parameters = {name: noise(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    trajectory = plant({0: parameters}, **model)
    return trajectory, measures.evaluate("ablations", trajectory), trajectory.last.model


def hooked_loss(trajectory, hooked, hooks) -> float:
    """Return the mean loss over all pairs of a HookedTransformer with some hooks."""
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    logits = hooked.run_with_hooks(grid.equations.tokens, fwd_hooks=hooks)[:, -1]
    return torch.nn.functional.cross_entropy(logits, grid.answer_tokens.flatten()).item()


@pytest.mark.parametrize(("part", "name"), [("attn", "loss_without_attention"), ("mlp", "loss_without_mlp")])
def test_sublayer_is_removed_as_by_a_hook(generic, part, name):
    trajectory, series, hooked = generic
    hooks = [(f"blocks.{layer}.hook_{part}_out", lambda value, hook: value * 0) for layer in (0, 1)]
    assert series[name][0] == pytest.approx(hooked_loss(trajectory, hooked, hooks), rel=1e-9)
    assert series["loss"][0] == pytest.approx(hooked_loss(trajectory, hooked, []), rel=1e-9)


def test_neurons_are_replaced_by_least_squares_polynomials(generic):
    """The oracle takes the best least-squares fit of nine functions over all frequencies, for each neuron."""
    trajectory, series, hooked = generic
    grid = CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)
    _, cache = hooked.run_with_cache(grid.equations.tokens)
    post = cache["blocks.1.mlp.hook_post"][:, -1].numpy()
    best, error = np.zeros_like(post), np.full(post.shape[1], np.inf)
    for k in range(1, P // 2 + 1):
        t = 2 * np.pi * k * np.arange(P) / P
        three = [np.ones(P), np.cos(t), np.sin(t)]
        nine = np.stack([np.outer(f, g).ravel() for f in three for g in three], 1)
        fit = nine @ np.linalg.lstsq(nine, post, rcond=None)[0]
        left = ((post - fit) ** 2).sum(0)
        best[:, left < error] = fit[:, left < error]
        error = np.minimum(error, left)

    def replace(value, hook):
        value[:, -1] = torch.from_numpy(best)
        return value

    expected = hooked_loss(trajectory, hooked, [("blocks.1.mlp.hook_post", replace)])
    assert series["loss_with_all_polynomials"][0] == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(series["loss"][0], rel=1e-5)
    # A random neuron does not belong to a frequency.
    assert series["loss_with_polynomials"][0] == pytest.approx(series["loss"][0], rel=1e-12)
