"""A checkpoint in TransformerLens 4: logits, hooks and weights against those of HookedTransformer and of the model.

`make test-lens4` runs this file with the newest TransformerLens 4. With version 3.9 the bridge is not tested.
"""

from typing import Any

import pytest
import torch

from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model import bridge
from grokscope.model.families import Model
from grokscope.model.transformer import Transformer

needs_bridge = pytest.mark.skipif(not bridge.is_needed(), reason="needs TransformerLens 4")
ARCHITECTURES = [
    ModelConfig(d_model=16, n_heads=2, d_mlp=24),
    ModelConfig(d_model=16, n_heads=2, d_mlp=24, n_layers=2, normalization_type="LN", biases="all", act_fn="gelu"),
    ModelConfig(d_model=16, n_heads=4, d_mlp=8, positions="sinusoidal", biases="none"),
]
HOOKS = {
    "hook_embed": (5, 3, 16),
    "hook_pos_embed": (5, 3, 16),
    "blocks.0.hook_resid_pre": (5, 3, 16),
    "blocks.0.hook_resid_mid": (5, 3, 16),
    "blocks.0.hook_resid_post": (5, 3, 16),
    "blocks.0.hook_attn_out": (5, 3, 16),
    "blocks.0.hook_mlp_out": (5, 3, 16),
    "blocks.0.attn.hook_q": (5, 3, 2, 8),
    "blocks.0.attn.hook_k": (5, 3, 2, 8),
    "blocks.0.attn.hook_v": (5, 3, 2, 8),
    "blocks.0.attn.hook_z": (5, 3, 2, 8),
    "blocks.0.attn.hook_attn_scores": (5, 2, 3, 3),
    "blocks.0.attn.hook_pattern": (5, 2, 3, 3),
    "blocks.0.mlp.hook_pre": (5, 3, 24),
    "blocks.0.mlp.hook_post": (5, 3, 24),
}
"""The names and shapes of HookedTransformer's hooks in a network without LayerNorm, for 5 equations of 3 tokens."""


def random_parameters(model: Model, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Return parameters in which nothing is zero, so that every one of them matters."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) / 4 for name, shape in model.shapes.items()}


def make(config: ModelConfig) -> tuple[Model, dict[str, torch.Tensor], torch.Tensor]:
    model = Transformer(config, 8, 7, 3)
    return model, random_parameters(model), torch.randint(8, (5, 3), generator=torch.Generator().manual_seed(2))


@needs_bridge
@pytest.mark.parametrize("config", ARCHITECTURES)
def test_bridge_has_the_logits_of_the_model(config: ModelConfig):
    model, parameters, tokens = make(config)
    before = torch.get_rng_state()
    hooked = model.hooked_transformer(parameters)
    assert type(hooked).__name__ == "TransformerBridge" and torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(hooked(tokens)[:, -1], model.logits(parameters, tokens), rtol=1e-10, atol=1e-10)
    single = {name: tensor.float() for name, tensor in parameters.items()}
    expected = model.logits(single, tokens)
    error = (model.hooked_transformer(single)(tokens)[:, -1] - expected).abs().max()
    assert error <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("config", ARCHITECTURES[:1])
def test_hooks_have_the_names_and_shapes_of_version_3(config: ModelConfig):
    model, parameters, tokens = make(config)
    _, activations = model.hooked_transformer(parameters).run_with_cache(tokens)
    assert {name: tuple(activations[name].shape) for name in HOOKS} == HOOKS


@pytest.mark.parametrize("config", ARCHITECTURES[:1])
def test_hook_changes_what_follows_it(config: ModelConfig):
    model, parameters, tokens = make(config)
    hooked = model.hooked_transformer(parameters)
    hooks: list[Any] = [("blocks.0.mlp.hook_post", lambda activation, hook: activation * 0)]
    without_mlp = parameters | {"blocks.0.mlp.W_out": torch.zeros_like(parameters["blocks.0.mlp.W_out"])}
    actual = hooked.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]
    torch.testing.assert_close(actual, model.logits(without_mlp, tokens), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", ARCHITECTURES[:2])
def test_weights_have_the_names_of_version_3(config: ModelConfig):
    model, parameters, _ = make(config)
    hooked = model.hooked_transformer(parameters)
    assert torch.equal(hooked.W_E, parameters["embed.W_E"]) and torch.equal(hooked.W_U, parameters["unembed.W_U"])
    for name in ("attn.W_Q", "attn.W_O", "mlp.W_in", "mlp.b_out"):
        stacked = torch.stack([parameters[f"blocks.{layer}.{name}"] for layer in range(config.n_layers)])
        assert torch.equal(getattr(hooked, name.split(".")[1]), stacked)


@pytest.mark.parametrize(
    ("argument", "value"), [("normalization_type", "RMS"), ("act_fn", "solu_ln"), ("parallel_attn_mlp", True)]
)
def test_architecture_without_a_bridge_is_refused(argument: str, value: object):
    model, parameters, _ = make(ARCHITECTURES[0])
    arguments = model.hooked_transformer_arguments | {argument: value}
    with pytest.raises(GrokscopeError, match=rf"{argument} = {value!r}\). Version 3.9 can: pip install"):
        bridge.transformer_bridge(arguments, parameters, lambda tokens: model.logits(parameters, tokens))


@needs_bridge
def test_bridge_with_other_logits_is_refused():
    model, parameters, _ = make(ARCHITECTURES[0])
    arguments = model.hooked_transformer_arguments
    with pytest.raises(GrokscopeError, match="its logits differ"):
        bridge.transformer_bridge(arguments, parameters, lambda tokens: model.logits(parameters, tokens) * 1.01)
