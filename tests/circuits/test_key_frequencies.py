"""Key frequencies on planted logits, and W_L against HookedTransformer's own last layers."""

import torch
from support.circuits import cosines, lookup, sizes

from grokscope.circuits.key_frequencies import (
    LOSS_RISE,
    key_frequencies,
    losses_without_frequency,
    restricted_embedding,
    restricted_logits,
)
from grokscope.circuits.pairs import CircleGrid
from grokscope.config import TaskConfig
from grokscope.fourier import cyclic, cyclic_2d

P = 11


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_of(trajectory) -> CircleGrid:
    return CircleGrid.of(trajectory.model, trajectory.task, trajectory.split)


def test_consensus_is_named_by_a_rule_and_confirmed(plant):
    trajectory = plant({0: lookup(cosines(TaskConfig(p=P), {2: 3.0, 5: 1.5}))}, p=P, **sizes(P, P * P))
    keys = key_frequencies(grid_of(trajectory), trajectory.last.parameters)
    assert keys.consensus.tolist() == [2, 5]
    assert keys.removal.tolist() == (keys.loss_without > LOSS_RISE * keys.loss).tolist()
    constants = keys.constants()
    assert constants["frequencies"].tolist() == [1, 2, 3, 4, 5]
    assert constants["key_frequencies"].tolist() == constants["key_frequencies_removal"].tolist() == [2, 5]
    assert constants["key_frequencies_neuron_logits"].tolist() == [2, 5]


def test_removing_a_planted_cosine_leaves_the_others(plant):
    config = TaskConfig(name="division", p=P)
    trajectory = plant({0: {}}, p=P, name="division")
    grid = grid_of(trajectory)
    tokens = grid.circle.tokens

    def on_grid(alpha: dict[int, float]) -> torch.Tensor:
        return cosines(config, alpha)[tokens[:, None], tokens]

    losses = losses_without_frequency(grid, on_grid({3: 3.0, 5: 2.0}))
    for k, alpha in ((1, {3: 3.0, 5: 2.0}), (3, {5: 2.0}), (5, {3: 3.0})):
        expected = torch.nn.functional.cross_entropy(on_grid(alpha).flatten(0, 1), grid.answer_tokens.flatten())
        torch.testing.assert_close(losses[k - 1], expected)


def test_restricted_logits_keep_key_cosines_and_class_means(plant):
    grid = grid_of(plant({0: {}}, p=P))
    offsets = torch.arange(P).double()
    logits = cosines(TaskConfig(p=P), {2: 3.0, 5: 1.5}) + offsets
    means = cyclic_2d.answer_means(logits, grid.circle.answers)
    expected = cyclic_2d.answer_means(cosines(TaskConfig(p=P), {2: 3.0}) + offsets, grid.circle.answers)
    torch.testing.assert_close(restricted_logits(means, torch.tensor([2])), expected)


def test_w_l_with_layer_norm_is_the_effect_of_a_neuron(plant):
    """Adding one neuron changes std · logits by its row of W_L, according to HookedTransformer's last layers."""
    architecture = {"normalization_type": "LN", "n_layers": 2, "biases": "all"}
    shapes = plant({0: {}}, **architecture).model.shapes
    parameters = {name: noise(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    trajectory = plant({0: parameters}, **architecture)
    W_L = trajectory.model.matrix("neuron_logits").read(parameters).T
    hooked = trajectory.last.model
    residual = noise(1, 1, 16, seed=77)

    def scaled_logits(x: torch.Tensor) -> torch.Tensor:
        scale = ((x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        offset = parameters["ln_final.b"] @ parameters["unembed.W_U"] + parameters["unembed.b_U"]
        return (hooked.unembed(hooked.ln_final(x)) - offset) * scale

    for neuron in (0, 7):
        changed = residual + parameters["blocks.1.mlp.W_out"][neuron]
        torch.testing.assert_close((scaled_logits(changed) - scaled_logits(residual))[0, 0], W_L[neuron])


def test_restricted_embedding_changes_only_the_circle(plant):
    trajectory = plant({0: {"embed.W_E": noise(P + 1, 16)}}, p=P, name="multiplication")
    circle = grid_of(trajectory).circle
    W_E = trajectory.last.parameters["embed.W_E"]
    restricted = restricted_embedding(W_E, circle, torch.tensor([3]))
    norms = cyclic.fourier_norms(restricted[circle.tokens])
    torch.testing.assert_close(norms[2], cyclic.fourier_norms(W_E[circle.tokens])[2])
    assert float(norms.sum() - norms[2]) < 1e-9
    torch.testing.assert_close(restricted[circle.tokens].mean(0), W_E[circle.tokens].mean(0))
    off_circle = torch.ones(P + 1, dtype=torch.bool)
    off_circle[circle.tokens] = False
    assert torch.equal(restricted[off_circle], W_E[off_circle])
