"""TransformerLens 4: a checkpoint as a TransformerBridge, which replaces the HookedTransformer of version 3."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

AVAILABLE: Mapping[str, tuple[Any, ...]] = {
    "normalization_type": (None, "LN"),
    "act_fn": ("relu", "gelu", "gelu_new", "silu"),
    "n_layers": (),
    "d_model": (),
    "n_heads": (),
    "d_head": (),
    "d_mlp": (),
    "d_vocab": (),
    "d_vocab_out": (),
    "n_ctx": (),
    "eps": (),
    "init_weights": (),
}
"""The arguments of an architecture that the bridge has, with the allowed values; () stands for any value."""
_TOLERANCE = 1e-4
"""The largest difference of logits, relative to the largest logit, that rounding in float32 explains."""


@cache
def is_needed() -> bool:
    """Return whether TransformerLens is of version 4 or newer, which has no HookedTransformer."""
    return int(metadata.version("transformer-lens").partition(".")[0]) >= 4


def transformer_bridge(
    arguments: Mapping[str, Any], parameters: Mapping[str, Tensor], logits: Callable[[Tensor], Tensor]
) -> "HookedTransformer":
    """Return a TransformerBridge on the CPU with a copy of the parameters, without any weight processing.

    Its weights have the names of HookedTransformer as properties, such as `W_E` and `W_Q`. Its hooks have the names
    of HookedTransformer too, except for `hook_scale` and `hook_normalized` of LayerNorm, and the hooks that
    HookedTransformer has only on request. The type is HookedTransformer's, whose interface the bridge keeps.

    Args:
        arguments: The arguments of HookedTransformerConfig that describe the architecture.
        parameters: The parameters under their names of HookedTransformer.
        logits: The model's function from tokens (n, n_ctx) to the logits at the last position. The bridge must agree
            with it on random tokens.

    Raises:
        GrokscopeError: The bridge does not have this architecture.
    """
    for name, value in arguments.items():
        if name not in AVAILABLE or (AVAILABLE[name] and value not in AVAILABLE[name]):
            raise _unavailable(f"{name} = {value!r}")

    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.utilities.tl_checkpoint_conversion import (  # pyright: ignore[reportMissingImports]
        convert_tl_checkpoint,
    )

    config = TransformerBridgeConfig(**arguments)
    # The construction draws weights from torch's global generator, and discards them here.
    with torch.random.fork_rng(devices=[]):
        bridge: Any = TransformerBridge.boot_native(config, device="cpu", dtype=next(iter(parameters.values())).dtype)
    detached = {name: tensor.detach() for name, tensor in parameters.items()}
    bridge.load_state_dict(convert_tl_checkpoint(detached, config), strict=True)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(arguments["d_vocab"], (8, arguments["n_ctx"]), generator=generator)
    with torch.no_grad():
        expected, actual = logits(tokens), bridge(tokens)[:, -1]
    largest = float(expected.abs().max())
    if not float((actual - expected).abs().max()) <= _TOLERANCE * max(largest, 1.0):
        raise _unavailable("its logits differ")
    return bridge


def _unavailable(reason: str) -> GrokscopeError:
    return GrokscopeError(
        f"TransformerLens {metadata.version('transformer-lens')} cannot represent this network ({reason}). "
        "Version 3.9 can: pip install 'grokscope[hooked]'."
    )


def state_dict(arguments: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return HookedTransformer's complete state dict, parameters and buffers, without HookedTransformer.

    Args:
        arguments: The arguments of HookedTransformerConfig that describe the architecture; all in `AVAILABLE`.
        parameters: The parameters under their names of HookedTransformer.
    """
    state = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    for layer in range(arguments["n_layers"]):
        state[f"blocks.{layer}.attn.mask"] = torch.empty((0, 0), dtype=torch.bool)  # Built when it is needed.
        state[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    return state
