"""Small transformers as other programs write them: the truth about a layout is the module's own forward pass."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_TOKENS, N_ANSWERS, WIDTH, N_HEADS, N_NEURONS, N_POSITIONS = 8, 7, 12, 3, 20, 3


class Conv1D(nn.Module):
    """A linear layer with inputs first, as in GPT-2."""

    def __init__(self, n_inputs: int, n_outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention of (batch, heads, positions, d_head), with the heads joined."""
    z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return z.transpose(1, 2).flatten(2)


class FusedAttention(nn.Module):
    """Attention with one projection; the names and the order of its outputs are those of a program."""

    def __init__(self, name: str, out_name: str, by_head: bool, linear: Callable[[int, int], nn.Module] = nn.Linear):
        super().__init__()
        self.names, self.by_head = (name, out_name), by_head
        self.add_module(name, linear(WIDTH, 3 * WIDTH))
        self.add_module(out_name, linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.get_submodule(self.names[0])(x)
        if self.by_head:
            parts = qkv.view(*x.shape[:2], N_HEADS, -1).transpose(1, 2).chunk(3, -1)
        else:
            parts = [part.view(*x.shape[:2], N_HEADS, -1).transpose(1, 2) for part in qkv.chunk(3, -1)]
        return self.get_submodule(self.names[1])(attend(*parts))


class SeparateAttention(nn.Module):
    """Attention with three projections, under the names of a program."""

    def __init__(self, *names: str, bias: bool = True):
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, nn.Linear(WIDTH, WIDTH, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.get_submodule(name)(x).view(*x.shape[:2], N_HEADS, -1).transpose(1, 2) for name in self.names[:3]
        )
        return self.get_submodule(self.names[3])(attend(q, k, v))


class BareAttention(nn.Module):
    """Attention with parameters instead of modules, with inputs first."""

    def __init__(self):
        super().__init__()
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Parameter(torch.zeros(WIDTH, WIDTH)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = ((x @ W).view(*x.shape[:2], N_HEADS, -1).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        return attend(q, k, v) @ self.W_o


class Head(nn.Module):
    """One attention head with projections of its own."""

    def __init__(self):
        super().__init__()
        self.Wq, self.Wk, self.Wv = (nn.Linear(WIDTH, WIDTH // N_HEADS, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return attend(*(projection(x)[:, None] for projection in (self.Wq, self.Wk, self.Wv)))


class HeadList(nn.Module):
    """Attention with a module for each head."""

    def __init__(self):
        super().__init__()
        self.attn_heads = nn.ModuleList(Head() for _ in range(N_HEADS))
        self.Wo = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.Wo(torch.cat([head(x) for head in self.attn_heads], -1))


class TorchAttention(nn.MultiheadAttention):
    """torch's own attention with a causal mask."""

    def __init__(self):
        super().__init__(WIDTH, N_HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return super().forward(x, x, x, attn_mask=mask, need_weights=False)[0]


class Net(nn.Module):
    """A decoder of one or more blocks, with the names of a program.

    Args:
        names: The names of the embedding, the positions, the layers, the final normalization and the output.
        block_names: The names of the attention, the MLP and the two normalizations of a block.
        attention: Makes an attention module.
        mlp: Makes an MLP.
        activation: The activation function of an MLP that is not a Sequential.
        has_norms: Whether LayerNorm precedes each sublayer and the output.
    """

    def __init__(
        self,
        names: str,
        block_names: str,
        attention: Callable[[], nn.Module],
        mlp: Callable[[], nn.Module],
        has_norms: bool = True,
        n_layers: int = 2,
        is_bare: bool = False,
    ):
        super().__init__()
        self.names, self.block_names, self.has_norms, self.is_bare = (
            names.split(),
            block_names.split(),
            has_norms,
            is_bare,
        )
        embed, pos, layers, norm, out = self.names
        self.add_module(embed, nn.Embedding(N_TOKENS, WIDTH))
        if is_bare:
            self.register_parameter(pos, nn.Parameter(torch.zeros(1, N_POSITIONS, WIDTH)))
        else:
            self.add_module(pos, nn.Embedding(N_POSITIONS + 2, WIDTH))
        blocks = []
        for _ in range(n_layers):
            parts = {self.block_names[0]: attention(), self.block_names[1]: mlp()}
            parts |= {name: nn.LayerNorm(WIDTH) for name in self.block_names[2:]} if has_norms else {}
            blocks.append(nn.ModuleDict(parts))
        self.add_module(layers, nn.ModuleList(blocks))
        if has_norms:
            self.add_module(norm, nn.LayerNorm(WIDTH))
        self.add_module(out, nn.Linear(WIDTH, N_ANSWERS, bias=False))
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits at the last position."""
        embed, pos, layers, norm, out = self.names
        positions = getattr(self, pos) if self.is_bare else getattr(self, pos)(torch.arange(N_POSITIONS))
        x = getattr(self, embed)(tokens) + positions
        for block in getattr(self, layers):
            attention, mlp, *norms = (block[name] for name in self.block_names[: 4 if self.has_norms else 2])
            x = x + attention(norms[0](x) if norms else x)
            x = x + mlp(norms[1](x) if norms else x)
        x = getattr(self, norm)(x) if self.has_norms else x
        return getattr(self, out)(x[:, -1])


class Feed(nn.Module):
    """An MLP with named layers."""

    def __init__(self, first: str, second: str, linear: Callable[[int, int], nn.Module] = nn.Linear):
        super().__init__()
        self.names = (first, second)
        self.add_module(first, linear(WIDTH, N_NEURONS))
        self.add_module(second, linear(N_NEURONS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.names[1])(F.gelu(self.get_submodule(self.names[0])(x)))


def sequential() -> nn.Module:
    """Return an MLP whose layers are numbered, with a dropout between them."""
    return nn.Sequential(nn.Linear(WIDTH, N_NEURONS), nn.GELU(), nn.Dropout(0.0), nn.Linear(N_NEURONS, WIDTH))


NETS: dict[str, Callable[[], Net]] = {
    "nanoGPT": lambda: Net(
        "wte wpe h ln_f lm_head",
        "attn mlp ln_1 ln_2",
        lambda: FusedAttention("c_attn", "c_proj", False),
        lambda: Feed("c_fc", "c_proj"),
    ),
    "GPT-2": lambda: Net(
        "wte wpe h ln_f lm_head",
        "attn mlp ln_1 ln_2",
        lambda: FusedAttention("c_attn", "c_proj", False, Conv1D),
        lambda: Feed("c_fc", "c_proj", Conv1D),
    ),
    "fused by head": lambda: Net(
        "embed_in pos_emb layers final_layer_norm embed_out",
        "attention mlp input_layernorm post_attention_layernorm",
        lambda: FusedAttention("query_key_value", "dense", True),
        lambda: Feed("dense_h_to_4h", "dense_4h_to_h"),
    ),
    "torch attention": lambda: Net(
        "token_embeddings position_embeddings layers ln_f head", "attn mlp ln_1 ln_2", TorchAttention, sequential
    ),
    "separate": lambda: Net(
        "embedding pos_embedding blocks norm fc_out",
        "self_attn ffn norm1 norm2",
        lambda: SeparateAttention("q_proj", "k_proj", "v_proj", "out_proj"),
        lambda: Feed("linear1", "linear2"),
    ),
    "a module for each head": lambda: Net(
        "tok_embed pos_embed blocks ln_final linear", "self_attn ffn self_attn_norm ffn_norm", HeadList, sequential
    ),
    "bare parameters": lambda: Net(
        "tok_emb pos_emb blocks norm unembed",
        "attn mlp ln1 ln2",
        BareAttention,
        lambda: Feed("up", "down"),
        has_norms=False,
        is_bare=True,
    ),
    "one block": lambda: Net(
        "embed pos layers norm output",
        "attention feed_forward ln_attn ln_mlp",
        lambda: SeparateAttention("W_Q", "W_K", "W_V", "W_O", bias=False),
        lambda: Feed("fc1", "fc2"),
        n_layers=1,
    ),
}
"""The layouts, each with a network that has random weights."""
