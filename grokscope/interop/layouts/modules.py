"""Transformers of torch modules, such as nanoGPT, GPT-2, GPT-NeoX, torch.nn layers and most programs of one's own.

`module_names.slots` finds the tensor of each part; this file brings it into TransformerLens' names and shapes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_name
from grokscope.interop.layouts.module_names import Named, Slot, slots

_NORMS = {"ln1": "ln1", "ln2": "ln2", "ln_final": "ln_final"}
_BY_HEAD = re.compile(r"query_key_value", re.IGNORECASE)
"""Fused projections in which each head has its query, key and value next to each other (GPT-NeoX)."""


@dataclass
class Modules:
    """A transformer of torch modules: its tensors by slot, and the properties that they determine."""

    tensors: dict[Slot, Named]
    unknown: list[str]
    """The names without a slot."""
    d_model: int
    n_layers: int
    facts: dict[str, Any] = field(default_factory=dict)
    """Properties of the architecture, under the names of HookedTransformerConfig and `architecture`."""
    features: list[str] = field(default_factory=list)
    """The properties of the layout, in words."""

    @property
    def attention_width(self) -> int:
        """The number of heads times their width."""
        for layer in range(self.n_layers):
            for part, factor in (("q", 1), ("qkv", 3)):
                named = self.tensors.get(Slot(part, layer=layer))
                if named is not None and named.tensor.ndim == 2:
                    return self._in_first(named).shape[1] // factor
        return self.d_model

    @property
    def n_heads(self) -> int | None:
        """The number of heads, where the file stores the heads apart; None where it does not tell."""
        heads = {slot.head for slot in self.tensors if slot.part == "q" and slot.layer == 0 and slot.kind == "weight"}
        if heads and None not in heads:
            return len(heads)
        named = self.tensors.get(Slot("q", layer=0))
        if named is None or named.tensor.ndim != 3:
            return None
        return named.tensor.shape[1] if named.tensor.shape[0] == self.d_model else named.tensor.shape[0]

    def to_transformer_lens(self, n_heads: int) -> dict[str, Tensor]:
        """Return the parameters under TransformerLens' names and shapes.

        Args:
            n_heads: The number of heads in each layer.

        Raises:
            GrokscopeError: A tensor has another shape than its part needs, or a part is missing.
        """
        result: dict[str, Tensor] = {}
        for slot, named in self.tensors.items():
            if slot.part.startswith("mask") or slot.head not in (None, 0):
                continue
            try:
                result |= self._converted(slot, named, n_heads)
            except Exception as error:  # einops raises several types for a shape that does not fit.
                if isinstance(error, GrokscopeError):
                    raise
                raise GrokscopeError(
                    f"{quoted_name(named.name)} has shape {tuple(named.tensor.shape)}, which does not fit {n_heads} "
                    f"heads and a width of {self.d_model}."
                ) from error
        if "unembed.W_U" not in result:
            result["unembed.W_U"] = result["embed.W_E"].T  # Tied weights are often stored once.
        return result

    def _converted(self, slot: Slot, named: Named, n_heads: int) -> dict[str, Tensor]:
        """Return a tensor under TransformerLens' names and in their shapes."""
        tensor, is_weight = named.tensor, slot.kind == "weight"
        block, leaf = f"blocks.{slot.layer}", "W" if is_weight else "b"
        if slot.part == "embed":
            return {"embed.W_E": tensor if tensor.shape[-1] == self.d_model else tensor.T}
        if slot.part == "pos":
            return {"pos_embed.W_pos": _positions(tensor, self.d_model)}
        if slot.part in _NORMS:
            name = slot.part if slot.part == "ln_final" else f"{block}.{slot.part}"
            return {f"{name}.{'w' if is_weight else 'b'}": tensor}
        if slot.part == "unembed":
            return {f"unembed.{leaf}_U": self._in_first(named) if is_weight else tensor}
        if slot.part in ("in", "gate", "out"):
            turn = self._out_last if slot.part == "out" else self._in_first
            return {f"{block}.mlp.{leaf}_{slot.part}": turn(named) if is_weight else tensor}
        if slot.part == "o":
            matrix = self._out_last(named) if is_weight and tensor.ndim == 2 else tensor
            if is_weight and matrix.ndim == 2:
                matrix = rearrange(matrix, "(head d_head) d_model -> head d_head d_model", head=n_heads)
            return {f"{block}.attn.{leaf}_O": matrix}
        letters = self._letters(named) if slot.part == "qkv" else slot.part
        parts = self._heads(slot, named, n_heads, len(letters))
        return {f"{block}.attn.{leaf}_{letter.upper()}": part for letter, part in zip(letters, parts, strict=True)}

    def _heads(self, slot: Slot, named: Named, n_heads: int, n_parts: int) -> list[Tensor]:
        """Return the projections of a tensor, each (head, d_model, d_head) or, for biases, (head, d_head)."""
        tensor, is_weight = named.tensor, slot.kind == "weight"
        if slot.head is not None:
            same = [s for s in self.tensors if (s.part, s.kind, s.layer) == (slot.part, slot.kind, slot.layer)]
            heads = [self.tensors[s] for s in sorted(same, key=lambda s: s.head or 0)]
            return [torch.stack([self._in_first(head) if is_weight else head.tensor for head in heads])]
        if not is_weight and tensor.ndim == 2 and n_parts == 1:
            return [tensor]
        if tensor.ndim == 3:
            axes = "d_model head d_head" if tensor.shape[0] == self.d_model else "head d_model d_head"
            if self.d_model not in tensor.shape[:2]:
                axes = "head d_head d_model"
            return [rearrange(tensor, f"{axes} -> head d_model d_head")]
        matrix = self._in_first(named) if is_weight else tensor[None]
        order = "(head part d_head)" if n_parts > 1 and _BY_HEAD.search(named.name) else "(part head d_head)"
        result = rearrange(matrix, f"d_model {order} -> part head d_model d_head", part=n_parts, head=n_heads)
        return list(result if is_weight else result[:, :, 0])

    def _letters(self, named: Named) -> str:
        match = re.search(r"(kqv|vqk|qvk|kvq|vkq|qkv)", named.name.lower())
        return match[1] if match else "qkv"

    def _in_first(self, named: Named) -> Tensor:
        """Return a matrix that reads the residual stream, as (d_model, outputs)."""
        rows, columns = named.tensor.shape
        if rows == self.d_model and columns != self.d_model:
            return named.tensor
        if columns == self.d_model and rows != self.d_model:
            return named.tensor.T
        return named.tensor if self._is_in_first(named) else named.tensor.T

    def _out_last(self, named: Named) -> Tensor:
        """Return a matrix that writes to the residual stream, as (inputs, d_model)."""
        rows, columns = named.tensor.shape
        if columns == self.d_model and rows != self.d_model:
            return named.tensor
        if rows == self.d_model and columns != self.d_model:
            return named.tensor.T
        return named.tensor if self._is_in_first(named) else named.tensor.T

    def _is_in_first(self, named: Named) -> bool:
        """Return whether square matrices of this kind have their inputs first, judged by those that are not square.

        torch's Linear has outputs first. GPT-2's Conv1D and most parameters outside modules have inputs first.
        """
        for slot, other in self.tensors.items():
            if slot.part in ("qkv", "in") and slot.kind == "weight" and other.is_module == named.is_module:
                rows, columns = other.tensor.shape if other.tensor.ndim == 2 else (0, 0)
                if rows != columns:
                    return rows == self.d_model
        return not named.is_module


def read(parameters: Mapping[str, Tensor]) -> Modules | None:
    """Return a transformer of torch modules; None if the tensors are not one.

    Args:
        parameters: Tensors under the names of the file, without a common prefix.
    """
    tensors, unknown = slots(parameters)
    parts = {slot.part for slot in tensors}
    has_attention = "o" in parts and ("qkv" in parts or {"q", "k", "v"} <= parts)
    embed = tensors.get(Slot("embed"))
    if not has_attention or embed is None or embed.tensor.ndim != 2:
        return None
    d_model = _width(tensors)
    n_layers = 1 + max(slot.layer or 0 for slot in tensors)
    modules = Modules(tensors, unknown, d_model, n_layers)
    modules.facts, modules.features = _facts(modules)
    return modules


def _width(tensors: Mapping[Slot, Named]) -> int:
    """Return d_model: the length of a normalization or of the positions, or the last axis of the embedding."""
    for slot, named in tensors.items():
        if slot.part in ("ln1", "ln2", "ln_final"):
            return named.tensor.shape[-1]
    pos = tensors.get(Slot("pos"))
    if pos is not None:
        return pos.tensor.shape[-1]
    return tensors[Slot("embed")].tensor.shape[-1]


def _positions(tensor: Tensor, d_model: int) -> Tensor:
    """Return positions as (n_ctx, d_model), without the batch axis that some programs store."""
    matrix = tensor.reshape([axis for axis in tensor.shape if axis != 1] or [1])
    matrix = matrix.reshape(-1, d_model) if matrix.numel() % d_model == 0 else matrix
    return matrix


def _facts(modules: Modules) -> tuple[dict[str, Any], list[str]]:
    """Return the properties that names and shapes determine, and those of the layout in words."""
    tensors = modules.tensors
    parts = {slot.part for slot in tensors}
    facts: dict[str, Any] = {}
    features = []
    if "qkv" in parts:
        name = next(named.name for slot, named in tensors.items() if slot.part == "qkv" and slot.kind == "weight")
        order = "by head" if _BY_HEAD.search(name) else "one after another"
        is_conv = modules._is_in_first(Named("x.weight", torch.empty(0)))
        features.append(f"fused query, key and value ({order}{', inputs first as in Conv1D' if is_conv else ''})")
    else:
        features.append("a matrix for each head" if modules.n_heads else "separate query, key and value")
    norms = {(slot.part, slot.kind) for slot in tensors if slot.part in _NORMS}
    names = " ".join(named.name.lower() for slot, named in tensors.items() if slot.part in _NORMS)
    if not norms:
        facts["normalization_type"] = None
    else:
        has_shift = any(kind == "bias" for _, kind in norms)
        facts["normalization_type"] = "LN" if has_shift else ("RMS" if "rms" in names else "?")
        facts["has_final_norm"] = ("ln_final", "weight") in norms
    facts["gated_mlp"] = "gate" in parts
    facts["attn_only"] = not {"in", "out"} <= parts
    facts["tied"] = "unembed" not in parts
    masks = [
        named.tensor for slot, named in tensors.items() if slot.part.startswith("mask") and named.tensor.ndim >= 2
    ]
    directions = {_direction(mask) for mask in masks} - {None}
    if len(directions) == 1:
        facts["attention_dir"] = directions.pop()
    return facts, features


def _direction(mask: Tensor) -> str | None:
    """Return the direction that a mask buffer shows; None if it shows none.

    A mask marks either what is visible or what is hidden, by 1, True or −∞.
    """
    square = mask.reshape([axis for axis in mask.shape if axis != 1] or [1])
    if square.ndim != 2 or square.shape[0] != square.shape[1] or len(square) < 2:
        return None
    is_marked = square.isneginf() if square.is_floating_point() and bool(square.isneginf().any()) else square != 0
    full = torch.ones_like(is_marked)
    if torch.equal(is_marked, full.tril()) or torch.equal(is_marked, full.triu(1)):
        return "causal"
    return "bidirectional" if bool(is_marked.all()) or not bool(is_marked.any()) else None
