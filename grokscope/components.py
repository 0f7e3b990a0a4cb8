"""Components: the parts of a transformer, and which parameters belong to each."""

from collections.abc import Iterable, Mapping

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
    """Return the parameters of each component that has any, in the order of COMPONENTS."""
    found: dict[str, list[str]] = {name: [] for name in COMPONENTS}
    for parameter in parameters:
        found[component_of(parameter)].append(parameter)
    return {name: its for name, its in found.items() if its}
