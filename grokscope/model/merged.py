"""The merged form of the forward pass, for one layer without LayerNorm.

Everything except the attention's softmax and the neurons is linear. The weight matrices are therefore multiplied with
each other and with the few tokens, instead of with the many examples. Let P be the attention pattern from the last
position, v the values, and r and r' the residual stream at the last position before and after attention:

    r' = r + Σ_{position, head} P v W_O,    logits = r' W_U + post (W_out W_U),    post = act(r' W_in + b_in).

Therefore v W_O W_in and v W_O W_U are tables over (head, position, token), and each example is the `mix` of a few of
their rows. The value at the last position is the same in every example, and Σ P = 1 over the positions. It is
therefore subtracted from the other values and added once.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from grokscope.config import ModelConfig
from grokscope.model.embedding_bag import mix
from grokscope.model.equation_batch import Equations

_ALIGNMENT = 16
"""Sums of rows whose length is a multiple of this number of columns take a fifth less time."""


class Tables(NamedTuple):
    """Everything that the examples read: the tokens multiplied with the weights.

    A column belongs to a neuron, to a logit (from d_mlp on) or to neither (from d_mlp + d_vocab_out on, zero).
    """

    scores: Float[Tensor, "n_scores heads"]
    """The attention score of position · d_vocab + token from the last position; last, that of the last position."""
    contributions: Float[Tensor, "head n_rows columns"]
    """What attention to each head's value adds to r' W_in and r' W_U, by position · d_vocab + token."""
    bias: Float[Tensor, " columns"]
    """The terms of r' W_in + b_in and of the logits that all examples share."""
    W_out_U: Float[Tensor, "d_mlp d_vocab_out"]


def applies(config: ModelConfig) -> bool:
    """Return whether an architecture has a merged form."""
    return config.n_layers == 1 and config.normalization_type is None


def n_columns(d_mlp: int, d_vocab_out: int) -> int:
    """Return the number of columns of the tables: the neurons and the logits, rounded up to `_ALIGNMENT`."""
    return -(-(d_mlp + d_vocab_out) // _ALIGNMENT) * _ALIGNMENT


def tables(config: ModelConfig, parameters: Mapping[str, Tensor], equations: Equations) -> Tables:
    """Return the tables of a batch; they can be differentiated twice, and vmapped."""
    attention, mlp = "blocks.0.attn.", "blocks.0.mlp."
    W_E, W_pos, W_O = parameters["embed.W_E"], parameters["pos_embed.W_pos"], parameters[f"{attention}W_O"]
    W_in, W_U = parameters[f"{mlp}W_in"], parameters["unembed.W_U"]
    n_before = equations.tokens.shape[1] - 1
    before = rearrange(W_E + W_pos[:n_before, None], "position token d_model -> (position token) d_model")
    last = F.embedding(equations.tokens[0, -1], W_E) + W_pos[n_before]
    x = torch.cat([before, last[None]])

    query = torch.matmul(last, parameters[f"{attention}W_Q"]) + parameters[f"{attention}b_Q"]
    query = query * query.shape[-1] ** -0.5
    key_direction = einsum(parameters[f"{attention}W_K"], query, "head d_model d_head, head d_head -> d_model head")
    key_bias = (parameters[f"{attention}b_K"] * query).sum(1)
    scores = torch.addmm(key_bias, x, key_direction)

    padding = W_in.new_zeros(len(W_in), n_columns(W_in.shape[1], W_U.shape[1]) - W_in.shape[1] - W_U.shape[1])
    readers = torch.cat([W_in, W_U, padding], 1)
    values = torch.matmul(x, parameters[f"{attention}W_V"])
    contributions = (values[:, :-1] - values[:, -1:]) @ (W_O @ readers)
    last_value = values[:, -1] + parameters[f"{attention}b_V"]
    constant = last + last_value.flatten() @ W_O.flatten(0, 1) + parameters[f"{attention}b_O"]
    logit_bias = parameters[f"{mlp}b_out"] @ W_U + parameters["unembed.b_U"]
    bias = constant @ readers + torch.cat([parameters[f"{mlp}b_in"], logit_bias, padding[0]])
    return Tables(scores, contributions, bias, parameters[f"{mlp}W_out"] @ W_U)


def logits(config: ModelConfig, tables: Tables, equations: Equations) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits of a batch from its tables; they can be differentiated any number of times, and vmapped."""
    scores, contributions, bias, W_out_U = tables
    looked_up = F.embedding(equations.rows, scores[:-1])
    looked_up = torch.cat([looked_up, scores[-1].expand(len(equations), 1, -1)], 1)
    weights = rearrange(looked_up.softmax(1)[:, :-1], "n position head -> n (position head)")
    mixed = mix(weights, contributions.flatten(0, 1), equations.entries) + bias
    d_mlp, d_vocab_out = W_out_U.shape
    pre, direct, _ = mixed.split([d_mlp, d_vocab_out, mixed.shape[1] - d_mlp - d_vocab_out], 1)
    post = F.relu(pre) if config.act_fn == "relu" else F.gelu(pre)
    return torch.addmm(direct, post, W_out_U)
