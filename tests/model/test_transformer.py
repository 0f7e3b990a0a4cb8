"""The model against HookedTransformer's own forward pass, for every architecture that a config allows.

HookedTransformer is an independent oracle: it computes every position of every example with its own einsums and
hooks. It shares only the parameters' names with `Model.logits`.
"""

import functools
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.small_models import random_parameters, small_model

from grokscope import tasks
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.errors import GrokscopeError
from grokscope.model import families, losses

ARCHITECTURES = [
    {"n_layers": n_layers, "act_fn": act_fn, "normalization_type": norm, "biases": biases}
    for n_layers, act_fn, norm, biases in product((1, 2, 3), ("relu", "gelu"), (None, "LN"), ("all", "mlp", "none"))
]
# At its first vmap, torch imports decompositions that still call torch.jit.script.
VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def assert_agrees_with_hooked(model: families.Model, task: tasks.Task) -> None:
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
    model: families.Model,
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


def test_output_columns_may_exceed_the_answers():
    model, task = small_model(d_vocab_out=7)
    parameters = random_parameters(model)
    assert model.shapes["unembed.W_U"] == (8, 7)
    expected = torch.as_tensor(model.hooked_transformer(parameters)(task.inputs))[:, -1]
    torch.testing.assert_close(model.logits(parameters, task.inputs), expected, rtol=0, atol=1e-10)


def test_fewer_output_columns_than_answers_are_refused():
    with pytest.raises(GrokscopeError, match=r"model.d_vocab_out: 4 is less than the 5 answers"):
        small_model(d_vocab_out=4)
