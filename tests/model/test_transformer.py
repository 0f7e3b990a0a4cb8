"""The model against HookedTransformer's own forward pass, for every architecture that a config allows.

HookedTransformer is an independent oracle: it computes every position of every example with its own einsums and
hooks. It shares only the parameters' names with `Model.logits`.
"""

import functools
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from support.small_models import random_parameters, small_model

from grokscope import tasks
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.model import losses, transformer

ARCHITECTURES = [
    {"n_layers": n_layers, "act_fn": act_fn, "normalization_type": norm, "biases": biases}
    for n_layers, act_fn, norm, biases in product((1, 2, 3), ("relu", "gelu"), (None, "LN"), ("all", "mlp", "none"))
]
# At its first vmap, torch imports decompositions that still call torch.jit.script.
VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def assert_agrees_with_hooked(model: transformer.Model, task: tasks.Task) -> None:
    """Assert that logits and gradients agree with those of HookedTransformer in float64."""
    parameters = {name: tensor.requires_grad_() for name, tensor in random_parameters(model).items()}
    hooked = model.hooked_transformer(parameters)
    logits = model.logits(parameters, task.inputs)
    expected = hooked(task.inputs)[:, -1]
    assert logits.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((logits * weights).sum(), list(parameters.values()))
    (expected * weights).sum().backward()
    hooked_parameters = dict(hooked.named_parameters())
    assert set(hooked_parameters) == set(parameters)
    for name, gradient in zip(parameters, gradients, strict=True):
        expected_gradient = hooked_parameters[name].grad
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda settings: "-".join(map(str, settings.values())))
def test_logits_and_gradients_agree_with_hooked_transformer(architecture, form):
    assert_agrees_with_hooked(*small_model(form, **architecture))


@pytest.mark.parametrize("n_heads", [1, 4, 8])
def test_every_number_of_heads_agrees_with_hooked(n_heads):
    assert_agrees_with_hooked(*small_model(n_layers=2, n_heads=n_heads, normalization_type="LN"))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda settings: "-".join(map(str, settings.values())))
def test_shapes_agree_and_frozen_biases_are_not_trained(architecture):
    model, _ = small_model(**architecture)
    hooked = model.hooked_transformer(model.initialize(0))
    assert model.shapes == {name: tuple(tensor.shape) for name, tensor in hooked.named_parameters()}
    assert hooked.cfg.eps == 1e-5, "LayerNorm's ε differs from TransformerLens's default"
    biases = {name for name in model.shapes if name.split(".")[-1].startswith("b_")}
    mlp_biases = {name for name in biases if ".mlp." in name}
    frozen = {"all": set(), "mlp": biases - mlp_biases, "none": biases}[architecture["biases"]]
    assert set(model.trained) == set(model.shapes) - frozen


@pytest.mark.parametrize("n_layers", [1, 2])
def test_answer_depends_only_on_its_own_tokens(n_layers):
    """Examples share lookups, but do not mix: any batch in any order gives the same logits."""
    model, task = small_model(n_layers=n_layers, normalization_type="LN")
    parameters = random_parameters(model)
    chosen = torch.tensor([17, 3, 3, 24, 0])
    torch.testing.assert_close(
        model.logits(parameters, task.inputs[chosen]), model.logits(parameters, task.inputs)[chosen]
    )


@VMAP
@pytest.mark.parametrize(("n_layers", "norm"), [(1, None), (1, "LN"), (2, None), (2, "LN")])
def test_vmapped_models_agree_with_single_models(n_layers, norm):
    model, task = small_model(n_layers=n_layers, normalization_type=norm)
    members = [random_parameters(model, seed) for seed in range(3)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in model.shapes}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return losses.cross_entropy(model.logits(parameters, task.inputs), task.labels).mean()

    logits = torch.func.vmap(lambda parameters: model.logits(parameters, task.inputs))(stacked)
    gradients = torch.func.vmap(torch.func.grad(loss))(stacked)
    for i, member in enumerate(members):
        torch.testing.assert_close(logits[i], model.logits(member, task.inputs))
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in member.items()}
        expected = torch.autograd.grad(loss(leaves), list(leaves.values()))
        for name, gradient in zip(leaves, expected, strict=True):
            torch.testing.assert_close(gradients[name][i], gradient)


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize(("n_layers", "norm"), [(1, None), (1, "LN"), (2, "LN"), (3, None)])
def test_second_derivative_is_a_difference_of_gradients(n_layers, norm, form):
    """Central differences of the gradient do not use double backward; their error is of order ε²."""
    model, task = small_model(form, n_layers=n_layers, normalization_type=norm, act_fn="gelu")
    parameters, direction = random_parameters(model, scale=0.25), random_parameters(model, seed=1)

    def gradient(offset: float, create_graph: bool = False):
        leaves = {name: (tensor + offset * direction[name]).requires_grad_() for name, tensor in parameters.items()}
        loss = losses.cross_entropy(model.logits(leaves, task.inputs), task.labels).mean()
        return list(leaves.values()), torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph)

    leaves, first = gradient(0.0, create_graph=True)
    along = torch.stack([(g * direction[name]).sum() for name, g in zip(parameters, first, strict=True)]).sum()
    second = torch.autograd.grad(along, leaves, materialize_grads=True)
    forward, backward = gradient(1e-5)[1], gradient(-1e-5)[1]
    for exact, g_forward, g_backward in zip(second, forward, backward, strict=True):
        torch.testing.assert_close(exact, (g_forward - g_backward) / 2e-5, rtol=1e-5, atol=1e-7)


def test_hooked_transformer_holds_a_copy():
    model, task = small_model(n_layers=2)
    parameters = model.initialize(0)
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    hooked = model.hooked_transformer(parameters)
    logits, cache = hooked.run_with_cache(task.inputs)
    assert cache["pattern", 0].shape == (25, 2, 3, 3)
    answers = torch.as_tensor(logits)[:, -1]
    torch.testing.assert_close(answers, model.logits(parameters, task.inputs), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for tensor in hooked.parameters():
            tensor.add_(1)
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_model_leaves_global_generators_alone():
    """HookedTransformerConfig can reset them. Python's generator is not tested, because beartype draws from it."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # pyright: ignore
    model, task = small_model()
    parameters = model.initialize(3)
    model.hooked_transformer(parameters)
    losses.evaluate(model, parameters, task.inputs, task.labels)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # pyright: ignore


def test_initial_weights_have_the_deviations_of_the_paper():
    model, _ = small_model(p=113, d_model=128, n_heads=4, d_mlp=512, normalization_type="LN")
    for name, tensor in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert tensor.dtype == torch.float32
        if kind.startswith("W_"):
            expected = (114 if kind == "W_U" else 128) ** -0.5
            # For n normal numbers, the standard error of the deviation is σ/√(2n), and that of the mean is σ/√n.
            assert abs(tensor.std() / expected - 1) < 4 / (2 * tensor.numel()) ** 0.5
            assert abs(tensor.mean()) < 4 * expected / tensor.numel() ** 0.5
        else:
            assert (tensor == (1 if kind == "w" else 0)).all()


def test_initialization_depends_on_seed_and_parameter_name():
    model, _ = small_model(n_layers=2)
    first, repeated, changed = model.initialize(0), model.initialize(0), model.initialize(1)
    assert all(torch.equal(first[name], repeated[name]) for name in first)
    weights = [name for name in first if ".W_" in name]
    assert not any(torch.equal(first[name], changed[name]) for name in weights)
    # All tensors differ, and a deeper model has the same first layer as a shallower one.
    assert len({tuple(first[name].flatten()[:4].tolist()) for name in weights}) == len(weights)
    shallow = small_model(n_layers=1)[0].initialize(0)
    assert all(torch.equal(shallow[name], first[name]) for name in shallow)


def test_init_scale_multiplies_weight_matrices_only():
    plain, scaled = (small_model(init_scale=s, normalization_type="LN")[0].initialize(0) for s in (1.0, 4.0))
    for name, tensor in plain.items():
        torch.testing.assert_close(scaled[name], tensor * (4 if ".W_" in name else 1))


def test_faults_name_missing_unknown_and_misshapen_tensors():
    model, _ = small_model()
    parameters = model.initialize(0)
    assert model.faults(parameters) == []
    del parameters["embed.W_E"]
    parameters["blocks.0.attn.W_Q"] = torch.zeros(2, 8, 3)
    parameters["head.weight"] = torch.zeros(1)
    faults = model.faults(parameters)
    assert len(faults) == 3
    assert any("embed.W_E is missing" in fault for fault in faults)
    assert any("head.weight is unknown" in fault for fault in faults)
    assert any("blocks.0.attn.W_Q" in fault and "(2, 8, 3)" in fault and "(2, 8, 4)" in fault for fault in faults)


def masked_logits(
    model: transformer.Model,
    parameters: dict[str, torch.Tensor],
    tokens: torch.Tensor,
    masks: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return HookedTransformer's logits at the last position and its parameters, with masks applied by hooks.

    A mask for the last position only does not change the other positions of its block.
    """
    hooked = model.hooked_transformer(parameters)

    def multiply(mask: torch.Tensor, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.cat([value[:, : -mask.shape[1]], value[:, -mask.shape[1] :] * mask], dim=1)

    hooks = [(name, functools.partial(multiply, mask)) for name, mask in masks.items()]
    logits = hooked.run_with_hooks(tokens, fwd_hooks=hooks)  # pyright: ignore[reportArgumentType]
    return torch.as_tensor(logits)[:, -1], dict(hooked.named_parameters())


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize(("n_layers", "norm"), list(product((1, 2, 3), (None, "LN"))))
def test_dropout_masks_agree_with_hooks_on_sublayers(n_layers: int, norm: str | None, form: str):
    model, task = small_model(form, n_layers=n_layers, normalization_type=norm, biases="all")
    parameters = {name: tensor.requires_grad_() for name, tensor in random_parameters(model).items()}
    masks = model.dropout_masks(len(task.inputs), 0.4, torch.Generator().manual_seed(0))
    logits = model.logits(parameters, task.inputs, masks)
    expected, hooked_parameters = masked_logits(model, parameters, task.inputs, masks)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(F.cross_entropy(logits, task.labels), list(parameters.values()))
    F.cross_entropy(expected, task.labels).backward()
    for name, gradient in zip(parameters, gradients, strict=True):
        expected_gradient = hooked_parameters[name].grad
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    # Each mask changes the logits, and masks of ones do not.
    for name, mask in masks.items():
        without = {**masks, name: torch.ones_like(mask)}
        assert not torch.allclose(model.logits(parameters, task.inputs, without), logits, atol=1e-3)
    ones = {name: torch.ones_like(mask) for name, mask in masks.items()}
    torch.testing.assert_close(model.logits(parameters, task.inputs, ones), model.logits(parameters, task.inputs))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_masks_have_two_values_and_mean_one(probability: float):
    model, task = small_model("a ∘ b =", n_layers=3, d_model=32)
    masks = model.dropout_masks(400, probability, torch.Generator().manual_seed(1))
    assert list(masks) == [f"blocks.{layer}.hook_{part}_out" for layer in range(3) for part in ("attn", "mlp")]
    assert set(masks) <= set(model.hooked_transformer(model.initialize(0)).hook_dict)
    scale = float(np.float32(1) / np.float32(1 - probability))
    for name, mask in masks.items():
        assert mask.shape == (400, 1 if name.startswith("blocks.2.") else task.n_ctx, 32)
        assert mask.dtype == torch.float32
        assert mask.unique().tolist() == [0.0, pytest.approx(scale, rel=1e-6)]
        # The variance of an element is p/(1 − p).
        assert abs(mask.mean() - 1) < 4 * (probability / (1 - probability) / mask.numel()) ** 0.5
    flat = np.array([mask[:, -1].numpy().ravel() for mask in masks.values()])
    assert abs(np.corrcoef(flat) - np.eye(6)).max() < 5 / flat.shape[1] ** 0.5
    repeated = model.dropout_masks(400, probability, torch.Generator().manual_seed(1))
    changed = model.dropout_masks(400, probability, torch.Generator().manual_seed(2))
    assert all(torch.equal(repeated[name], mask) for name, mask in masks.items())
    assert not any(torch.equal(changed[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize(("d_model", "n_heads"), [(8, 2), (128, 4), (7, 1)])
def test_sinusoids_agree_with_their_paper(d_model: int, n_heads: int):
    """Vaswani et al. 2017, section 3.5: PE(pos, 2i) = sin(pos/10000^(2i/d)), PE(pos, 2i + 1) = cos of the same."""
    model, task = small_model("a ∘ b =", d_model=d_model, n_heads=n_heads, positions="sinusoidal", init_scale=3.0)
    expected = np.empty((4, d_model))
    for position in range(4):
        for column in range(d_model):
            angle = position / 10_000 ** (2 * (column // 2) / d_model)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    for seed in (0, 1):
        positions = model.initialize(seed)["pos_embed.W_pos"]
        assert positions.dtype == torch.float32
        np.testing.assert_allclose(positions.numpy(), expected, rtol=0, atol=6e-8)
    parameters = model.initialize(0)
    answers = torch.as_tensor(model.hooked_transformer(parameters)(task.inputs))[:, -1]
    torch.testing.assert_close(model.logits(parameters, task.inputs), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("biases", ["all", "mlp", "none"])
def test_sinusoids_change_only_the_training_of_positions(biases: str):
    learned, sinusoidal = (small_model(biases=biases, positions=kind)[0] for kind in ("learned", "sinusoidal"))
    assert set(learned.trained) - set(sinusoidal.trained) == {"pos_embed.W_pos"}
    assert [name for name in learned.trained if name != "pos_embed.W_pos"] == list(sinusoidal.trained)
    assert learned.shapes == sinusoidal.shapes
    first, second = learned.initialize(0), sinusoidal.initialize(0)
    assert all(torch.equal(first[name], second[name]) for name in sinusoidal.trained)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_init_torch_agrees_with_torch_layers(scale: float):
    """Each matrix has the distribution and bounds of a new torch.nn.Linear or Embedding of the same size."""
    model, task = small_model(
        p=97, d_model=96, n_heads=4, d_mlp=200, normalization_type="LN", n_layers=2, init="torch", init_scale=scale
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = {
            "W_U": torch.nn.Linear(96, 97),
            "W_in": torch.nn.Linear(96, 200),
            "W_out": torch.nn.Linear(200, 96),
            **{f"W_{name}": torch.nn.Linear(96, 96) for name in "QKVO"},
        }
        embedding = {"W_E": torch.nn.Embedding(98, 96), "W_pos": torch.nn.Embedding(3, 96)}
        torch_weights = {kind: layer.weight.detach() * scale for kind, layer in (linear | embedding).items()}
    kinds = set()
    for name, tensor in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert tensor.dtype == torch.float32
        if not kind.startswith("W_"):
            assert (tensor == (1 if kind == "w" else 0)).all()
            continue
        kinds.add(kind)
        theirs, ours = torch_weights[kind].flatten().numpy(), tensor.flatten().numpy()
        assert len(ours) == len(theirs)
        assert abs(ours.mean()) < 4 * theirs.std() / len(ours) ** 0.5
        if kind in embedding:
            assert abs(ours.std() / scale - 1) < 4 / (2 * len(ours)) ** 0.5
            assert stats.kstest(ours / scale, "norm").pvalue > 1e-3
        else:
            bound = scale / linear[kind].in_features ** 0.5
            assert 0.999 * bound < abs(ours).max() <= bound * (1 + 1e-6)
            assert 0.999 * bound < abs(theirs).max() <= bound * (1 + 1e-6)
            # For n uniform numbers, the standard error of the deviation is σ/√(5n).
            assert abs(ours.std() / (bound / 3**0.5) - 1) < 4 / (5 * len(ours)) ** 0.5
            assert stats.kstest(ours, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
        # The distance between two samples of n from one distribution exceeds 1.95 √(2/n) once in a thousand times.
        assert stats.ks_2samp(ours, theirs).statistic < 1.95 * (2 / len(ours)) ** 0.5  # pyright: ignore
    assert kinds == set(torch_weights)
