"""The measure `algorithm` on models made by hand and on planted trajectories.

The oracle of the gradients is HookedTransformer with a hook, one equation at a time.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from support.clock_and_pizza import share_of_other_formula
from support.plugin_tasks import register_task as register_task
from support.plugin_tasks import two_tokens

from grokscope import Trajectory, measures, tasks
from grokscope.circuits.clock_and_pizza import verdict
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.measures.algorithm import operand_gradients
from grokscope.model import families

FOREIGN = Path(__file__).parents[2].parent / "shared" / "foreign"
ARCHITECTURES = {
    "one layer": ("a b =", [0, 1], ModelConfig(d_model=16, n_heads=2, d_mlp=24)),
    "with a sign": ("a ∘ b =", [0, 2], ModelConfig(d_model=16, n_heads=2, d_mlp=24)),
    "two tokens": ("a b", [0, 1], ModelConfig(d_model=16, n_heads=2, d_mlp=24)),
    "two layers, LayerNorm": (
        "a b =",
        [0, 1],
        ModelConfig(
            d_model=16, n_heads=2, d_mlp=24, n_layers=2, normalization_type="LN", act_fn="gelu", biases="all"
        ),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_operand_gradients_equal_hooked_transformers(name, register_task):
    """The hook makes the output of the embedding a leaf."""
    form, positions, model = ARCHITECTURES[name]
    task = dataclasses.replace(register_task(two_tokens), p=7) if form == "a b" else TaskConfig(p=7, form=form)
    config = RunConfig(task=task, model=model)
    parameters = families.build(model, tasks.build(config.task)).initialize(0)
    trajectory = Trajectory.from_state_dicts(config, {0: parameters})
    hooked = trajectory.model.hooked_transformer({name: tensor.double() for name, tensor in parameters.items()})
    equations, classes = trajectory.task.inputs[[0, 8, 11, 48]], torch.tensor([1, 0, 5, 6])
    first, second = operand_gradients(trajectory, parameters, equations, classes)
    leaves = {}

    def make_leaf(value, hook):
        leaves["embed"] = value.detach().requires_grad_()
        return leaves["embed"]

    for i, (tokens, label) in enumerate(zip(equations, classes, strict=True)):
        logits = hooked.run_with_hooks(tokens[None], fwd_hooks=[("hook_embed", make_leaf)])
        logits[0, -1, label].backward()
        gradients = torch.stack([first[i], second[i]])
        torch.testing.assert_close(gradients, leaves["embed"].grad[0, positions], rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(not FOREIGN.is_dir(), reason="needs the published files")
def test_published_clock_of_two_tokens_has_published_values(register_task):
    weights = torch.load(FOREIGN / "zhong2023" / "model_l8k1hzciux.pt", weights_only=True, map_location="cpu")
    block = "blocks.0."
    parameters = {
        "embed.W_E": weights["embed.W_E"].T,
        "pos_embed.W_pos": weights["pos_embed.W_pos"],
        "unembed.W_U": weights["unembed.W_U"],
        f"{block}attn.W_O": rearrange(
            weights[f"{block}attn.W_O"], "d_model (head d_head) -> head d_head d_model", head=4
        ),
        **{f"{block}attn.W_{name}": weights[f"{block}attn.W_{name}"].mT for name in "QKV"},
        **{f"{block}mlp.{name}": weights[f"{block}mlp.{name}"].T for name in ("W_in", "W_out")},
        **{f"{block}mlp.{name}": weights[f"{block}mlp.{name}"] for name in ("b_in", "b_out")},
    }
    config = RunConfig(task=dataclasses.replace(register_task(two_tokens), p=59), model=ModelConfig())
    shapes = families.build(config.model, tasks.build(config.task)).shapes
    zeros = {name: torch.zeros(shape) for name, shape in shapes.items()}
    trajectory = Trajectory.from_state_dicts(config, {0: zeros | parameters})
    series = measures.evaluate("algorithm", trajectory, n_triples=2000)
    tolerance = 3 * series["gradient_symmetricity_stderr"][0]
    assert series["gradient_symmetricity"][0] == pytest.approx(0.3336, abs=tolerance)
    assert tolerance < 0.05
    assert series["distance_irrelevance"][0] == pytest.approx(0.8483, abs=2e-4)


def symmetric(trajectory) -> dict[str, torch.Tensor]:
    """Return parameters of a function of E_a + E_b: zero positions, and uniform attention."""
    parameters = dict(trajectory.first.parameters)
    parameters["pos_embed.W_pos"] = torch.zeros_like(parameters["pos_embed.W_pos"])
    for name in ("W_Q", "b_Q"):
        parameters[f"blocks.0.attn.{name}"] = torch.zeros_like(parameters[f"blocks.0.attn.{name}"])
    return parameters


def test_only_a_function_of_the_sum_is_symmetric(plant):
    untrained = plant({0: {}})
    even = symmetric(untrained)
    generator = torch.Generator().manual_seed(0)
    lopsided = even | {"pos_embed.W_pos": 20 * torch.randn(3, 16, generator=generator)}
    series = measures.evaluate("algorithm", plant({0: even, 1: lopsided}))
    assert series["gradient_symmetricity"][0] == pytest.approx(1, abs=1e-12)
    assert series["gradient_symmetricity_stderr"][0] < 1e-12
    # The attention weights stay equal for any positions, because the query is zero.
    assert series["gradient_symmetricity"][1] == pytest.approx(1, abs=1e-12)
    query = torch.randn(2, 16, 8, generator=generator)
    sharp = plant({0: lopsided | {"blocks.0.attn.W_Q": query}})
    assert measures.evaluate("algorithm", sharp)["gradient_symmetricity"][0] < 0.9


@pytest.mark.parametrize("name", ["addition", "subtraction", "multiplication", "division"])
def test_untrained_model_is_near_1_on_both(name, plant):
    series = measures.evaluate("algorithm", plant({0: {}}, p=23, name=name, d_model=64, d_mlp=64))
    assert series["gradient_symmetricity"][0] > 0.95
    assert series["distance_irrelevance"][0] > 0.9
    assert series["distance_irrelevance_shuffled"][0] > 0.9
    for control in ("gradient_symmetricity", "distance_irrelevance", "clock_explained_variance"):
        np.testing.assert_allclose(series[f"{control}_initialization"], series[control][0], rtol=1e-9)
    assert verdict(series).algorithm == "undecided"


def test_wrong_task_and_options_are_rejected(plant):
    with pytest.raises(GrokscopeError, match="is not circular"):
        measures.evaluate("algorithm", plant({0: {}}, name="a2_b2"))
    for option in ("n_triples", "n_pairs", "n_shuffles"):
        with pytest.raises(GrokscopeError, match=f"{option}: 1.*from 2"):
            measures.evaluate("algorithm", plant({0: {}}), **{option: 1})


def pizza(plant, n: int, frequency: int):
    """Return a trajectory of a model that adds by a pizza with one frequency.

    Uniform attention passes the sum of two embeddings (cos wi, sin wi) to pairs of ReLU neurons
    r(z) + r(−z) = |z| in many directions φ. They are read out with cos(2φ) and sin(2φ):
    Σ_φ |⟨E_a + E_b, u_φ⟩| e^{2iφ} ∝ |E_a + E_b| e^{iw(i + j)}, which has length |cos(w(i − j)/2)|.
    """
    width, n_directions = 16, 64
    t = torch.arange(n, dtype=torch.float64) * 2 * math.pi * frequency / n
    W_E = torch.zeros(n + 1, width, dtype=torch.float64)
    W_E[:n, 0], W_E[:n, 1] = t.cos(), t.sin()
    trajectory = plant({0: {}}, p=n, d_model=width, n_heads=1, d_mlp=2 * n_directions)
    parameters = {name: torch.zeros_like(W).double() for name, W in trajectory.first.parameters.items()}
    parameters["embed.W_E"] = W_E
    parameters["blocks.0.attn.W_V"] = torch.eye(width, dtype=torch.float64)[None]
    parameters["blocks.0.attn.W_O"] = 3 * torch.eye(width, dtype=torch.float64)[None]
    phi = torch.arange(n_directions, dtype=torch.float64) * math.pi / n_directions
    directions = torch.cat([torch.stack([phi.cos(), phi.sin()]), -torch.stack([phi.cos(), phi.sin()])], 1)
    parameters["blocks.0.mlp.W_in"][:2] = directions
    readout = torch.stack([(2 * phi).cos(), (2 * phi).sin()], 1).repeat(2, 1)
    parameters["blocks.0.mlp.W_out"][:, 2:4] = readout
    parameters["unembed.W_U"][2], parameters["unembed.W_U"][3] = t.cos(), t.sin()
    return plant({0: parameters}, p=n, d_model=width, n_heads=1, d_mlp=2 * n_directions)


@pytest.mark.parametrize("frequency", [1, 4])
def test_pizza_made_by_hand_is_a_pizza(frequency, plant):
    series = measures.evaluate("algorithm", pizza(plant, 13, frequency), n_pairs=200)
    assert series["circle_frequencies"].tolist() == [frequency]
    assert series["gradient_symmetricity"][0] == pytest.approx(1)
    assert series["distance_irrelevance"][0] < 0.01
    assert series["pizza_explained_variance"][0, 0] == pytest.approx(1, abs=1e-3)
    assert series["clock_explained_variance"][0, 0] == pytest.approx(share_of_other_formula(13, frequency), abs=1e-2)
    assert series["pizza_explained_variance_stderr"][0].tolist() == [0], "all 169 equations were taken"
    judgement = verdict(series)
    assert (judgement.algorithm, judgement.circles) == ("pizza", {frequency: "pizza"})
    assert f"pizza at {frequency}" in judgement.sentence and "untrained" in judgement.sentence


def test_circle_frequencies_are_the_strongest_of_the_last_step(plant):
    n = 23
    t = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    waves = [(k * t + phase).cos() * radius for k, radius in ((3, 1.0), (7, 2.0)) for phase in (0.0, 1.3)]
    W_E = torch.zeros(n + 1, 16, dtype=torch.float64)
    W_E[:n, :4] = torch.stack(waves, 1)
    series = measures.evaluate("algorithm", plant({0: {}, 5: {"embed.W_E": W_E}}, p=n))
    assert series["circle_frequencies"].tolist() == [7, 3]


def test_seeds_agree_within_their_standard_errors(plant):
    first, second = (measures.evaluate("algorithm", plant({0: {}}), seed=seed) for seed in (0, 1))
    for name in ("gradient_symmetricity", "distance_irrelevance_shuffled"):
        error = math.hypot(first[f"{name}_stderr"][0], second[f"{name}_stderr"][0])
        assert 0 < abs(first[name][0] - second[name][0]) < 5 * error
