"""The architecture of another program's checkpoint, read from its config, its buffers and its weights.

A property has the name of its field in HookedTransformerConfig, or one of these: `attn_coeff` (α of Zhong et al.
2023), `norm_first` (whether LayerNorm precedes each sublayer) and `has_final_norm`.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grokscope.config import ModelConfig, validation
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.model.forward import LAYER_NORM_EPS
from grokscope.model.transformer import _sinusoids
from grokscope.tasks import Task

_SETTINGS = {
    **{name: name for name in ("act_fn", "attention_dir", "use_attn_scale", "attn_only", "gated_mlp")},
    **{"parallel_attn_mlp": "parallel_attn_mlp", "d_head": "d_head", "attn_coeff": "attention_alpha"},
    "positions": "positions",
}
"""The property of a file → the setting of ModelConfig that expresses it."""
_SUPPORTED = {
    "n_key_value_heads": (None,),
    "num_experts": (None,),
    "attn_scores_soft_cap": (-1.0,),
    "output_logits_soft_cap": (-1.0,),
    **dict.fromkeys(
        (
            *("use_local_attn", "use_qk_norm", "final_rms", "scale_attn_by_inverse_layer_idx"),
            *("post_embedding_ln", "use_attention_sinks"),
        ),
        (False,),
    ),
}
"""Further fields of HookedTransformerConfig that change the function, with the values that can be imported."""
_POSITIONS = {"standard": "learned", "learned": "learned", "absolute": "learned", "rotary": "rotary"}
_CANDIDATES = {
    "act_fn": ("relu", "gelu", "silu", "quadratic"),
    "attention_dir": ("causal", "bidirectional"),
    "attention_alpha": (1.0, 0.0),
    "normalization_type": ("LN", "RMS"),
    "positions": ("none", "rotary", "sinusoidal"),
}
"""The values that are tried for a setting that the files do not determine."""
_READING_WEIGHTS = re.compile(r"blocks\.\d+\.(attn\.W_[QKV]|mlp\.W_in)")
_FOLDED = "LayerNorm was folded into the weights, so it was read with scale 1 and shift 0."
_LARGEST_MEAN = 1e-5
"""The largest mean of a centred column over the spread of its weights, in float32."""


@dataclass
class Architecture:
    """The settings of ModelConfig that a file determines, and those that it leaves open."""

    values: dict[str, Any]
    """The determined settings, by name."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how they were read."""
    unknown: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The settings that neither shapes nor config determine, with the values to try."""


def read(
    parameters: Mapping[str, Any], facts: Mapping[str, Any], task: Task, is_causal: bool, given: Collection[str] = ()
) -> Architecture:
    """Return the settings of ModelConfig that a file determines, and those that it leaves open.

    A config counts first, then the shapes, the buffers and the weights. Weights alone determine neither the
    activation function nor, in several layers, the direction of attention.

    Args:
        parameters: A state dict under TransformerLens' names and shapes, with its buffers.
        facts: The properties that the file's config and its names determine.
        task: The task that the model answers.
        is_causal: Whether the caller states that attention is causal.
        given: The dotted names of the settings that the user gave, which are therefore not open.

    Raises:
        GrokscopeError: The model computes a function that grokscope's model cannot compute.
    """
    _require_positions(parameters, task)
    for name, allowed in _SUPPORTED.items():
        is_same = name == "n_key_value_heads" and facts.get(name) == facts.get("n_heads")
        if facts.get(name, allowed[0]) not in allowed and not is_same:
            raise _refusal(name, facts[name], " or ".join(map(repr, allowed)))
    architecture = Architecture(_shapes(parameters))
    values = architecture.values
    facts = {**facts, **_positions(parameters, facts), "d_head": values.pop("d_head", None)}
    for name, setting in _SETTINGS.items():
        if name in facts and name != "attention_dir" and facts[name] is not None:
            _set(values, setting, name, facts[name])
    _read_direction(architecture, parameters, facts, is_causal or "model.attention_dir" in given)
    _read_normalization(architecture, parameters, facts, given)
    if "act_fn" not in values and not values.get("attn_only"):
        architecture.unknown["act_fn"] = _CANDIDATES["act_fn"]
    if options := _options(values, facts):
        values["options"] = json.dumps(options)
    if facts.get("positions", "") is None:
        architecture.unknown["positions"] = _CANDIDATES["positions"]
    if _may_mix_constant(parameters, facts):
        architecture.unknown["attention_alpha"] = _CANDIDATES["attention_alpha"]
    architecture.unknown = {
        name: tried for name, tried in architecture.unknown.items() if f"model.{name}" not in given
    }
    return architecture


def _require_positions(parameters: Mapping[str, Any], task: Task) -> None:
    """Raise GrokscopeError for a model with positions for fewer tokens than an equation has."""
    W_pos = parameters.get("pos_embed.W_pos")
    if isinstance(W_pos, Tensor) and W_pos.ndim == 2 and len(W_pos) < task.n_ctx:
        raise GrokscopeError(
            f"it has positions for {len(W_pos)} tokens; allowed: {task.n_ctx}, one for each token of "
            f"{' '.join(task.position_names)!r}. For a model without '=', name --task.form 'a b'."
        )


def _shapes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the names and shapes of a state dict determine."""
    layers = {int(match[1]) for name in parameters if (match := re.match(r"blocks\.(\d{1,4})\.", name))}
    values: dict[str, Any] = {"n_layers": max(layers, default=0) + 1}
    W_Q, W_in = (parameters.get(f"blocks.0.{name}") for name in ("attn.W_Q", "mlp.W_in"))
    if isinstance(W_in, Tensor) and W_in.ndim == 2:
        values["d_mlp"] = W_in.shape[1]
    elif isinstance(W_Q, Tensor) and not any(".mlp." in name for name in parameters):
        values["attn_only"] = True
    if isinstance(W_Q, Tensor) and W_Q.ndim == 3:
        values["n_heads"], values["d_model"], d_head = W_Q.shape
        if values["n_heads"] * d_head != values["d_model"]:
            values["d_head"] = d_head
    return values


def _options(values: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of HookedTransformerConfig that no setting has, where they differ from its defaults."""
    options = {}
    if values.get("normalization_type") and facts.get("eps", LAYER_NORM_EPS) != LAYER_NORM_EPS:
        options["eps"] = facts["eps"]
    if values.get("positions") != "rotary":
        return options
    d_head = values.get("d_head") or values["d_model"] // values["n_heads"]
    share = facts.get("rotary_pct", 1)
    defaults = {"rotary_dim": d_head, "rotary_base": 10000, "rotary_adjacent_pairs": False}
    read = {
        "rotary_dim": facts.get("rotary_dim") or int(share * d_head),
        "rotary_base": facts.get("rotary_base", 10000),
        "rotary_adjacent_pairs": facts.get("rotary_adjacent_pairs", False),
    }
    return options | {name: value for name, value in read.items() if value != defaults[name]}


def _positions(parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the property `positions`: None if it is unknown, absent if it is plain."""
    kind = facts.get("positional_embedding_type")
    if kind is not None and kind not in _POSITIONS:
        raise _refusal("positional_embedding_type", kind, " or ".join(map(repr, _POSITIONS)))
    W_pos = parameters.get("pos_embed.W_pos")
    if not isinstance(W_pos, Tensor):
        return {"positions": "rotary" if kind == "rotary" else None}
    if W_pos.ndim == 2 and torch.allclose(W_pos.float(), _sinusoids(*W_pos.shape), atol=1e-5):
        return {"positions": "sinusoidal"}
    return {}


def _read_direction(
    architecture: Architecture, parameters: Mapping[str, Any], facts: Mapping[str, Any], is_stated: bool
) -> None:
    """Read the direction of attention from the config and the masks; in one layer it does not matter.

    HookedTransformer stores a causal mask for either direction, and so does the code of Zhong et al. 2023, which does
    not use it. A config therefore counts before a mask.
    """
    n_layers = architecture.values["n_layers"]
    masks = {name: value for name, value in parameters.items() if re.fullmatch(r"blocks\.\d+\.attn\.mask", name)}
    directions = {_direction(name, mask) for name, mask in masks.items()} - {None}
    direction = facts.get("attention_dir") if facts.get("attention_dir") in ("causal", "bidirectional") else None
    if "attn_coeff" in facts:
        direction = "bidirectional"
    elif direction is None:
        direction = "bidirectional" if "bidirectional" in directions else next(iter(directions), None)
    if n_layers == 1:
        if direction == "bidirectional":
            architecture.notes.append(
                "Attention is in both directions, which in one layer gives the logits of causal attention."
            )
        return
    if direction is not None:
        architecture.values["attention_dir"] = direction
    elif not is_stated:
        architecture.unknown["attention_dir"] = _CANDIDATES["attention_dir"]


def _direction(name: str, mask: object) -> str | None:
    """Return the direction of attention of a mask; raise GrokscopeError for another mask."""
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return None
    is_visible = mask.bool()
    if is_visible.all():
        return "bidirectional" if len(mask) > 1 else "causal"
    if torch.equal(is_visible, torch.ones_like(is_visible).tril()):
        return "causal"
    raise GrokscopeError(f"{name} is neither causal nor all ones; grokscope's model has no other attention mask.")


def _read_normalization(
    architecture: Architecture, parameters: Mapping[str, Any], facts: Mapping[str, Any], given: Collection[str]
) -> None:
    """Read the setting `normalization_type`, and whether LayerNorm was folded into the weights."""
    values, unknown = architecture.values, architecture.unknown
    scales = {name for name in parameters if re.fullmatch(r"(blocks\.\d+\.ln[12]|ln_final)\.w", name)}
    normalization = facts.get("normalization_type", "LN" if scales else None)
    has_final_norm = facts.get("has_final_norm", "ln_final.w" in scales or not scales)
    is_post = facts.get("norm_first") is False or (bool(scales) and not has_final_norm)
    if is_post:
        if has_final_norm:
            raise GrokscopeError(
                "it has LayerNorm after each residual addition and another before its unembedding; allowed: either."
            )
        if facts.get("norm_first") is False:
            values["normalization_type"] = "LNPost"
        else:
            unknown["normalization_type"] = ("LNPost",)
    elif normalization == "?":
        unknown["normalization_type"] = _CANDIDATES["normalization_type"]
    elif "normalization_type" in facts or scales:
        is_folded = normalization in ("LNPre", "LN") and not scales
        name = "LN" if normalization == "LNPre" else normalization
        _set(values, "normalization_type", "normalization_type", name)
        if is_folded:
            architecture.notes.append(_FOLDED)
    else:
        # Folding a LayerNorm centres every weight matrix that reads its output, which training does not.
        reading = [
            value
            for name, value in parameters.items()
            if _READING_WEIGHTS.fullmatch(name) and isinstance(value, Tensor)
        ]
        is_folded = bool(reading) and all(_is_centred(weights) for weights in reading)
        values["normalization_type"] = "LN" if is_folded else None
        if is_folded:
            architecture.notes.append(_FOLDED)


def _may_mix_constant(parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Return whether a file may be of Zhong et al. 2023, whose attention mixes in a constant, without its config.

    Their files have the layout of Nanda et al. 2023, positions for two tokens, and an answer for each token.
    """
    W_pos, W_E, W_U = (parameters.get(name) for name in ("pos_embed.W_pos", "embed.W_E", "unembed.W_U"))
    tensors = [value for value in (W_pos, W_E, W_U) if isinstance(value, Tensor) and value.ndim == 2]
    if len(tensors) < 3 or "attn_coeff" in facts or not facts.get("has_flat_heads"):
        return False
    return len(tensors[0]) == 2 and len(tensors[1]) == tensors[2].shape[1]


def _set(values: dict[str, Any], setting: str, name: str, value: Any) -> None:
    """Set a property of a file as a setting; raise GrokscopeError if the model cannot have it."""
    default = getattr(ModelConfig(), setting)
    values[setting] = default if value == default else value  # A file may have 1 for true.
    faults = validation.faults(dataclasses.replace(ModelConfig(), **{setting: values[setting]}))
    fault = next((fault for fault in faults if fault.startswith(f"{setting}:")), None)
    if fault is not None:
        raise _refusal(name, value, fault.partition("allowed: ")[2])


def _refusal(name: str, value: Any, allowed: str) -> GrokscopeError:
    return GrokscopeError(
        f"it has {name} = {quoted_value(value)}, which grokscope's model cannot compute; allowed: {allowed}."
    )


def _is_centred(weights: Tensor) -> bool:
    """Return whether every column of a weight matrix has mean 0 over the residual stream."""
    if weights.ndim < 2 or not weights.numel() or not weights.is_floating_point():
        return False
    columns = weights.double()
    return bool(columns.mean(-2).abs().max() <= _LARGEST_MEAN * columns.std()) and bool(columns.any())
