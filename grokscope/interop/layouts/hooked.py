"""Transformers under TransformerLens' names: its own shapes, and those of Nanda et al. 2023 and Zhong et al. 2023."""

import re
from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

NAME = re.compile(
    r"embed\.W_E|pos_embed\.W_pos|unembed\.(W|b)_U|ln_final\.[wb]|blocks\.\d+\."
    r"(ln[12]\.[wb]|attn\.((W|b)_[QKVO]|mask|IGNORE|rotary_(sin|cos))|mlp\.(W|b)_(in|gate|out))"
)
"""TransformerLens' names, which Nanda et al. 2023 share."""

_OF_AN_MLP = ("unembed.W_U", "unembed.b_U")
"""The names that other programs give to parts of an MLP too."""


def is_hooked(parameters: Mapping[str, Any]) -> bool:
    """Return whether a state dict has TransformerLens' names, apart from an MLP between embedding and answers."""
    names = set(parameters)
    if any(re.fullmatch(r"blocks\.\d+\.attn\.W_Q", name) for name in names):
        return True
    return "embed.W_E" in names and any(NAME.fullmatch(name) for name in names - {"embed.W_E", *_OF_AN_MLP})


def has_flat_heads(parameters: Mapping[str, Any]) -> bool:
    """Return whether a W_O has two axes, which marks the layout of Nanda et al. 2023."""
    return any(
        isinstance(value, Tensor) and re.fullmatch(r"blocks\.\d+\.attn\.W_O", name) and value.ndim == 2
        for name, value in parameters.items()
    )


def to_transformer_lens(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in TransformerLens' names and shapes, also if Nanda et al. 2023 saved them.

    A W_O with two axes marks their format: W_E, W_in, W_out, W_Q, W_K and W_V have d_model as the last axis, and W_O
    is (d_model, heads · d_head). A parameter of any other shape is returned unchanged, so that the trajectory names
    it in its error.
    """
    # The tables of rotary positions follow from the config.
    parameters = {
        name: value for name, value in parameters.items() if not name.endswith(("rotary_sin", "rotary_cos"))
    }
    if not has_flat_heads(parameters):
        return parameters
    for name, value in list(parameters.items()):
        leaf = name.rpartition(".")[2]
        if not isinstance(value, Tensor) or not value.numel():
            continue
        if leaf in ("W_E", "W_in", "W_out") and value.ndim == 2:
            parameters[name] = value.T
        elif leaf in ("W_Q", "W_K", "W_V") and value.ndim == 3:
            parameters[name] = value.mT
        elif leaf == "W_O" and value.ndim == 2:
            keys = parameters.get(name.replace("W_O", "W_K"))
            n_heads = keys.shape[0] if isinstance(keys, Tensor) and keys.ndim == 3 else 0
            if n_heads and value.shape[1] % n_heads == 0:
                parameters[name] = rearrange(value, "d_model (head d_head) -> head d_head d_model", head=n_heads)
    return parameters
