"""Initial parameters drawn as published code draws them, number by number."""

from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

# The order in which the code of Nanda et al. 2023 draws the matrices of a block, and how it lays each of them out.
_BLOCK = {
    "attn.W_K": "h d_model d_head -> h d_head d_model",
    "attn.W_Q": "h d_model d_head -> h d_head d_model",
    "attn.W_V": "h d_model d_head -> h d_head d_model",
    "attn.W_O": "h d_head d_model -> d_model h d_head",
    "mlp.W_in": "d_model d_mlp -> d_mlp d_model",
    "mlp.W_out": "d_mlp d_model -> d_model d_mlp",
}


def nanda2023(
    shapes: Mapping[str, tuple[int, ...]], d_model: int, d_vocab: int, seed: int
) -> dict[str, Float[Tensor, "..."]]:
    """Return the weight matrices that the code of Nanda et al. 2023 draws after ``torch.manual_seed(seed)``.

    One stream of `torch.randn` on the CPU gives W_E, W_pos, then W_K, W_Q, W_V, W_O, W_in and W_out of each block,
    and W_U, each in the layout of that code. Each is divided by √d_model, and W_U by √d_vocab.

    Args:
        shapes: The shape of each parameter under TransformerLens names.
        d_model: The width of the residual stream.
        d_vocab: The number of tokens.
        seed: The seed of torch's generator. The global generator is not touched.

    Returns:
        The matrices under TransformerLens names and shapes, in float32; no biases.

    References:
        Nanda et al. 2023, code. Its mainline run has seed 0.
    """
    generator = torch.Generator().manual_seed(seed)
    layouts = {"embed.W_E": "d_vocab d_model -> d_model d_vocab", "pos_embed.W_pos": "n_ctx d_model -> n_ctx d_model"}
    n_layers = sum(name.endswith("attn.W_K") for name in shapes)
    for layer in range(n_layers):
        layouts |= {f"blocks.{layer}.{name}": layout for name, layout in _BLOCK.items()}
    layouts["unembed.W_U"] = "d_model d_vocab_out -> d_model d_vocab_out"
    matrices = {}
    for name, layout in layouts.items():
        ours, theirs = (side.split() for side in layout.split(" -> "))
        sizes = dict(zip(ours, shapes[name], strict=True))
        drawn = torch.randn([sizes[axis] for axis in theirs], generator=generator, dtype=torch.float32)
        weights = drawn / (d_vocab if name == "unembed.W_U" else d_model) ** 0.5
        matrices[name] = rearrange(weights, f"{' '.join(theirs)} -> {' '.join(ours)}").contiguous()
    return matrices
