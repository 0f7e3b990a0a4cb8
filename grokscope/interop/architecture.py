"""The architecture of another program's checkpoint, read from its config, its buffers and its weights."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_name, quoted_value
from grokscope.model.forward import LAYER_NORM_EPS
from grokscope.tasks import Task

_ACTIVATIONS = {"relu": "relu", "gelu": "gelu"}
_NORMALIZATIONS = {None: None, "LN": "LN", "LNPre": "LN"}
_SUPPORTED = {
    "positional_embedding_type": ("standard",),
    "use_attn_scale": (True,),
    "n_key_value_heads": (None,),
    "num_experts": (None,),
    "attn_scores_soft_cap": (-1.0,),
    "output_logits_soft_cap": (-1.0,),
    **dict.fromkeys(
        (
            *("attn_only", "gated_mlp", "parallel_attn_mlp", "use_local_attn", "use_qk_norm", "final_rms"),
            *("scale_attn_by_inverse_layer_idx", "post_embedding_ln", "use_attention_sinks"),
        ),
        (False,),
    ),
}
"""The fields of a HookedTransformerConfig that change the function, with the values that grokscope's model has."""
_READING_WEIGHTS = re.compile(r"blocks\.\d+\.(attn\.W_[QKV]|mlp\.W_in)")
_LARGEST_MEAN = 1e-5
"""The largest mean of a centred column over the spread of its weights, in float32."""


def read(
    parameters: Mapping[str, Any], config: Mapping[str, Any], settings: Mapping[str, Any], task: Task, is_causal: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of ModelConfig that a file determines, and sentences on how they were read.

    A HookedTransformerConfig counts first, then the shapes, the buffers and the weights. Weights alone determine
    neither the activation function nor, in several layers, the direction of attention.

    Args:
        parameters: A state dict under TransformerLens' names and shapes, with its buffers.
        config: The values of the file's HookedTransformerConfig; empty without one.
        settings: The values of another config in the file, of which only the activation is read.
        task: The task that the model answers.
        is_causal: Whether the caller states that attention is causal.

    Raises:
        GrokscopeError: The model computes a function that grokscope's model cannot compute, or the direction of its
            attention is unknown and matters.
    """
    _require_transformer(parameters, task)
    for name, allowed in _SUPPORTED.items():
        if config.get(name, allowed[0]) not in allowed:
            raise GrokscopeError(
                f"its config says {name} = {quoted_value(config[name])}; allowed: {allowed[0]!r}, because "
                "grokscope's model has no other."
            )
    values = _shapes(parameters)
    notes = _direction_notes(parameters, config, values["n_layers"], is_causal)
    activation = config.get("act_fn", settings.get("act_fn"))
    if activation is not None:
        values["act_fn"] = _supported("act_fn", str(activation).lower(), _ACTIVATIONS)
    normalization, is_folded = _normalization(parameters, config)
    values["normalization_type"] = normalization
    if is_folded:
        notes.append("LayerNorm was folded into the weights, so it was read with scale 1 and shift 0.")
    return values, notes


def biases(parameters: Mapping[str, Any], given: str) -> str:
    """Return the setting `biases` that fits the biases of a state dict: those that are not zero, or the given ones.

    Args:
        parameters: A state dict under TransformerLens' names.
        given: The setting of the caller, which decides where all biases in the file are zero.
    """
    present = {name: value for name, value in parameters.items() if re.search(r"\.b_\w+\Z", name)}
    trained = {name for name, value in present.items() if isinstance(value, Tensor) and bool((value != 0).any())}
    if any(".mlp." not in name for name in trained):
        return "all"
    has_others, has_mlp = (any((".mlp." in name) is is_mlp for name in present) for is_mlp in (False, True))
    if given == "all" and not has_others:
        given = "mlp"
    if given == "mlp" and not has_mlp:
        given = "none"
    return "mlp" if given == "none" and trained else given


def completed(parameters: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return a state dict with a zero for each missing bias, and with scale 1 and shift 0 for a folded LayerNorm."""
    like = next(
        (value for value in parameters.values() if isinstance(value, Tensor) and value.is_floating_point()), None
    )
    dtype = torch.float32 if like is None else like.dtype
    is_folded = not any(name.startswith("ln_final") for name in parameters)
    missing = {}
    for name, shape in shapes.items():
        leaf = name.rpartition(".")[2]
        if name not in parameters and (leaf.startswith("b_") or (is_folded and leaf in ("w", "b"))):
            missing[name] = torch.full(shape, float(leaf == "w"), dtype=dtype)
    return {**parameters, **missing}


def _require_transformer(parameters: Mapping[str, Any], task: Task) -> None:
    """Raise GrokscopeError for a model with other names, or with positions for fewer tokens than an equation has."""
    if not any(re.fullmatch(r"embed\.W_E|blocks\.\d+\.attn\.W_Q", name) for name in parameters):
        names = ", ".join(map(quoted_name, list(parameters)[:6]))
        raise GrokscopeError(
            f"it contains {names}. Allowed: the names of TransformerLens or of "
            "Nanda et al. 2023, such as 'embed.W_E' and 'blocks.0.attn.W_Q'; other models cannot be imported."
        )
    W_pos = parameters.get("pos_embed.W_pos")
    if isinstance(W_pos, Tensor) and W_pos.ndim == 2 and len(W_pos) < task.n_ctx:
        raise GrokscopeError(
            f"it has positions for {len(W_pos)} tokens; allowed: {task.n_ctx}, one for each token of "
            f"{' '.join(task.position_names)!r}. A model without '=' cannot be imported."
        )


def _shapes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the names and shapes of a state dict determine."""
    layers = {int(match[1]) for name in parameters if (match := re.match(r"blocks\.(\d{1,4})\.", name))}
    values: dict[str, Any] = {"n_layers": max(layers, default=0) + 1}
    W_Q, W_in = (parameters.get(f"blocks.0.{name}") for name in ("attn.W_Q", "mlp.W_in"))
    if isinstance(W_in, Tensor) and W_in.ndim == 2:
        values["d_mlp"] = W_in.shape[1]
    if isinstance(W_Q, Tensor) and W_Q.ndim == 3:
        values["n_heads"], values["d_model"], d_head = W_Q.shape
        if values["n_heads"] * d_head != values["d_model"]:
            raise GrokscopeError(
                f"it has {values['n_heads']} heads of {d_head} numbers and a width of {values['d_model']}; allowed: "
                "d_head = d_model / n_heads."
            )
    return values


def _direction_notes(
    parameters: Mapping[str, Any], config: Mapping[str, Any], n_layers: int, is_causal: bool
) -> list[str]:
    """Return a sentence on attention in both directions; raise GrokscopeError where it would change the logits."""
    masks = {name: value for name, value in parameters.items() if re.fullmatch(r"blocks\.\d+\.attn\.mask", name)}
    # HookedTransformer stores a causal mask for either direction, and its config decides whether it is used.
    directions = {config.get("attention_dir"), *(_direction(name, mask) for name, mask in masks.items())}
    if "bidirectional" not in directions:
        if n_layers > 1 and directions == {None} and not is_causal:
            raise GrokscopeError(
                f"it has {n_layers} layers and no attention mask, so it does not tell whether attention is "
                "causal. If it is, add --causal; attention in both directions cannot be imported."
            )
        return []
    if n_layers > 1:
        raise GrokscopeError(
            f"it has {n_layers} layers with attention in both directions; allowed: causal attention. In one "
            "layer both give the same logits, because the answer's position sees every position."
        )
    return ["Attention is in both directions, which in one layer gives the logits of causal attention."]


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


def _normalization(parameters: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the setting `normalization_type`, and whether LayerNorm was folded into the weights."""
    has_scales = any(re.fullmatch(r"(blocks\.\d+\.ln[12]|ln_final)\.w", name) for name in parameters)
    if "normalization_type" in config:
        normalization = _supported("normalization_type", config["normalization_type"], _NORMALIZATIONS)
        eps = config.get("eps", LAYER_NORM_EPS)
        if normalization and eps != LAYER_NORM_EPS:
            raise GrokscopeError(f"its config says eps = {eps!r}; allowed: {LAYER_NORM_EPS!r}.")
        return normalization, normalization == "LN" and not has_scales
    if has_scales:
        return "LN", False
    # Folding a LayerNorm centres every weight matrix that reads its output, which training does not.
    reading = [
        value for name, value in parameters.items() if _READING_WEIGHTS.fullmatch(name) and isinstance(value, Tensor)
    ]
    is_folded = bool(reading) and all(_is_centred(weights) for weights in reading)
    return ("LN" if is_folded else None), is_folded


def _is_centred(weights: Tensor) -> bool:
    """Return whether every column of a weight matrix has mean 0 over the residual stream."""
    if weights.ndim < 2 or not weights.numel() or not weights.is_floating_point():
        return False
    columns = weights.double()
    return bool(columns.mean(-2).abs().max() <= _LARGEST_MEAN * columns.std()) and bool(columns.any())


def _supported(name: str, value: Any, allowed: Mapping[Any, Any]) -> Any:
    if value not in allowed:
        names = " or ".join(map(repr, allowed))
        raise GrokscopeError(f"its config says {name} = {quoted_value(value)}; allowed: {names}.")
    return allowed[value]
