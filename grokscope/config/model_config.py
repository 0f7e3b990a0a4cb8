"""The network settings of a run."""

import json
from dataclasses import dataclass, field
from typing import Any

from grokscope.config.validation import checked, choice, flag, integer, number, registered
from grokscope.errors import unknown_name

ACTIVATIONS = ("relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "solu", "solu_ln", "xielu")
"""The activation functions that HookedTransformer has, apart from "relu2"."""
SIMPLE_ACTIVATIONS = ("relu", "gelu", "relu2", "quadratic")
"""The activation functions of a transformer that grokscope computes itself."""
_ONLY_HOOKED = {
    "gated_mlp": (False,),
    "parallel_attn_mlp": (False,),
    "options": ("",),
    "positions": ("learned", "sinusoidal", "none"),
    "act_fn": SIMPLE_ACTIVATIONS,
}
"""Settings with the values that grokscope computes itself. HookedTransformer computes the others."""
HOOKED_OPTIONS = (
    *("attn_scale", "attn_scores_soft_cap", "attn_types", "clip_qkv", "eps", "experts_per_token", "final_rms"),
    *("n_key_value_heads", "norm_topk_prob", "num_experts", "output_logits_soft_cap", "positional_embedding_type"),
    *("post_embedding_ln", "rotary_adjacent_pairs", "rotary_base", "rotary_dim", "rotary_scaling_factor"),
    *("scale_attn_by_inverse_layer_idx", "ungroup_grouped_query_attention", "use_attention_sinks", "use_local_attn"),
    *("use_normalization_before_and_after", "use_qk_norm", "window_size"),
)
"""The arguments of HookedTransformerConfig that `ModelConfig.options` may contain."""
_OF_MLP = ("mlp", "family", "init", "init_scale", "d_vocab_out")
"""The settings that the family "mlp" uses."""


@dataclass(frozen=True)
class MlpConfig:
    """The architecture of the family "mlp": operands, hidden layers and answers, without attention."""

    operands: str = choice("one-hot", "one-hot", "embedded", "embedded separately")
    """The input of each operand: "one-hot", or "embedded" by a trained table that the operands share. Operands that
    are "embedded separately" have a table each (Chughtai et al. 2023)."""
    combination: str = choice("concatenated", "concatenated", "summed")
    """The operands' vectors are "concatenated", or "summed"; then their order does not matter."""
    d_embed: int = integer(128, 1, 4096)
    """The width of the embedding of operands that are not one-hot."""
    n_layers: int = integer(1, 1, 12)
    """The number of hidden layers."""
    d_hidden: int = integer(256, 1, 16384)
    """The number of neurons in each hidden layer."""
    act_fn: str = choice("relu", "relu", "gelu", "quadratic", "tanh")
    """The activation function: "relu", "gelu", "quadratic" (x²) or "tanh"."""
    biases: bool = flag(False)
    """Whether the hidden layers and the output have trained biases. Otherwise they stay zero."""


def _is_object(value: object) -> bool:
    """Return whether a value is "" or the text of a JSON object."""
    if not isinstance(value, str) or len(value) > 2**20:
        return False
    try:
        return not value or isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class ModelConfig:
    """The network. Apart from `family`, `mlp` and `options`, the settings are those of the family "transformer"."""

    n_layers: int = integer(1, 1, 12)
    """The number of transformer blocks."""
    d_model: int = integer(128, 2, 4096)
    """The width of the residual stream."""
    n_heads: int = integer(4, 1, 64)
    """The number of attention heads in each block. It must divide d_model unless d_head is set."""
    d_mlp: int = integer(512, 1, 16384)
    """The number of neurons in each block's MLP."""
    act_fn: str = choice("relu", *ACTIVATIONS, "relu2", "quadratic")
    """The activation function of the MLP: a name of HookedTransformer's, such as "relu" or "gelu"; "relu2" is
    relu(x)². "quadratic" is x²."""
    normalization_type: str | None = choice(None, None, "LN", "LNPre", "RMS", "RMSPre", "LNPost")
    """The normalization before attention, MLP and unembedding: "LN" (LayerNorm), "RMS", or none.
    "LNPre" and "RMSPre" have no scale or shift, as after folding. "LNPost" is LayerNorm after each residual addition
    and none before the unembedding, as in the code of Power et al. 2022."""
    positions: str = choice("learned", "learned", "sinusoidal", "rotary", "none")
    """The position embeddings: "learned", "rotary", "sinusoidal" and fixed (Vaswani et al. 2017, section 3.5), or
    "none"."""
    biases: str = choice("mlp", "all", "mlp", "none")
    """The trained biases: "all", "mlp" (as in Nanda et al. 2023) or "none". The other biases stay zero."""
    init: str = choice("normal", "normal", "torch", "nanda2023")
    """The initialization: "normal" (as in Nanda et al. 2023), PyTorch's default, "torch" (Power et al. 2022),
    or "nanda2023": the very numbers that the code of Nanda et al. draws with `init_seed`."""
    init_scale: float = number(1.0, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """A factor on every initial weight matrix: α in Omnigrok (Liu et al. 2022)."""
    d_vocab_out: int | None = integer(None, 2, 10**6, none="the number of answers")
    """The number of output columns, at least the number of answers. Nanda et al. 2023 have p + 1 of them."""
    family: str = registered("transformer", "models")
    """The family of networks. `grokscope list models` prints the names."""
    d_head: int | None = integer(None, 1, 4096, none="d_model / n_heads")
    """The width of each attention head."""
    attn_only: bool = flag(False)
    """Whether the blocks have attention and no MLP."""
    attention_dir: str = choice("causal", "causal", "bidirectional")
    """The positions that a position attends to: itself and those before it ("causal"), or all ("bidirectional")."""
    attention_alpha: float = number(1.0, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    """α in the attention pattern α · softmax + (1 − α) · 1 over the visible positions (Zhong et al. 2023).
    1 is ordinary attention, and 0 is constant attention."""
    use_attn_scale: bool = flag(True)
    """Whether attention scores are divided by √d_head."""
    gated_mlp: bool = flag(False)
    """Whether the MLP is gated: act(x W_gate) ⊙ (x W_in) instead of act(x W_in)."""
    parallel_attn_mlp: bool = flag(False)
    """Whether attention and MLP of a block read the same residual stream, instead of one after the other."""
    options: str = checked(
        "",
        "the text of a JSON object, such as '{\"n_key_value_heads\": 2}', or nothing",
        _is_object,
        str,
    )
    """Further settings of the family, as a JSON object. Those of "transformer" are arguments of
    HookedTransformerConfig that no other setting has. A family of another package documents its own."""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """The architecture of the family "mlp"."""

    @property
    def is_simple(self) -> bool:
        """Whether grokscope computes the transformer itself; otherwise HookedTransformer does."""
        return self.normalization_type in (None, "LN", "LNPost") and all(
            getattr(self, name) in values for name, values in _ONLY_HOOKED.items()
        )

    @property
    def has_fast_forms(self) -> bool:
        """Whether the forward pass may share activations between examples (`grokscope.model.forward`)."""
        return (
            self.is_simple
            and self.act_fn in ("relu", "gelu")
            and self.normalization_type != "LNPost"
            and self.attention_dir == "causal"
            and self.attention_alpha == 1
            and self.use_attn_scale
            and not self.attn_only
        )

    @property
    def option_values(self) -> dict[str, Any]:
        """The values in `options`, by name."""
        return json.loads(self.options) if self.options else {}


def contradictions(model: ModelConfig, invalid: set[str]) -> list[str]:
    """Return a fault for each setting of a transformer that its other settings do not allow.

    Args:
        model: The settings.
        invalid: The dotted names of the settings that are invalid by themselves. Checks that need them are skipped.
    """
    if "model.family" in invalid or model.family != "transformer":
        return []
    messages = []

    def are_valid(*names: str) -> bool:
        return invalid.isdisjoint({f"model.{name}" for name in names})

    if are_valid("options"):
        unknown = [name for name in model.option_values if name not in HOOKED_OPTIONS]
        messages += ["model.options: " + unknown_name("option", name, HOOKED_OPTIONS).rstrip(".") for name in unknown]
    if are_valid("d_model", "n_heads", "d_head"):
        if model.d_head is None and model.d_model % model.n_heads:
            divisors = ", ".join(str(n) for n in range(1, 65) if model.d_model % n == 0)
            messages.append(
                f"model.n_heads: {model.n_heads} does not divide d_model = {model.d_model}; allowed: {divisors}"
            )
        d_head = model.d_head or model.d_model // model.n_heads
        if are_valid("positions") and model.positions == "rotary" and d_head % 2:
            messages.append(f"model.positions: 'rotary' with heads of width {d_head}; allowed: with an even d_head")
    if are_valid(*_ONLY_HOOKED, "normalization_type") and model.normalization_type == "LNPost":
        taken = [name for name, values in _ONLY_HOOKED.items() if getattr(model, name) not in values]
        if taken:
            messages.append(
                f"model.normalization_type: 'LNPost' with {', '.join(taken)} {getattr(model, taken[0])!r}, which "
                f"only HookedTransformer computes, and it has no 'LNPost'; allowed: without"
            )
    return messages


def unused_settings(model: ModelConfig) -> list[tuple[str, str]]:
    """Return the dotted name of each setting that the family does not use, and the reason."""
    reason = f"model.family is {model.family!r}; allowed: with "
    names = [name for name in ModelConfig.__dataclass_fields__ if name not in _OF_MLP]
    if model.family == "mlp":
        return [(f"model.{name}", f"{reason}'transformer'") for name in names]
    of_mlp = [(f"model.mlp.{name}", f"{reason}'mlp'") for name in MlpConfig.__dataclass_fields__]
    if model.family == "transformer" and model.attn_only:
        why = "model.attn_only is true; allowed: with an MLP"
        of_mlp += [(f"model.{name}", why) for name in ("d_mlp", "act_fn", "gated_mlp", "parallel_attn_mlp")]
    return of_mlp
