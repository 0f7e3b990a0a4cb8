"""The components of a transformer, and the parameters that belong to each."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("embed",),
    "positions": ("pos_embed",),
    "attention": ("attn", "ln1"),
    "mlp": ("mlp", "ln2"),
    "unembedding": ("unembed", "ln_final"),
}
"""Each component with its modules under TransformerLens names. A LayerNorm belongs to the component that reads it."""


def component_of(parameter: str) -> str:
    """Return the component that a parameter belongs to: with other names than TransformerLens's, its first word."""
    words = parameter.split(".")
    known = (component for component, modules in COMPONENTS.items() if set(modules) & set(words))
    return next(known, words[0])


def parameter_label(parameter: str) -> str:
    """Return a parameter's name as a legend shows it: "W_K", "ln1.w", and with its block's number after the first."""
    path, _, leaf = parameter.rpartition(".")
    parts = path.split(".")
    is_unnamed = parts[-1].startswith("ln") or leaf in ("weight", "bias")
    sublayer = f"{parts[-1]}." if is_unnamed else ""
    block = f" {parts[1]}" if parts[0] == "blocks" and parts[1] != "0" else ""
    return f"{sublayer}{leaf}{block}"


def group_by_component(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Return the parameters of each component, in the order of COMPONENTS, then others; without empty components."""
    groups: dict[str, list[str]] = {component: [] for component in COMPONENTS}
    for name in parameters:
        groups.setdefault(component_of(name), []).append(name)
    return {component: names for component, names in groups.items() if names}


def component_vectors(
    tensors: Mapping[str, Tensor], components: Mapping[str, Sequence[str]]
) -> list[Float[Tensor, " n_of_component"]]:
    """Return the tensors of each component as one float64 vector."""
    return [torch.cat([tensors[name].flatten() for name in names]).double() for names in components.values()]


def cosine(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return a·b / (‖a‖ ‖b‖), or 0 if a or b is zero."""
    return F.cosine_similarity(a, b, dim=0, eps=torch.finfo(a.dtype).tiny)
