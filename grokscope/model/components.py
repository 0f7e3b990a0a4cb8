"""Components: the parts of a transformer, and which parameters belong to each."""

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
"""The parts of a transformer and their modules in TransformerLens' names: a LayerNorm goes with what reads it."""


def component_of(parameter: str) -> str:
    """Return which of COMPONENTS a parameter belongs to."""
    words = parameter.split(".")
    return next(name for name, modules in COMPONENTS.items() if set(modules) & set(words))


def by_component(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Return which of these parameters each component has, in COMPONENTS' order; one without any is left out."""
    found = [(component_of(name), name) for name in parameters]
    members = {one: [name for component, name in found if component == one] for one in COMPONENTS}
    return {component: names for component, names in members.items() if names}


def vectors(
    tensors: Mapping[str, Tensor], components: Mapping[str, Sequence[str]]
) -> list[Float[Tensor, " n_of_component"]]:
    """Return the tensors of each component, written as one vector in float64."""
    return [torch.cat([tensors[name].flatten() for name in names]).double() for names in components.values()]


def cosine(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return a·b / (‖a‖ ‖b‖), and 0 where a or b is zero."""
    return F.cosine_similarity(a, b, dim=0, eps=torch.finfo(a.dtype).tiny)
