"""The architecture settings of a run."""

from dataclasses import dataclass

from grokscope.config.validation import choice, integer, number


@dataclass(frozen=True)
class ModelConfig:
    """The architecture and initialization of a decoder-only transformer that HookedTransformer can represent."""

    n_layers: int = integer(1, 1, 12)
    """The number of transformer blocks."""
    d_model: int = integer(128, 2, 4096)
    """The width of the residual stream."""
    n_heads: int = integer(4, 1, 64)
    """The number of attention heads in each block. It must divide d_model: d_head = d_model / n_heads."""
    d_mlp: int = integer(512, 1, 16384)
    """The number of neurons in each block's MLP."""
    act_fn: str = choice("relu", "relu", "gelu")
    """The activation function of the MLP: "relu" or "gelu"."""
    normalization_type: str | None = choice(None, None, "LN")
    """The normalization before attention, MLP and unembedding: "LN" (LayerNorm) or none."""
    positions: str = choice("learned", "learned", "sinusoidal")
    """The position embeddings: "learned", or "sinusoidal" and fixed (Vaswani et al. 2017, section 3.5)."""
    biases: str = choice("mlp", "all", "mlp", "none")
    """The trained biases: "all", "mlp" (as in Nanda et al. 2023) or "none". The other biases stay zero."""
    init: str = choice("normal", "normal", "torch", "nanda2023")
    """The initialization: "normal" (as in Nanda et al. 2023), PyTorch's default, "torch" (Power et al. 2022),
    or "nanda2023": the very numbers that the code of Nanda et al. draws with `init_seed`."""
    init_scale: float = number(1.0, "a number above 0 and up to 100", lambda value: 0 < value <= 100)
    """A factor on every initial weight matrix: α in Omnigrok (Liu et al. 2022)."""
    d_vocab_out: int | None = integer(None, 2, 10**6, none="the number of answers")
    """The number of output columns, at least the number of answers. Nanda et al. 2023 have p + 1 of them."""


def contradictions(model: ModelConfig, invalid: set[str]) -> list[str]:
    """Return a fault if the number of heads does not divide the width.

    Args:
        model: The settings.
        invalid: The dotted names of the settings that are invalid by themselves. Checks that need them are skipped.
    """
    if not invalid.isdisjoint({"model.d_model", "model.n_heads"}) or model.d_model % model.n_heads == 0:
        return []
    divisors = ", ".join(str(n) for n in range(1, 65) if model.d_model % n == 0)
    return [f"model.n_heads: {model.n_heads} does not divide d_model = {model.d_model}; allowed: {divisors}"]
