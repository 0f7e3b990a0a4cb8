"""HookedTransformer: the architectures that it has, built from arguments, and its forward pass as a pure function.

Importing TransformerLens takes some seconds, so only this file and `bridge` import it, and only when they need it.
"""

import json
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model import bridge
from grokscope.model.forward import LAYER_NORM_EPS, Hook, Masks, Parameters, mixed_with_constant

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


def arguments(config: ModelConfig, d_vocab: int, d_vocab_out: int, n_ctx: int) -> dict[str, Any]:
    """Return the arguments of HookedTransformerConfig for an architecture, as JSON-able values.

    Raises:
        GrokscopeError: HookedTransformer has no such architecture.
    """
    if config.normalization_type == "LNPost":
        raise GrokscopeError(
            "HookedTransformer has no LayerNorm after the residual addition, so it cannot represent this network "
            "(model.normalization_type 'LNPost')."
        )
    return {
        "n_layers": config.n_layers,
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "d_head": config.d_head or config.d_model // config.n_heads,
        "d_mlp": config.d_mlp,
        "d_vocab": d_vocab,
        "d_vocab_out": d_vocab_out,
        "n_ctx": n_ctx,
        # `construct` replaces the activation function that HookedTransformer does not have.
        "act_fn": "relu" if config.act_fn == "quadratic" else config.act_fn,
        "normalization_type": config.normalization_type,
        "eps": LAYER_NORM_EPS,
        "init_weights": False,
        **_arguments_that_differ(config),
    }


def _arguments_that_differ(config: ModelConfig) -> dict[str, Any]:
    """Return the arguments that differ from HookedTransformerConfig's defaults."""
    values = {name: getattr(config, name) for name in ("attn_only", "gated_mlp", "parallel_attn_mlp")}
    differing: dict[str, Any] = {name: True for name, value in values.items() if value}
    if config.attention_dir != "causal":
        differing["attention_dir"] = config.attention_dir
    if not config.use_attn_scale:
        differing["use_attn_scale"] = False
    if config.positions == "rotary":
        differing["positional_embedding_type"] = "rotary"
    return differing | config.option_values


def construct(
    config: ModelConfig, hooked_arguments: Mapping[str, Any], dtype: torch.dtype, device: str = "cpu"
) -> "HookedTransformer":
    """Return a HookedTransformer without meaningful weights.

    Constant attention and the quadratic activation are not among its arguments. A permanent hook on the pattern, and
    the activation function of each block, make both exact.

    Raises:
        GrokscopeError: HookedTransformer refuses the arguments, or TransformerLens does not have it.
    """
    if bridge.is_needed():
        raise GrokscopeError(
            "This architecture needs HookedTransformer, which TransformerLens 4 does not have. Version 3.9 has it: "
            "pip install 'grokscope[hooked]'."
        )

    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with warnings.catch_warnings():
        # TransformerLens 3 recommends version 4 at each construction, but version 4 has no HookedTransformer.
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        try:
            hooked_config = HookedTransformerConfig(
                **hooked_arguments,
                seed=None,  # A seed would reset the global generators of torch, NumPy and Python.
                device=device,
                dtype=dtype,
            )
            hooked = HookedTransformer(hooked_config, move_to_device=False)
        except (AssertionError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise GrokscopeError(f"model.options: HookedTransformer refuses {config.options}: {error}.") from error
    # HookedTransformer's own `to` prints, and it leaves some parameters in float32.
    torch.nn.Module.to(hooked, device=device, dtype=dtype)
    alpha, is_causal = config.attention_alpha, config.attention_dir == "causal"

    def mix(pattern: Tensor, *, hook: object) -> Tensor:
        return mixed_with_constant(pattern, alpha, is_causal)

    for block in hooked.blocks:
        if config.act_fn == "quadratic" and not config.attn_only:
            block.mlp.act_fn = torch.square
        if alpha != 1:
            block.attn.hook_pattern.add_hook(cast(Any, mix), is_permanent=True)
    return hooked


def logits(
    config: ModelConfig,
    hooked_arguments: Mapping[str, Any],
    parameters: Parameters,
    tokens: Int[Tensor, "n n_ctx"],
    dropout: Masks | None,
    hook: Hook | None,
    hook_names: Iterable[str],
) -> Float[Tensor, "n n_ctx d_vocab_out"]:
    """Return HookedTransformer's logits at every position as a pure function of the parameters.

    Args:
        config: The architecture.
        hooked_arguments: Its arguments, from `arguments`.
        parameters: All parameters, under TransformerLens names.
        tokens: The sequences.
        dropout: Masks by the name of the activation that they multiply.
        hook: Reads or replaces activations.
        hook_names: The names of the activations that `hook` receives.
    """
    first = next(iter(parameters.values()))
    hooked = _cached(config, as_key(hooked_arguments), first.dtype, str(first.device))
    hooks: list[Any] = [(name, lambda value, hook, mask=mask: value * mask) for name, mask in (dropout or {}).items()]
    if hook is not None:
        hooks += [(name, lambda value, hook, name=name, call=hook: call(name, value)) for name in hook_names]
    state = {**dict(hooked.named_buffers()), **parameters}
    with hooked.hooks(fwd_hooks=hooks):
        return torch.func.functional_call(hooked, state, (tokens,))


def as_key(hooked_arguments: Mapping[str, Any]) -> str:
    """Return the arguments as text, which the functions below take because it can be hashed."""
    return json.dumps(hooked_arguments)


@lru_cache(maxsize=8)
def _cached(config: ModelConfig, hooked_arguments: str, dtype: torch.dtype, device: str) -> "HookedTransformer":
    return construct(config, json.loads(hooked_arguments), dtype, device)


@lru_cache(maxsize=8)
def constants(config: ModelConfig, hooked_arguments: str) -> "dict[str, Tensor]":
    """Return HookedTransformer's parameters by name, in float32.

    Those whose name begins with "W_" or "_W_" have no meaningful value; the others have their initial values.
    """
    hooked = construct(config, json.loads(hooked_arguments), torch.float32)
    return {name: tensor.detach() for name, tensor in sorted(hooked.named_parameters())}
