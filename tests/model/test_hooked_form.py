"""Every architecture against HookedTransformer's own forward pass, called as a user calls it.

HookedTransformer with its own parameters and `forward` is the oracle for the simple forms, and for the function that
`torch.func.functional_call` makes of it. Architectures that it lacks are compared with formulas written out here.
"""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from support.small_models import random_parameters, small_model

from grokscope.config import ModelConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model.transformer import Transformer

VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
SIMPLE = {
    "d_head": {"d_head": 6},
    "wide heads, LN": {"d_head": 16, "normalization_type": "LN", "n_layers": 2},
    "attention only": {"attn_only": True, "n_layers": 2, "normalization_type": "LN"},
    "bidirectional": {"attention_dir": "bidirectional", "n_layers": 2, "normalization_type": "LN"},
    "no scale": {"use_attn_scale": False},
    "no positions": {"positions": "none"},
    "constant attention": {"attention_dir": "bidirectional", "attention_alpha": 0.0},
    "causal mixed attention": {"attention_alpha": 0.3, "n_layers": 2},
    "relu2": {"act_fn": "relu2"},
    "quadratic": {"act_fn": "quadratic", "n_layers": 2},
}
GENERAL = {
    "rotary": {"positions": "rotary", "n_layers": 2},
    "RMS, gated, silu": {"normalization_type": "RMS", "gated_mlp": True, "act_fn": "silu", "positions": "rotary"},
    "LNPre": {"normalization_type": "LNPre", "act_fn": "gelu_new"},
    "RMSPre": {"normalization_type": "RMSPre", "act_fn": "gelu_pytorch_tanh"},
    "parallel": {"parallel_attn_mlp": True, "normalization_type": "LN", "attention_dir": "bidirectional"},
    "parallel constant attention": {"parallel_attn_mlp": True, "attention_alpha": 0.5},
    "gated quadratic": {"gated_mlp": True, "act_fn": "quadratic"},
    "solu_ln": {"act_fn": "solu_ln", "normalization_type": "LN"},
    "xielu": {"act_fn": "xielu"},
    "grouped queries": {"options": json.dumps({"n_key_value_heads": 1})},
    "alibi, soft cap": {"options": json.dumps({"positional_embedding_type": "alibi", "attn_scores_soft_cap": 5.0})},
    "local attention": {"options": json.dumps({"use_local_attn": True, "window_size": 2, "attn_types": ["local"]})},
}
ARCHITECTURES = {**SIMPLE, **GENERAL}


def setup(settings: dict):
    """Return a small transformer, the tokens of its task, and float64 parameters."""
    model, task = small_model("a ∘ b =", **settings)
    assert isinstance(model, Transformer)
    parameters = random_parameters(model)
    if settings.get("positions") == "none":
        parameters["pos_embed.W_pos"].zero_()
    return model, task.inputs, parameters


@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_logits_and_gradients_are_those_of_hooked_transformer(settings: dict):
    model, tokens, parameters = setup(settings)
    assert model.config.is_simple == (settings in SIMPLE.values())
    assert RunConfig(model=model.config).faults() == []
    hooked = model.hooked_transformer(parameters)
    assert model.shapes == {name: tuple(tensor.shape) for name, tensor in sorted(hooked.named_parameters())}
    leaves = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
    for layout in (model, dataclasses.replace(model, has_all_positions=True)):
        logits, expected = layout.logits(leaves, tokens), torch.as_tensor(hooked(tokens))
        expected = expected if layout.has_all_positions else expected[:, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gradients = torch.autograd.grad((logits * weights).sum(), list(leaves.values()), materialize_grads=True)
        hooked.zero_grad()
        (expected * weights).sum().backward()
        for (name, parameter), gradient in zip(sorted(hooked.named_parameters()), gradients, strict=True):
            theirs = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradient, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_initial_model_is_finite_and_repeatable(settings: dict):
    model, tokens, _ = setup(settings)
    first, second, other = (model.initialize(seed) for seed in (0, 0, 1))
    assert model.faults(first) == [] and model.logits(first, tokens).isfinite().all()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.W_E"], other["embed.W_E"])


@VMAP
@pytest.mark.parametrize("name", ["bidirectional", "quadratic", "rotary", "RMS, gated, silu", "solu_ln"])
def test_models_can_be_vmapped_and_differentiated_twice(name: str):
    model, tokens, _ = setup(ARCHITECTURES[name])
    members = [random_parameters(model, seed, 0.3) for seed in range(2)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in model.shapes}
    together = torch.func.vmap(lambda parameters: model.logits(parameters, tokens))(stacked)
    for logits, member in zip(together, members, strict=True):
        torch.testing.assert_close(logits, model.logits(member, tokens), rtol=1e-9, atol=1e-9)

    member, direction = members

    def slope(offset: float, create_graph: bool = False):
        leaves = {name: (tensor + offset * direction[name]).requires_grad_() for name, tensor in member.items()}
        loss = model.logits(leaves, tokens).log_softmax(-1)[:, 0].square().mean()
        grads = torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph, materialize_grads=True)
        return list(leaves.values()), grads

    leaves, first = slope(0.0, create_graph=True)
    along = torch.stack([(g * direction[name]).sum() for name, g in zip(member, first, strict=True)]).sum()
    second = torch.autograd.grad(along, leaves, materialize_grads=True)
    for exact, after, before in zip(second, slope(1e-5)[1], slope(-1e-5)[1], strict=True):
        torch.testing.assert_close(exact, (after - before) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bidirectional", "rotary"])
def test_hook_receives_and_replaces_activations(name: str):
    model, tokens, parameters = setup(ARCHITECTURES[name])
    _, cache = model.hooked_transformer(parameters).run_with_cache(tokens)
    received: dict[str, torch.Tensor] = {}
    model.logits(parameters, tokens, hook=lambda name, value: received.setdefault(name, value))
    assert received.keys() == {"hook_embed", *model.neurons, *model.attention}
    for name, value in received.items():
        expected = cache[name]
        if name in model.attention:
            torch.testing.assert_close(value[:, :, -1], expected[:, :, -1], rtol=0, atol=1e-10)
        else:
            torch.testing.assert_close(value[:, -1], expected[:, -1], rtol=0, atol=1e-10)
    neurons_off = model.logits(parameters, tokens, hook=lambda name, value: value * (name not in model.neurons))
    bias = {name: tensor for name, tensor in parameters.items() if name.endswith("mlp.W_out")}
    without = model.logits({**parameters, **{name: tensor * 0 for name, tensor in bias.items()}}, tokens)
    torch.testing.assert_close(neurons_off, without, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["bidirectional", "rotary", "attention only"])
def test_dropout_masks_multiply_every_sublayer_s_output(name: str):
    model, tokens, parameters = setup(ARCHITECTURES[name])
    kept = model.dropout_masks(len(tokens), 0.0, torch.Generator())
    assert kept.keys() == set(model.sublayers)
    torch.testing.assert_close(model.logits(parameters, tokens, kept), model.logits(parameters, tokens))
    dropped = model.logits(parameters, tokens, {name: mask * 0 for name, mask in kept.items()})
    blocks = {name: tensor * ("blocks" not in name or "ln" in name) for name, tensor in parameters.items()}
    torch.testing.assert_close(dropped, model.logits(blocks, tokens), rtol=0, atol=1e-10)


def test_constant_attention_ignores_queries_and_keys():
    model, tokens, parameters = setup(SIMPLE["constant attention"])
    changed = {name: tensor * 3 if name[-3:] in ("W_Q", "W_K") else tensor for name, tensor in parameters.items()}
    torch.testing.assert_close(model.logits(changed, tokens), model.logits(parameters, tokens), rtol=0, atol=1e-12)
    patterns: list[torch.Tensor] = []
    model.logits(parameters, tokens, hook=lambda n, v: (patterns.append(v) if n in model.attention else None, v)[1])
    assert (patterns[0] == 1).all(), "α = 0 is a pattern of ones (Zhong et al. 2023)"


def test_post_norm_is_the_formula_of_power_et_al():
    """x ← LN(x + Attn(x)), x ← LN(x + MLP(x)), logits = x W_U + b_U, written out for one head at a time."""
    model, tokens, p = setup({"normalization_type": "LNPost", "n_layers": 2})
    x = p["embed.W_E"][tokens] + p["pos_embed.W_pos"]
    for layer in range(2):
        attn, mlp, ln1, ln2 = (
            {name.removeprefix(prefix): p[name] for name in p if name.startswith(prefix)}
            for prefix in (f"blocks.{layer}.{part}." for part in ("attn", "mlp", "ln1", "ln2"))
        )
        added = attn["b_O"]
        for head in range(2):
            q, k, v = (x @ attn[f"W_{n}"][head] + attn[f"b_{n}"][head] for n in "QKV")
            scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
            added = added + scores.softmax(-1) @ v @ attn["W_O"][head]
        x = F.layer_norm(x + added, (8,), ln1["w"], ln1["b"], 1e-5)
        post = (x @ mlp["W_in"] + mlp["b_in"]).relu()
        x = F.layer_norm(x + post @ mlp["W_out"] + mlp["b_out"], (8,), ln2["w"], ln2["b"], 1e-5)
    expected = x @ p["unembed.W_U"] + p["unembed.b_U"]
    torch.testing.assert_close(model.logits(p, tokens), expected[:, -1], rtol=0, atol=1e-10)
    with pytest.raises(GrokscopeError, match=r"HookedTransformer has no LayerNorm after the residual addition"):
        model.hooked_transformer(p)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization_type": "LNPost", "gated_mlp": True}, "'LNPost' with gated_mlp"),
        ({"normalization_type": "LNPost", "act_fn": "silu"}, "'LNPost' with act_fn 'silu'"),
        ({"positions": "rotary", "d_head": 3}, "'rotary' with heads of width 3"),
        ({"options": '{"seed": 3}'}, "model.options.*'seed'"),
    ],
)
def test_architecture_that_nothing_computes_is_a_fault(settings: dict, message: str):
    with pytest.raises(GrokscopeError, match=message):
        RunConfig(model=ModelConfig(**settings)).validate()


def test_options_that_hooked_transformer_refuses_are_named():
    model, _ = small_model(options='{"use_local_attn": true}')
    with pytest.raises(GrokscopeError, match=r"model.options: HookedTransformer refuses .*window_size"):
        model.initialize(0)
