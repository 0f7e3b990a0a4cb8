"""The forward pass: logits at the answer position, in three forms that agree to rounding.

- `plain` is the reference: it computes every position of every example.
- `shared` computes the activations of a common prefix once for all equations that begin with it.
- `merged` is for one layer without LayerNorm, where everything except the softmax and the neurons is linear. It
  multiplies the weight matrices with each other and with the few tokens, instead of with the many examples.

`logits` chooses the cheapest form that applies. All three are functions of the parameters. They can be differentiated
twice in reverse mode, and vmapped over all parameters together.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import threads
from grokscope.config import ModelConfig
from grokscope.model import merged as merged_form
from grokscope.model.equation_batch import Equations
from grokscope.model.short_attention import attend

Parameters = Mapping[str, Tensor]
Masks = Mapping[str, Float[Tensor, "n _ d_model"]]
Hook = Callable[[str, Tensor], Tensor]
"""A function of an activation's TransformerLens name and value. It returns the value that the forward pass uses."""
EMBEDDED = "hook_embed"
"""The name of the embedded tokens in a hook: (n, positions, d)."""
LAYER_NORM_EPS = 1e-5
_CHUNK = 1024
"""The number of examples whose neurons fit in the cache: in such chunks, all 113² take a fifth less time."""


def _identity(name: str, activation: Tensor) -> Tensor:
    return activation


def logits(
    config: ModelConfig,
    parameters: Parameters,
    equations: Equations,
    dropout: Masks | None = None,
    hook: Hook | None = None,
) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits at the last position, computed in the cheapest form that applies.

    Dropout and hooks need the plain form: with dropout examples share no activations, and a hook expects the
    activations of each example. The merged form runs on CPUs only, because its sparse sums have not been measured on
    a GPU.

    Args:
        config: The architecture.
        parameters: The parameters under TransformerLens names.
        equations: The batch.
        dropout: Masks that multiply the outputs of attention and MLP; by default no dropout.
        hook: Reads or replaces activations, as in `plain`.
    """
    if dropout is not None or hook is not None or not (config.has_fast_forms and equations.has_constant_end):
        return plain(config, parameters, equations.tokens, dropout, hook)
    if is_merged(config, equations):
        return merged(config, parameters, equations)
    return shared(config, parameters, equations)


def is_merged(config: ModelConfig, equations: Equations) -> bool:
    """Return whether the merged form applies to a batch and is the cheapest form."""
    is_exact = config.has_fast_forms and merged_form.applies(config) and equations.has_constant_end
    return is_exact and equations.tokens.device.type == "cpu"


def plain(
    config: ModelConfig,
    parameters: Parameters,
    tokens: Int[Tensor, "n n_ctx"],
    dropout: Masks | None = None,
    hook: Hook | None = None,
    *,
    all_positions: bool = False,
) -> Float[Tensor, "n *positions d_vocab_out"]:
    """Return the logits, computed separately for each example.

    Unless logits at all positions are needed, the last block computes only the last position.

    Args:
        config: The architecture.
        parameters: The parameters under TransformerLens names.
        tokens: The equations; no two need share a token.
        dropout: Masks that multiply the outputs of attention and MLP; by default no dropout.
        hook: Receives the embedded tokens as `EMBEDDED` (n, positions, d_model), without positions. Receives
            `attn.hook_pattern` (n, heads, queries, keys) and `mlp.hook_post` (n, positions, d_mlp) of each block.
            In the last block, the only query and position is the last one, unless `all_positions`.
        all_positions: Whether to return the logits of every position, and not of the last position alone.
    """
    hook = hook or _identity
    embedded = hook(EMBEDDED, F.embedding(tokens, parameters["embed.W_E"]))
    residual = embedded + parameters["pos_embed.W_pos"][: tokens.shape[1]]
    for layer in range(config.n_layers):
        block = f"blocks.{layer}."
        x = (
            residual
            if config.normalization_type == "LNPost"
            else _layer_norm(config, parameters, f"{block}ln1", residual)
        )
        if layer == config.n_layers - 1 and not all_positions:
            residual = residual[:, -1:]
        queries = _project(config, parameters, block, "Q", x[:, -residual.shape[1] :])
        keys, values = (_project(config, parameters, block, name, x) for name in "KV")
        z = _attend(
            queries,
            keys,
            values,
            lambda pattern, block=block: hook(f"{block}attn.hook_pattern", _mixed(config, pattern)),
            is_causal=config.attention_dir == "causal",
            is_scaled=config.use_attn_scale,
        )
        residual = _finish_block(config, parameters, block, residual, z, dropout, hook)
    return _unembed(config, parameters, residual if all_positions else residual[:, -1])


def shared(config: ModelConfig, parameters: Parameters, equations: Equations) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits, with the activations of the shared prefix computed once per first token.

    In "a ∘ b =", the first two positions cost p rows instead of one per example. LayerNorm, queries, keys and values
    of the first block are computed once per token and position, and then looked up. All equations must have the same
    token at the last position.
    """
    n_shared, n_layers = equations.n_shared, config.n_layers
    layout = equations.layout
    table = F.embedding(layout.tokens, parameters["embed.W_E"])
    table = table + F.embedding(layout.positions, parameters["pos_embed.W_pos"])
    x = _layer_norm(config, parameters, "blocks.0.ln1", table)
    projected = _project_together(parameters, "blocks.0.", "QKV", x)
    sizes = [projected.shape[1] // 3, projected.shape[1] // 3 * 2]
    queries, keys_values = projected.split(sizes, 1)
    # The residual stream has two parts: the prefixes, and the later positions of each example.
    later = layout.examples[:, -1:] if n_layers == 1 else layout.examples[:, n_shared:]
    z = attend(F.embedding(later, queries), F.embedding(layout.examples, keys_values), config.n_heads)
    stream = _finish_block(config, parameters, "blocks.0.", F.embedding(later, table), z)
    if n_layers > 1:
        z = attend(F.embedding(layout.prefixes, queries), F.embedding(layout.prefixes, keys_values), config.n_heads)
        prefix = _finish_block(config, parameters, "blocks.0.", F.embedding(layout.prefixes, table), z)
    for layer in range(1, n_layers):
        block, is_last = f"blocks.{layer}.", layer == n_layers - 1
        x, x_prefix = (_layer_norm(config, parameters, f"{block}ln1", part) for part in (stream, prefix))
        if is_last:
            stream = stream[:, -1:]
            queries = _project_together(parameters, block, "Q", x[:, -1:])
            keys_values = _project_together(parameters, block, "KV", x)
            prefix_keys_values = _project_together(parameters, block, "KV", x_prefix)
        else:
            queries, keys_values = _project_together(parameters, block, "QKV", x).split(sizes, 2)
            prefix_queries, prefix_keys_values = _project_together(parameters, block, "QKV", x_prefix).split(sizes, 2)
        looked_up = F.embedding(equations.tokens[:, 0], prefix_keys_values.flatten(1)).unflatten(1, (n_shared, -1))
        z = attend(queries, torch.cat([looked_up, keys_values], 1), config.n_heads)
        stream = _finish_block(config, parameters, block, stream, z)
        if not is_last:
            z = attend(prefix_queries, prefix_keys_values, config.n_heads)
            prefix = _finish_block(config, parameters, block, prefix, z)
    return _unembed(config, parameters, stream[:, -1])


def merged(config: ModelConfig, parameters: Parameters, equations: Equations) -> Float[Tensor, "n d_vocab_out"]:
    """Return the logits, with the weights multiplied with each other and the tokens (`grokscope.model.merged`)."""
    tables = merged_form.tables(config, parameters, equations)
    if torch.is_grad_enabled():
        return merged_form.logits(config, tables, equations)
    of_part = torch.no_grad()(partial(merged_form.logits, config, tables))
    return torch.cat(threads.compute([partial(of_part, part) for part in equations.parts(_CHUNK)]))


def _project_together(
    parameters: Parameters, block: str, names: str, x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows columns"]:
    """Return several of the queries, keys and values (`names` such as "KV") of a block, by one matrix product."""
    W = torch.cat([parameters[f"{block}attn.W_{name}"] for name in names])
    b = torch.cat([parameters[f"{block}attn.b_{name}"] for name in names])
    return F.linear(x, rearrange(W, "head d_model d_head -> (head d_head) d_model"), b.flatten())


def _project(
    config: ModelConfig, parameters: Parameters, block: str, name: str, x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows head d_head"]:
    """Return the queries, keys or values (`name` "Q", "K" or "V") of a block, one vector per head."""
    W = rearrange(parameters[f"{block}attn.W_{name}"], "head d_model d_head -> (head d_head) d_model")
    b = rearrange(parameters[f"{block}attn.b_{name}"], "head d_head -> (head d_head)")
    return rearrange(F.linear(x, W, b), "... (head d_head) -> ... head d_head", head=config.n_heads)


def _attend(
    queries: Float[Tensor, "n query head d_head"],
    keys: Float[Tensor, "n key head d_head"],
    values: Float[Tensor, "n key head d_head"],
    pattern_hook: Callable[[Tensor], Tensor] = lambda pattern: pattern,
    *,
    is_causal: bool = True,
    is_scaled: bool = True,
) -> Float[Tensor, "n query head*d_head"]:
    """Return the mixed values of attention from the last positions; `pattern_hook` may change the pattern.

    Flash attention has no second derivative, which the Hessian needs, so attention is written out.
    """
    n_queries, n_keys = queries.shape[1], keys.shape[1]
    scores = einsum(queries, keys, "n query head d_head, n key head d_head -> n head query key")
    if is_scaled:
        scores = scores * queries.shape[-1] ** -0.5
    if is_causal and n_queries > 1:
        is_visible = torch.ones(n_queries, n_keys, dtype=torch.bool, device=keys.device).tril(n_keys - n_queries)
        scores = scores.masked_fill(~is_visible, -torch.inf)
    z = einsum(pattern_hook(scores.softmax(-1)), values, "n head query key, n key head d_head -> n query head d_head")
    return rearrange(z, "n query head d_head -> n query (head d_head)")


def _finish_block(
    config: ModelConfig,
    parameters: Parameters,
    block: str,
    residual: Float[Tensor, "n positions d_model"],
    z: Float[Tensor, "n positions heads"],
    dropout: Masks | None = None,
    hook: Hook = _identity,
) -> Float[Tensor, "n positions d_model"]:
    """Return the residual stream after a block: add the mixed values z through W_O, then the output of the MLP."""
    W_O = rearrange(parameters[f"{block}attn.W_O"], "head d_head d_model -> (head d_head) d_model")
    attn_out = F.linear(z, W_O.T, parameters[f"{block}attn.b_O"])
    residual = residual + (attn_out * dropout[f"{block}hook_attn_out"] if dropout else attn_out)
    is_post = config.normalization_type == "LNPost"
    if is_post:
        residual = _layer_norm(config, parameters, f"{block}ln1", residual)
    if config.attn_only:
        return residual
    x = residual if is_post else _layer_norm(config, parameters, f"{block}ln2", residual)
    pre = F.linear(x, parameters[f"{block}mlp.W_in"].T, parameters[f"{block}mlp.b_in"])
    post = hook(f"{block}mlp.hook_post", _activate(config.act_fn, pre))
    mlp_out = F.linear(post, parameters[f"{block}mlp.W_out"].T, parameters[f"{block}mlp.b_out"])
    residual = residual + (mlp_out * dropout[f"{block}hook_mlp_out"] if dropout else mlp_out)
    return _layer_norm(config, parameters, f"{block}ln2", residual) if is_post else residual


def _activate(act_fn: str, pre: Float[Tensor, "*rows d_mlp"]) -> Float[Tensor, "*rows d_mlp"]:
    """Return the neurons' outputs."""
    if act_fn == "relu":
        return F.relu(pre)
    if act_fn == "gelu":
        return F.gelu(pre)
    return pre.square() if act_fn == "quadratic" else F.relu(pre).square()


def _mixed(config: ModelConfig, pattern: Float[Tensor, "n head query key"]) -> Float[Tensor, "n head query key"]:
    if config.attention_alpha == 1:
        return pattern
    return mixed_with_constant(pattern, config.attention_alpha, config.attention_dir == "causal")


def mixed_with_constant(
    pattern: Float[Tensor, "n head query key"], alpha: float, is_causal: bool
) -> Float[Tensor, "n head query key"]:
    """Return α · pattern + (1 − α) · 1, with 0 for keys after the query under causal attention.

    The constant is 1 for each visible key, so the rows of the constant pattern do not sum to 1.

    References:
        Zhong et al. 2023, section 4.
    """
    n_queries, n_keys = pattern.shape[-2:]
    constant = torch.ones(n_queries, n_keys, dtype=pattern.dtype, device=pattern.device)
    return alpha * pattern + (1 - alpha) * (constant.tril(n_keys - n_queries) if is_causal else constant)


def _unembed(
    config: ModelConfig, parameters: Parameters, residual: Float[Tensor, "n *positions d_model"]
) -> Float[Tensor, "n *positions d_vocab_out"]:
    """Return the logits of a residual stream after the last block."""
    is_normalized = config.normalization_type == "LN"
    normalized = _layer_norm(config, parameters, "ln_final", residual) if is_normalized else residual
    return F.linear(normalized, parameters["unembed.W_U"].T, parameters["unembed.b_U"])


def _layer_norm(
    config: ModelConfig, parameters: Parameters, name: str, x: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows d_model"]:
    """Return x after the LayerNorm `name`, or unchanged if the architecture has no LayerNorm."""
    if config.normalization_type is None:
        return x
    return F.layer_norm(x, (config.d_model,), parameters[f"{name}.w"], parameters[f"{name}.b"], LAYER_NORM_EPS)
