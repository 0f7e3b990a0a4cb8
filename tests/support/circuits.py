"""Transformers made by hand, which do exactly what is wanted of them at every pair (a, b)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.tasks.circle import on_circle


def sizes(p: int, n_neurons: int) -> dict[str, int]:
    """Return the sizes of the model that `reader` fills for p elements."""
    width = 4 * p + 4
    return {"d_model": width + width % 2, "n_heads": 2, "d_mlp": n_neurons}


def reader(p: int, W_a: Tensor, W_b: Tensor, bias: Tensor, W_L: Tensor) -> dict[str, Tensor]:
    """Return the parameters of a model whose neuron m is relu(W_a[a, m] + W_b[b, m] + bias[m]), logits post @ W_L.

    Embeddings are one-hot, head 0 looks at a alone and head 1 at b alone, and each copies the token it sees.
    """
    n_neurons = W_L.shape[0]
    shape = sizes(p, n_neurons)
    d, d_head = shape["d_model"], shape["d_model"] // 2
    position, seen, out = p + 1, (p + 4, 2 * p + 4), 3 * p + 4

    def zeros(*size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.float64)

    block = "blocks.0."
    made = {
        "embed.W_E": torch.eye(p + 1, d, dtype=torch.float64),
        "pos_embed.W_pos": torch.eye(d, dtype=torch.float64)[position : position + 3].clone(),
        "unembed.W_U": torch.eye(d, dtype=torch.float64)[:, out : out + p].clone(),
        "unembed.b_U": zeros(p),
        f"{block}attn.b_O": zeros(d),
        f"{block}mlp.W_in": zeros(d, n_neurons),
        f"{block}mlp.b_in": bias,
        f"{block}mlp.W_out": zeros(n_neurons, d),
        f"{block}mlp.b_out": zeros(d),
    }
    for name in "QKV":
        made[f"{block}attn.W_{name}"] = zeros(2, d, d_head)
        made[f"{block}attn.b_{name}"] = zeros(2, d_head)
    made[f"{block}attn.W_O"] = zeros(2, d_head, d)
    for head in (0, 1):
        made[f"{block}attn.W_Q"][head, position + 2, 0] = 1.0
        made[f"{block}attn.W_K"][head, position + head, 0] = 1000 * math.sqrt(d_head)
        token = torch.arange(p)
        made[f"{block}attn.W_V"][head, token, token] = 1.0
        made[f"{block}attn.W_O"][head, token, seen[head] + token] = 1.0
        made[f"{block}mlp.W_in"][seen[head] : seen[head] + p] = (W_a, W_b)[head]
    made[f"{block}mlp.W_out"][:, out : out + p] = W_L
    return made


def lookup(table: Tensor) -> dict[str, Tensor]:
    """Return the parameters of a model whose logits are a table (a, b, class): one neuron a pair."""
    p = len(table)
    pair = torch.eye(p * p, dtype=torch.float64).unflatten(0, (p, p))
    return reader(p, pair.sum(1), pair.sum(0), -torch.ones(p * p, dtype=torch.float64), table.flatten(0, 1))


def cosines(config: TaskConfig, alpha: Mapping[int, float]) -> Tensor:
    """Return the table (a, b, class) of Σ_k α_k cos(w_k(i ± j − l)); zero for tokens on no circle."""
    circle = on_circle(tasks.build(config))
    n, tokens = len(circle), circle.tokens.tolist()
    table = torch.zeros(config.p, config.p, config.p, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            for at in range(n):
                angle = 2 * math.pi * (i + circle.sign * j - at) / n
                table[tokens[i], tokens[j], tokens[at]] = sum(a * math.cos(k * angle) for k, a in alpha.items())
    return table
