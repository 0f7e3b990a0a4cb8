"""The layouts of other programs' state dicts, detected by content, and their conversion to TransformerLens' names.

A layout is one file with a function that recognises it and one that converts it. `read` tries them in turn.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from grokscope.interop.layouts import hooked, mlps
from grokscope.interop.layouts.mlps import Perceptron
from grokscope.interop.layouts.modules import Modules
from grokscope.interop.layouts.modules import read as read_modules

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "transformer.", "gpt_neox.")
"""What parallel, compiled and wrapped models add to names."""


@dataclass(frozen=True)
class Layout:
    """A state dict in a layout that was detected.

    Attributes:
        name: The layout in words.
        parameters: The tensors by their names in the file, without a common prefix.
        facts: The properties of the network that names and shapes determine, under the names of `architecture`.
        n_heads: The number of heads; None if the file does not tell.
        unknown: The names that the layout does not have.
        modules: The transformer of torch modules; None for another layout.
        perceptrons: The MLPs that the file may be, the most usual first; empty for a transformer.
    """

    name: str
    parameters: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    n_heads: int | None = None
    attention_width: int | None = None
    unknown: tuple[str, ...] = ()
    modules: Modules | None = None
    perceptrons: tuple[Perceptron, ...] = ()

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of tensors that the network does not train."""
        return self.perceptrons[0].constants if self.perceptrons else ()

    def with_perceptron(self, perceptron: Perceptron) -> "Layout":
        """Return the layout as one of the MLPs that the file may be."""
        return replace(self, name=perceptron.words, unknown=perceptron.unknown, perceptrons=(perceptron,))

    def to_transformer_lens(self, n_heads: int) -> dict[str, Any]:
        """Return the parameters under TransformerLens' names and shapes, with the names that the layout lacks.

        Args:
            n_heads: The number of heads, where the file does not tell.
        """
        if self.perceptrons:
            return self.perceptrons[0].parameters | {name: self.parameters[name] for name in self.unknown}
        if self.modules is None:
            return hooked.to_transformer_lens(self.parameters)
        converted: dict[str, Any] = self.modules.to_transformer_lens(n_heads)
        return converted | {name: self.parameters[name] for name in self.unknown}


def without_prefix(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a state dict under texts, without the prefix that all names share, and without those of wrappers.

    A prefix that a part of the names lacks, such as "transformer." beside "lm_head.weight", is dropped if it leaves
    different names.
    """
    parameters = {name if isinstance(name, str) else repr(name): value for name, value in state_dict.items()}
    while True:
        shared = os.path.commonprefix(list(parameters)).rpartition(".")[0] if len(parameters) > 1 else ""
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in parameters)), "")
        if shared and not shared.rpartition(".")[2].isdecimal() and "blocks" not in shared.split("."):
            prefix = f"{shared}."
        shorter = {name.removeprefix(prefix): value for name, value in parameters.items()}
        if not prefix or len(shorter) < len(parameters) or _is_numbered(prefix, parameters):
            return parameters
        parameters = shorter


def _is_numbered(prefix: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether a number follows the prefix, so that it names a container of layers."""
    return any(name.startswith(prefix) and name.removeprefix(prefix).split(".")[0].isdecimal() for name in parameters)


def read(state_dict: Mapping[Any, Any]) -> Layout | None:
    """Return a state dict with its layout; None if no layout fits.

    Args:
        state_dict: A state dict as another program saved it.
    """
    parameters = without_prefix(state_dict)
    if hooked.is_hooked(parameters):
        unknown = tuple(name for name in parameters if not hooked.NAME.fullmatch(name))
        is_flat = hooked.has_flat_heads(parameters)
        name = "Nanda et al. 2023" if is_flat else "TransformerLens"
        return Layout(name, parameters, {"has_flat_heads": is_flat}, unknown=unknown)
    tensors = {name: value for name, value in parameters.items() if isinstance(value, Tensor)}
    transformer = read_modules(tensors)
    if transformer is None:
        perceptrons = tuple(mlps.read(tensors))
        if not perceptrons:
            return None
        return Layout(perceptrons[0].words, parameters, unknown=perceptrons[0].unknown, perceptrons=perceptrons)
    unknown = (*transformer.unknown, *(name for name in parameters if name not in tensors))
    words = f"torch modules with {', '.join(transformer.features)}"
    return Layout(
        words, parameters, transformer.facts, transformer.n_heads, transformer.attention_width, unknown, transformer
    )


def extra_tensors(layout: Layout) -> dict[str, str]:
    """Return the names that the layout lacks, each with the parameter that it copies, or ""."""
    known = {
        name: value
        for name, value in layout.parameters.items()
        if name not in layout.unknown and isinstance(value, Tensor)
    }
    return {
        name: next((original for original, tensor in known.items() if _is_copy(layout.parameters[name], tensor)), "")
        for name in layout.unknown
    }


def _is_copy(value: Any, original: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dtype == original.dtype
        and (
            (value.shape == original.shape and bool((value == original).all()))
            or (value.ndim == 2 and value.T.shape == original.shape and bool((original == value.T).all()))
        )
    )
