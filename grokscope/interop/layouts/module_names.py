"""The names that programs give to the parts of a transformer, as tables: part → words.

A name is reduced to its essential words first: "to_q", "Wq", "q_proj" and "q_linear" are all "q". A new name for a
part is one more word in a row of these tables.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_ATTENTION = re.compile(r"(.*_)?(attn|attention|mha|msa|sa|self_?att\w*)(_(block|layer|module))?\d*", re.IGNORECASE)
_MLP = re.compile(r"(.*_)?(mlps?|ffn?|ffwd|feed_?forward|intermediate)(_(block|layer|module))?\d*", re.IGNORECASE)
_HEADS = re.compile(r"(attn_|attention_)?heads?", re.IGNORECASE)
_NOT_LAYERS = ("net", "0", "proj", "to_out", "embedding", "embeddings")
"""Words before a number that does not count layers, apart from those of attention, heads and MLPs."""
_NUMBERED = re.compile(r"(?:blocks?|layers?|h|decoder|encoder|transformer)_?(\d{1,4})", re.IGNORECASE)
_KINDS = {"weight": "weight gamma scale w g a_2 alpha", "bias": "bias beta shift b b_2"}
"""The last word of a name, by what it stores."""
_BUFFER = re.compile(
    r"(.*_)?(mask|tril|triu|inv_freq|position_ids|pos_ids|ignore|num_batches_tracked|rotary_(cos|sin)"
    r"|cos(_cached)?|sin(_cached)?|freqs(_cis)?)",
    re.IGNORECASE,
)
_AFFIXES = re.compile(r"w|to|fc|lin|linear|proj|projection|layer|net|weights?|c|self|resid")
"""Words that programs add to the name of a part."""
_COUNTED = re.compile(r"(?:fc|linear|lin|dense|layer|w|l|proj|conv)_?([123])", re.IGNORECASE)
_IN_ATTENTION = {
    "qkv": "qkv kqv query_key_value attn in",
    "q": "q query queries",
    "k": "k key keys",
    "v": "v value values",
    "o": "o out output out_0 output_dense c_proj proj projection resid_proj dense linear fc unify_heads final 0",
}
_IN_MLP = {
    "in": "in 1 c_fc up dense_h_4h i expand hidden first input fc dense",
    "out": "out fc_out 2 c_proj down dense_4h_h o contract second output proj",
    "gate": "gate g",
}
_POSITIONS = re.compile(r"pos|posn|position\w*|pos(emb|enc)\w*|wpe|pe")
_UNEMBED = re.compile(r"unembed|unembedding|unemb|deembed|head|logits?|classifier|readout|generator|u")
_OUTPUTS = re.compile(r"linear|fc|out(put)?|final|fc_out|proj(ection)?|lin|cls|predict(or)?|decoder|out_fc")
_EMBED = re.compile(r"(tok|token|word|input)?_?emb(ed(s|ding|dings|der)?)?|wte|te|e|lookup")
_LAYER_PARTS = ("ln1", "ln2", "qkv", "q", "k", "v", "o", "in", "out", "gate")


@dataclass(frozen=True)
class Slot:
    """The place of a tensor in a transformer."""

    part: str
    """One of embed, pos, unembed, ln_final, ln1, ln2, qkv, q, k, v, o, in, out, gate; or "mask" and its name."""
    kind: str = "weight"
    """ "weight" or "bias"."""
    layer: int | None = None
    """The number of the layer; None outside the layers."""
    head: int | None = None
    """The number of the head, for programs that store one matrix per head."""


@dataclass(frozen=True)
class Named:
    """A tensor with its name in the file."""

    name: str
    tensor: Tensor

    @property
    def is_module(self) -> bool:
        """Whether the tensor belongs to a torch module, as opposed to a parameter of the program itself."""
        return self.name.rpartition(".")[2] in ("weight", "bias", "in_proj_weight", "in_proj_bias")


def slots(parameters: Mapping[str, Tensor]) -> tuple[dict[Slot, Named], list[str]]:
    """Return the tensors of a transformer by their slot, and the names without one.

    Layers are counted from 0 in their order, whatever numbers the file has.

    Args:
        parameters: Tensors under names of torch modules, without a prefix that all of them share.
    """
    placed: dict[Slot, Named] = {}
    unplaced: dict[str, tuple[int | None, list[str]]] = {}
    for name, tensor in parameters.items():
        layer, words = _split_layer(name.split("."))
        slot = _slot(layer, words, tensor) if words else None
        if slot is None or slot in placed:
            unplaced[name] = (layer, words)
        else:
            placed[slot] = Named(name, tensor)
    _place_sequential(parameters, placed, unplaced)
    numbers = sorted({slot.layer for slot in placed if slot.layer is not None and not slot.part.startswith("mask")})
    order = {number: i for i, number in enumerate(numbers)}
    renumbered = {}
    for slot, named in placed.items():
        layer = None if slot.layer is None else order.get(slot.layer)
        if slot.layer is None and slot.part in _LAYER_PARTS and not order:
            layer = 0  # A single block without a container of layers.
        renumbered[Slot(slot.part, slot.kind, layer, slot.head)] = named
    return renumbered, list(unplaced)


def _split_layer(words: list[str]) -> tuple[int | None, list[str]]:
    """Return the number of the layer in a name, and the words after it."""
    for i, word in enumerate(words):
        if word.isdecimal() and len(word) < 5 and not (i and _is_inner(words[i - 1])):
            return int(word), words[i + 1 :]
        if match := _NUMBERED.fullmatch(word):
            return int(match[1]), words[i + 1 :]
    return None, words


def _is_inner(word: str) -> bool:
    return word.lower() in _NOT_LAYERS or any(p.fullmatch(word) for p in (_ATTENTION, _MLP, _HEADS))


def _slot(layer: int | None, words: list[str], tensor: Tensor) -> Slot | None:
    """Return the slot of the words after the layer; None without one."""
    if _BUFFER.fullmatch(words[-1]) or (words[-1] in ("bias", "masked_bias") and tensor.ndim in (0, 4)):
        return Slot(f"mask {'.'.join(words)}", layer=layer)
    kind, path = _kind(words)
    in_attention = any(map(_ATTENTION.fullmatch, path))
    in_mlp = any(map(_MLP.fullmatch, path))
    if tensor.ndim == 1 and _is_norm(path[-1]):
        return Slot(_norm("_".join(path).lower(), layer), kind, layer)
    if layer is None and not in_attention and not in_mlp and (part := _global(path, tensor)):
        return Slot(part, kind)
    heads = [int(word) for before, word in zip(path, path[1:], strict=False) if _is_head(before, word)]
    inner = _inner(path)
    if not in_mlp:
        part = next((part for part, words in _IN_ATTENTION.items() if inner in words.split()), None)
        if part and (in_attention or part in ("q", "k", "v") or inner in ("qkv", "kqv", "o", "query_key_value")):
            return Slot(part, kind, layer, heads[0] if heads else None)
    if not in_attention:
        if in_mlp and inner.isdecimal():
            return Slot(f"mlp {int(inner)}", kind, layer)
        part = next((part for part, words in _IN_MLP.items() if inner in words.split()), None)
        if part:
            return Slot(part, kind, layer)
    return None


def _kind(words: list[str]) -> tuple[str, list[str]]:
    """Return whether a name ends in a weight or a bias, and the words that name its module."""
    last = words[-1].lower()
    for kind, endings in _KINDS.items():
        if len(words) > 1 and last in endings.split():
            return kind, words[:-1]
        if match := re.fullmatch(rf"(\w+)_{kind}s?", last):
            return kind, [*words[:-1], match[1]]
    if match := re.fullmatch(r"b_?(q|k|v|o|in|out|u|1|2|qkv|gate)", last):
        return "bias", [*words[:-1], f"w_{match[1]}"]
    return "weight", words


def _core(word: str) -> str:
    """Return the essential words of a name, such as "q" of "Wq", "to_q" or "q_proj"."""
    word = word.lower()
    if match := _COUNTED.fullmatch(word):
        return match[1]
    if match := re.fullmatch(r"w(q|k|v|o|qkv|in|out|e|u|pos|i|g)", word):
        return match[1]
    essential = [part for part in word.split("_") if not _AFFIXES.fullmatch(part)]
    return "_".join(essential) if essential and word != "fc_out" else word


def _inner(path: list[str]) -> str:
    """Return the essential words of a module inside attention or an MLP."""
    rest = [
        word
        for i, word in enumerate(path)
        if i == len(path) - 1 or not (_ATTENTION.fullmatch(word) or _MLP.fullmatch(word) or _HEADS.fullmatch(word))
    ]
    rest = [word for i, word in enumerate(rest) if i == len(rest) - 1 or not word.isdecimal() or rest[-1] == "0"]
    last = _core(rest[-1])
    if last.isdecimal() and len(rest) > 1 and _core(rest[-2]) in ("out", "output"):
        return f"out_{last}"
    return f"output_{last}" if len(rest) > 1 and rest[-2].lower() == "output" else last


def _global(path: list[str], tensor: Tensor) -> str | None:
    """Return the part outside the layers that a name means: pos, unembed or embed; None for none of them."""
    parts = [part for word in path for part in _core(word).split("_")]
    if any(map(_POSITIONS.fullmatch, parts)) and tensor.ndim > 1:
        return "pos"
    is_embed = any(map(_EMBED.fullmatch, parts)) or _EMBED.fullmatch(_core(path[-1])) is not None
    if any(map(_UNEMBED.fullmatch, parts)) or _OUTPUTS.fullmatch(_core(path[-1])) or (is_embed and "out" in parts):
        return "unembed"
    return "embed" if is_embed and tensor.ndim == 2 else None


def _is_norm(word: str) -> bool:
    word = word.lower()
    return re.search(r"norm|(^|_)ln|ln(_|\d|$)", word) is not None


def _norm(path: str, layer: int | None) -> str:
    """Return the part of a normalization: ln1, ln2 or ln_final."""
    is_first = re.search(r"1\b|_1|0\b|input|attn|attention", path)
    is_second = re.search(r"2\b|_2|mlp|ff|feed|post|final", path)
    if layer is None and not (is_first or re.search(r"[12]\b|mlp|ff|feed", path)):
        return "ln_final"
    return "ln2" if is_second and not (is_first and re.search(r"1\b|_1", path)) else "ln1"


def _is_head(before: str, word: str) -> bool:
    return word.isdecimal() and (_HEADS.fullmatch(before) or before.lower() in ("attn", "attention")) is not None


def _place_sequential(
    parameters: Mapping[str, Tensor], placed: dict[Slot, Named], unplaced: dict[str, tuple[int | None, list[str]]]
) -> None:
    """Place the entries of a Sequential: the matrices of an MLP in their order, and what follows the layers."""
    numbered = [slot for slot in placed if slot.part.startswith("mlp ")]
    for layer in {slot.layer for slot in numbered}:
        numbers = sorted({int(slot.part[4:]) for slot in numbered if slot.layer == layer})
        for slot in [slot for slot in numbered if slot.layer == layer]:
            row = numbers.index(int(slot.part[4:]))
            named = placed.pop(slot)
            if len(numbers) == 2:
                placed[Slot(("in", "out")[row], slot.kind, layer)] = named
            else:
                unplaced[named.name] = (layer, [])
    for name, (layer, words) in list(unplaced.items()):
        if layer is None or len(words) != 1 or words[0] not in ("weight", "bias"):
            continue
        # A Sequential of blocks, a normalization and a linear layer numbers all of them.
        matrix = parameters.get(name.replace("bias", "weight"))
        slot = Slot("unembed" if matrix is not None and matrix.ndim == 2 else "ln_final", words[0])
        if slot not in placed:
            placed[slot] = Named(name, parameters[name])
            del unplaced[name]
