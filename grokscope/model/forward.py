"""The forward pass: logits at the answer position, in three forms that agree with each other to rounding.

`plain` is the reference: every position of every example, as one would write it down. `shared` computes what the
first tokens of an equation decide once for all equations that begin so. `merged` is for one layer without
LayerNorm, where all but attention's softmax and the neurons is linear: matrices are multiplied with each other and
with the tables of tokens, of which there are few, instead of with the examples, of which there are many.
`logits` chooses. All are functions of the parameters that can be differentiated twice, in reverse, and vmapped over
all parameters together.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.config import ModelConfig
from grokscope.model.embedding_bag import mix
from grokscope.model.equation_batch import Equations

Parameters = Mapping[str, Tensor]
Masks = Mapping[str, Float[Tensor, "n _ d_model"]]
Hook = Callable[[str, Tensor], Tensor]
"""What is done to an activation, given its name in TransformerLens and its value: it returns the value to go on
with, so it can look, and it can change."""
LAYER_NORM_EPS = 1e-5
_AT_ONCE = 4096
"""How many examples' neurons fit in a cache: evaluated in such parts, all 113² take a fifth less time."""


def _untouched(name: str, activation: Tensor) -> Tensor:
    return activation


def logits(
    config: ModelConfig,
    parameters: Parameters,
    equations: Equations,
    dropout: Masks | None = None,
    hook: Hook | None = None,
) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits at the last position by the form that costs least there.

    With dropout no two examples share anything, and a hook is to see what the plain form computes. The merged form's
    sparse sums pay off on a processor; how they do on a GPU has not been measured.
    """
    if dropout is not None or hook is not None or not equations.same_end:
        return plain(config, parameters, equations.tokens, dropout, hook)
    if config.n_layers == 1 and config.normalization_type is None and equations.tokens.device.type == "cpu":
        return merged(config, parameters, equations)
    return shared(config, parameters, equations)


def plain(
    config: ModelConfig,
    parameters: Parameters,
    tokens: Int[Tensor, "n n_ctx"],
    dropout: Masks | None = None,
    hook: Hook | None = None,
) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits, computed for each example by itself; the last block computes the last position only.

    A `hook` is given each block's `attn.hook_pattern` (n, heads, queries, keys) and `mlp.hook_post` (n, positions,
    d_mlp), where the last block's only query or position is the last.
    """
    hook = hook or _untouched
    residual = F.embedding(tokens, parameters["embed.W_E"]) + parameters["pos_embed.W_pos"][: tokens.shape[1]]
    for layer in range(config.n_layers):
        block = f"blocks.{layer}."
        x = _layer_norm(config, parameters, f"{block}ln1", residual)
        if layer == config.n_layers - 1:
            residual = residual[:, -1:]
        queries = _heads(config, parameters, block, "Q", x[:, -residual.shape[1] :])
        keys, values = (_heads(config, parameters, block, name, x) for name in "KV")
        z = _attend(queries, keys, values, lambda pattern, block=block: hook(f"{block}attn.hook_pattern", pattern))
        residual = _block_end(config, parameters, block, residual, z, dropout, hook)
    return _unembed(config, parameters, residual[:, -1])


def shared(config: ModelConfig, parameters: Parameters, equations: Equations) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits, with the leading positions that the first token decides computed once for each first token.

    So of "a ∘ b =" the first two positions cost p rows, not one for each example, and the first block's LayerNorm,
    queries, keys and values are computed once for each token and position, and looked up.
    """
    tokens, n_shared = equations.tokens, equations.n_shared
    n_ctx, d_vocab = tokens.shape[1], equations.d_vocab
    positions = torch.arange(n_ctx, device=tokens.device) * d_vocab
    first = torch.arange(d_vocab, device=tokens.device)[:, None]
    prefixes = torch.cat([first, tokens[:1, 1:n_shared].expand(d_vocab, -1)], 1) + positions[:n_shared]
    rows = tokens[:, n_shared:] + positions[n_shared:]

    table = _table(parameters, n_ctx)
    # Each residual stream twice: of the prefixes, and of the examples from there on.
    streams = [F.embedding(prefixes, table), F.embedding(rows, table)]
    for layer in range(config.n_layers):
        block, is_last = f"blocks.{layer}.", layer == config.n_layers - 1
        normalized = [
            _layer_norm(config, parameters, f"{block}ln1", one) for one in ([table] if layer == 0 else streams)
        ]
        projected = {name: [_heads(config, parameters, block, name, one) for one in normalized] for name in "QKV"}
        if layer == 0:
            projected = {n: [_looked_up(one, where) for where in (prefixes, rows)] for n, (one,) in projected.items()}
        queries, keys, values = projected.values()
        before = [_looked_up(one[0], tokens[:, 0]) for one in (keys, values)]
        z = _attend(
            queries[1][:, -1:] if is_last else queries[1],
            torch.cat([before[0], keys[1]], 1),
            torch.cat([before[1], values[1]], 1),
        )
        own = _block_end(config, parameters, block, streams[1][:, -z.shape[1] :], z)
        if is_last:
            return _unembed(config, parameters, own[:, -1])
        z = _attend(queries[0], keys[0], values[0])
        streams = [_block_end(config, parameters, block, streams[0], z), own]
    raise AssertionError("a model has a layer")


def merged(config: ModelConfig, parameters: Parameters, equations: Equations) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits of one layer without LayerNorm, its linear maps applied to the tables of tokens.

    With the weights P of attention from the last position, r its residual stream before attention, and v the
    values, what attention leaves behind and the logits are

        r' = r + Σ_{position, head} P v W_O,    logits = r' W_U + post (W_out W_U),    post = act(r' W_in + b_in).

    So v W_O W_in and v W_O W_U are tables of (position, head, token), and an example is the `mix` of a few of their
    rows. As Σ P = 1 over the positions, the last one's value, the same in every example, is taken from each.
    """
    block, n_before = "blocks.0.", equations.tokens.shape[1] - 1
    W_O, W_in, W_U = (parameters[name] for name in (f"{block}attn.W_O", f"{block}mlp.W_in", "unembed.W_U"))
    W_out_U = parameters[f"{block}mlp.W_out"] @ W_U
    table = _table(parameters, n_before + 1)
    first_of_last = n_before * equations.d_vocab
    last = F.embedding(first_of_last + equations.tokens[0, -1], table)
    x = torch.cat([table[:first_of_last], last[None]])
    query = _heads(config, parameters, block, "Q", last)
    keys, values = (_heads(config, parameters, block, name, x) for name in "KV")
    scores = einsum(query, keys, "head d_head, row head d_head -> row head") * query.shape[-1] ** -0.5
    moved = rearrange(values[:-1] - values[-1], "row head d_head -> head row d_head")
    stays = last + einsum(values[-1], W_O, "head d_head, head d_head d_model -> d_model")
    stays = stays + parameters[f"{block}attn.b_O"]

    def read(W: Float[Tensor, "d_model columns"]) -> Float[Tensor, "rows columns"]:
        """Return what each position, head and token adds to r' W."""
        through = moved @ (W_O @ W)
        return rearrange(through, "head (position token) column -> (position head token) column", position=n_before)

    to_neurons, to_logits = read(W_in), read(W_U)
    neuron_bias = stays @ W_in + parameters[f"{block}mlp.b_in"]
    bias = (stays + parameters[f"{block}mlp.b_out"]) @ W_U + parameters["unembed.b_U"]

    def answers(some: Equations) -> Float[Tensor, "some d_vocab_out"]:
        rows = some.tokens[:, :-1] + torch.arange(n_before, device=table.device) * equations.d_vocab
        own = torch.cat([F.embedding(rows, scores[:-1]), scores[-1].expand(len(rows), 1, -1)], 1)
        weights = rearrange(own.softmax(1)[:, :-1], "n position head -> n (position head)")
        pre = mix(weights, to_neurons, some.entries).add_(neuron_bias)
        post = F.relu(pre, inplace=True) if config.act_fn == "relu" else F.gelu(pre)
        return torch.addmm(mix(weights, to_logits, some.entries).add_(bias), post, W_out_U)

    if torch.is_grad_enabled():
        return answers(equations)
    return torch.cat([answers(part) for part in equations.parts(_AT_ONCE)])


def _table(parameters: Parameters, n_ctx: int) -> Float[Tensor, "rows d_model"]:
    """Return the residual stream before the first block for each position and token."""
    table = parameters["embed.W_E"] + parameters["pos_embed.W_pos"][:n_ctx, None]
    return rearrange(table, "position token d_model -> (position token) d_model")


def _looked_up(table: Float[Tensor, "n_rows *inner"], rows: Int[Tensor, "*batch"]) -> Float[Tensor, "..."]:
    """Return rows of a table. `F.embedding` is the lookup with a cheap backward pass; indexing's is slow."""
    return F.embedding(rows, table.flatten(1)).unflatten(-1, table.shape[1:])


def _heads(
    config: ModelConfig, parameters: Parameters, block: str, name: str, x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows head d_head"]:
    W = rearrange(parameters[f"{block}attn.W_{name}"], "head d_model d_head -> (head d_head) d_model")
    b = rearrange(parameters[f"{block}attn.b_{name}"], "head d_head -> (head d_head)")
    return rearrange(F.linear(x, W, b), "... (head d_head) -> ... head d_head", head=config.n_heads)


def _attend(
    queries: Float[Tensor, "n query head d_head"],
    keys: Float[Tensor, "n key head d_head"],
    values: Float[Tensor, "n key head d_head"],
    change: Callable[[Tensor], Tensor] = lambda pattern: pattern,
) -> Float[Tensor, "n query head*d_head"]:
    """Attend causally, the queries being those of the last positions, with what `change` makes of the pattern.

    Written out: flash attention has no second derivative, which the Hessian needs.
    """
    n_queries, n_keys = queries.shape[1], keys.shape[1]
    scores = einsum(queries, keys, "n query head d_head, n key head d_head -> n head query key")
    scores = scores * queries.shape[-1] ** -0.5
    if n_queries > 1:
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=keys.device).tril(n_keys - n_queries)
        scores = scores.masked_fill(~seen, -torch.inf)
    z = einsum(change(scores.softmax(-1)), values, "n head query key, n key head d_head -> n query head d_head")
    return rearrange(z, "n query head d_head -> n query (head d_head)")


def _block_end(
    config: ModelConfig,
    parameters: Parameters,
    block: str,
    residual: Float[Tensor, "n positions d_model"],
    z: Float[Tensor, "n positions d_model"],
    dropout: Masks | None = None,
    hook: Hook = _untouched,
) -> Float[Tensor, "n positions d_model"]:
    """Return the residual stream after a block, from that before it and the mixed values: W_O, then the MLP."""
    W_O = rearrange(parameters[f"{block}attn.W_O"], "head d_head d_model -> (head d_head) d_model")
    attn_out = F.linear(z, W_O.T, parameters[f"{block}attn.b_O"])
    residual = residual + (attn_out * dropout[f"{block}hook_attn_out"] if dropout else attn_out)
    x = _layer_norm(config, parameters, f"{block}ln2", residual)
    pre = F.linear(x, parameters[f"{block}mlp.W_in"].T, parameters[f"{block}mlp.b_in"])
    post = hook(f"{block}mlp.hook_post", F.relu(pre) if config.act_fn == "relu" else F.gelu(pre))
    mlp_out = F.linear(post, parameters[f"{block}mlp.W_out"].T, parameters[f"{block}mlp.b_out"])
    return residual + (mlp_out * dropout[f"{block}hook_mlp_out"] if dropout else mlp_out)


def _unembed(
    config: ModelConfig, parameters: Parameters, residual: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n d_vocab_out"]:
    final = _layer_norm(config, parameters, "ln_final", residual)
    return F.linear(final, parameters["unembed.W_U"].T, parameters["unembed.b_U"])


def _layer_norm(
    config: ModelConfig, parameters: Parameters, name: str, x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows d_model"]:
    if config.normalization_type is None:
        return x
    return F.layer_norm(x, (config.d_model,), parameters[f"{name}.w"], parameters[f"{name}.b"], LAYER_NORM_EPS)
