"""The model: one pure function of parameters, equal to HookedTransformer's. The only importer of TransformerLens.

Parameters are a dict under TransformerLens' names and shapes. Training, losses and curvature all call
`Model.logits`, which can be differentiated twice and vmapped; `Model.hooked` gives the same parameters as a real
HookedTransformer for hooks, caches and patching.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope import streams
from grokscope.config import ModelConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Parameters = Mapping[str, Tensor]

_LAYER_NORM_EPS = 1e-5
# Enough rows to keep the cores busy, few enough for a large p to fit in memory.
_EVALUATED_AT_ONCE = 32_768


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer for equations of `n_ctx` tokens whose answer is read at the last one."""

    config: ModelConfig
    d_vocab: int
    d_vocab_out: int
    n_ctx: int

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's name and shape, as `HookedTransformer.named_parameters` has them, sorted by name."""
        c, d_head = self.config, self.config.d_model // self.config.n_heads
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, c.d_model),
            "pos_embed.W_pos": (self.n_ctx, c.d_model),
            "unembed.W_U": (c.d_model, self.d_vocab_out),
            "unembed.b_U": (self.d_vocab_out,),
        }
        layer_norms = ["ln_final"] if c.normalization_type else []
        for layer in range(c.n_layers):
            block = f"blocks.{layer}"
            for name in "QKV":
                shapes[f"{block}.attn.W_{name}"] = (c.n_heads, c.d_model, d_head)
                shapes[f"{block}.attn.b_{name}"] = (c.n_heads, d_head)
            shapes[f"{block}.attn.W_O"] = (c.n_heads, d_head, c.d_model)
            shapes[f"{block}.attn.b_O"] = (c.d_model,)
            shapes[f"{block}.mlp.W_in"] = (c.d_model, c.d_mlp)
            shapes[f"{block}.mlp.b_in"] = (c.d_mlp,)
            shapes[f"{block}.mlp.W_out"] = (c.d_mlp, c.d_model)
            shapes[f"{block}.mlp.b_out"] = (c.d_model,)
            layer_norms += [f"{block}.ln1", f"{block}.ln2"] if c.normalization_type else []
        for name in layer_norms:
            shapes[f"{name}.w"] = shapes[f"{name}.b"] = (c.d_model,)
        return dict(sorted(shapes.items()))

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The names of the parameters that training moves; the others are biases that stay zero, or sinusoids.

        LayerNorm's scale and shift are no linear layer's bias: they are always trained.
        """
        biases = {"all": (), "mlp": ("attn.b_", "unembed.b_"), "none": ("attn.b_", "mlp.b_", "unembed.b_")}
        frozen = biases[self.config.biases] + (("W_pos",) if self.config.positions == "sinusoidal" else ())
        return tuple(name for name in self.shapes if not any(part in name for part in frozen))

    def initialize(self, seed: int) -> dict[str, Float[Tensor, "..."]]:
        """Return fresh float32 parameters, each tensor from a random stream of its own.

        With `init` "normal", weights have standard deviation 1/√d_model, W_U 1/√d_vocab (Nanda et al. 2023,
        appendix). With "torch", embeddings have standard deviation 1 and every other matrix is uniform within
        ±1/√(its inputs), torch's defaults and so Power et al.'s. Both times `init_scale`. Biases are zero,
        LayerNorm scales one. Touches no global generator.
        """
        c, parameters = self.config, {}
        for name, shape in self.shapes.items():
            kind = name.split(".")[-1]
            if kind == "W_pos" and c.positions == "sinusoidal":
                parameters[name] = _sinusoids(*shape)
            elif kind.startswith("W_"):
                generator = streams.generator("init", seed, name)
                if c.init == "torch" and kind not in ("W_E", "W_pos"):
                    bound = (c.d_mlp if kind == "W_out" else c.d_model) ** -0.5
                    drawn = torch.rand(shape, generator=generator, dtype=torch.float32) * (2 * bound) - bound
                else:
                    deviation = (self.d_vocab if kind == "W_U" else c.d_model) ** -0.5 if c.init == "normal" else 1.0
                    drawn = torch.randn(shape, generator=generator, dtype=torch.float32) * deviation
                parameters[name] = drawn * c.init_scale
            else:
                parameters[name] = torch.full(shape, 1.0 if kind == "w" else 0.0, dtype=torch.float32)
        return parameters

    def faults(self, parameters: Parameters) -> list[str]:
        """Say which names are missing or unknown and which shapes are wrong, one sentence each."""
        missing = [f"{name} is missing" for name in self.shapes if name not in parameters]
        unknown = [f"{name} is unknown" for name in parameters if name not in self.shapes]
        wrong = [
            f"{name} has shape {tuple(parameters[name].shape)}; allowed: {shape}"
            for name, shape in self.shapes.items()
            if name in parameters and tuple(parameters[name].shape) != shape
        ]
        return missing + unknown + wrong

    def logits(
        self,
        parameters: Parameters,
        tokens: Int[Tensor, "batch n_ctx"],
        dropout: Mapping[str, Float[Tensor, "batch positions d_model"]] | None = None,
    ) -> Float[Tensor, "batch d_vocab_out"]:
        """Return the logits at the answer position (the last), as HookedTransformer's forward gives them there.

        `dropout` holds the masks of `dropout_masks`, by which that which each sublayer adds to the residual stream
        is multiplied; without it nothing is dropped.

        Two things save work without changing the function. The last block computes its answer position only,
        and what the first block knows of a token and its position alone (its input, LayerNorm, queries, keys
        and values) is computed once per token and position, then looked up for each example.
        """
        n_ctx = tokens.shape[1]
        table = parameters["embed.W_E"] + parameters["pos_embed.W_pos"][:n_ctx, None]
        table = rearrange(table, "position token d_model -> (position token) d_model")
        rows = tokens + torch.arange(n_ctx, device=tokens.device) * self.d_vocab
        residual = None
        for layer in range(self.config.n_layers):
            block = f"blocks.{layer}."
            answer_only = layer == self.config.n_layers - 1
            if residual is None:
                z = self._attend_tokens(parameters, block, table, rows, answer_only)
                residual = F.embedding(rows[:, -1:] if answer_only else rows, table)
            else:
                z = self._attend(parameters, block, residual, answer_only)
                residual = residual[:, -1:] if answer_only else residual
            W_O = rearrange(parameters[f"{block}attn.W_O"], "head d_head d_model -> (head d_head) d_model")
            attn_out = F.linear(z, W_O.T, parameters[f"{block}attn.b_O"])
            residual = residual + (attn_out * dropout[f"{block}hook_attn_out"] if dropout else attn_out)
            normalized = self._layer_norm(parameters, f"{block}ln2", residual)
            pre = F.linear(normalized, parameters[f"{block}mlp.W_in"].T, parameters[f"{block}mlp.b_in"])
            post = F.relu(pre) if self.config.act_fn == "relu" else F.gelu(pre)
            mlp_out = F.linear(post, parameters[f"{block}mlp.W_out"].T, parameters[f"{block}mlp.b_out"])
            residual = residual + (mlp_out * dropout[f"{block}hook_mlp_out"] if dropout else mlp_out)
        assert residual is not None
        final = self._layer_norm(parameters, "ln_final", residual[:, -1])
        return F.linear(final, parameters["unembed.W_U"].T, parameters["unembed.b_U"])

    def dropout_masks(
        self, n_batch: int, probability: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "batch positions d_model"]]:
        """Draw residual-dropout masks for `logits`: each element 0 with `probability`, else 1/(1 − probability).

        They are named after HookedTransformer's hooks on the outputs of attention and MLP, and have the positions
        that `logits` computes: all, in the last block the answer's.
        """
        masks = {}
        for layer in range(self.config.n_layers):
            n_positions = 1 if layer == self.config.n_layers - 1 else self.n_ctx
            for hook in ("hook_attn_out", "hook_mlp_out"):
                shape = (n_batch, n_positions, self.config.d_model)
                kept = torch.rand(shape, generator=generator, device=generator.device) >= probability
                masks[f"blocks.{layer}.{hook}"] = kept.float() / (1 - probability)
        return masks

    def _attend_tokens(
        self,
        parameters: Parameters,
        block: str,
        table: Float[Tensor, "rows d_model"],
        rows: Int[Tensor, "batch n_ctx"],
        answer_only: bool,
    ) -> Float[Tensor, "batch queries d_model"]:
        """Attend in the first block, whose input at a position is the row of `table` for its token.

        The scores of all pairs of rows are computed once; an example looks up its own. `F.embedding` is the
        lookup with a cheap backward pass; indexing's is slow.
        """
        n_ctx = rows.shape[1]
        normalized = self._layer_norm(parameters, f"{block}ln1", table)
        first = (n_ctx - 1) * self.d_vocab if answer_only else 0
        queries = self._heads(parameters, block, "Q", normalized[first:])
        keys = self._heads(parameters, block, "K", normalized)
        values = rearrange(self._heads(parameters, block, "V", normalized), "row head d_head -> row (head d_head)")
        scores = einsum(queries, keys, "query head d_head, key head d_head -> query key head")
        scores = rearrange(scores, "query key head -> (query key) head") * self._attn_scale
        mixed = []
        for query in [n_ctx - 1] if answer_only else range(n_ctx):
            seen = rows[:, : query + 1]
            pair = (rows[:, query, None] - first) * len(keys) + seen
            pattern = F.embedding(pair, scores).softmax(dim=1)
            z = sum(
                pattern[:, key, :, None]
                * rearrange(
                    F.embedding(seen[:, key], values),
                    "batch (head d_head) -> batch head d_head",
                    head=self.config.n_heads,
                )
                for key in range(query + 1)
            )
            mixed.append(rearrange(z, "batch head d_head -> batch (head d_head)"))
        return torch.stack(mixed, dim=1)

    def _attend(
        self,
        parameters: Parameters,
        block: str,
        residual: Float[Tensor, "batch n_ctx d_model"],
        answer_only: bool,
    ) -> Float[Tensor, "batch queries d_model"]:
        """Attend causally in a later block, whose input differs from example to example.

        Written out: flash attention has no second derivative, which the Hessian needs.
        """
        normalized = self._layer_norm(parameters, f"{block}ln1", residual)
        queries = self._heads(parameters, block, "Q", normalized[:, -1:] if answer_only else normalized)
        keys = self._heads(parameters, block, "K", normalized)
        values = self._heads(parameters, block, "V", normalized)
        scores = einsum(queries, keys, "b query head d_head, b key head d_head -> b head query key")
        scores = scores * self._attn_scale
        if not answer_only:
            scores = scores.masked_fill(~_causal(residual.shape[1], residual.device), -torch.inf)
        z = einsum(scores.softmax(-1), values, "b head query key, b key head d_head -> b query head d_head")
        return rearrange(z, "b query head d_head -> b query (head d_head)")

    def _heads(
        self, parameters: Parameters, block: str, name: str, normalized: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows head d_head"]:
        W = rearrange(parameters[f"{block}attn.W_{name}"], "head d_model d_head -> (head d_head) d_model")
        b = rearrange(parameters[f"{block}attn.b_{name}"], "head d_head -> (head d_head)")
        projected = F.linear(normalized, W, b)
        return rearrange(projected, "... (head d_head) -> ... head d_head", head=self.config.n_heads)

    def _layer_norm(
        self, parameters: Parameters, name: str, x: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows d_model"]:
        if self.config.normalization_type is None:
            return x
        shape = (self.config.d_model,)
        return F.layer_norm(x, shape, parameters[f"{name}.w"], parameters[f"{name}.b"], _LAYER_NORM_EPS)

    @property
    def _attn_scale(self) -> float:
        return (self.config.d_model // self.config.n_heads) ** -0.5

    def hooked(self, parameters: Parameters) -> "HookedTransformer":
        """Return a HookedTransformer that holds a copy of `parameters`, unprocessed, on the CPU."""
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        c = self.config
        dtype = next(iter(parameters.values())).dtype
        hooked_config = HookedTransformerConfig(
            n_layers=c.n_layers,
            d_model=c.d_model,
            n_heads=c.n_heads,
            d_head=c.d_model // c.n_heads,
            d_mlp=c.d_mlp,
            d_vocab=self.d_vocab,
            d_vocab_out=self.d_vocab_out,
            n_ctx=self.n_ctx,
            act_fn=c.act_fn,
            normalization_type=c.normalization_type,
            eps=_LAYER_NORM_EPS,
            init_weights=False,
            seed=None,  # A seed would reset torch's, numpy's and Python's global generators.
            device="cpu",
            dtype=dtype,
        )
        with warnings.catch_warnings():
            # TransformerLens 3 announces version 4 at each construction; grokscope requires version 3.
            warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
            hooked = HookedTransformer(hooked_config, move_to_device=False)
        outcome = hooked.load_state_dict({name: one.detach() for name, one in parameters.items()}, strict=False)
        buffers = {name for name, _ in hooked.named_buffers()}
        if outcome.unexpected_keys or set(outcome.missing_keys) - buffers:
            raise GrokscopeError(f"HookedTransformer does not hold these parameters: {outcome}.")
        return hooked


def build(config: ModelConfig, task: Task) -> Model:
    """Return the model that the config describes for the tokens of a task."""
    return Model(config, task.d_vocab, task.d_vocab_out, task.n_ctx)


def losses(
    logits: Float[Tensor, "batch d_vocab_out"],
    labels: Int[Tensor, " batch"],
    dtype: str = "float64",
    function: str = "softmax",
) -> Float[Tensor, " batch"]:
    """Return each example's cross-entropy −log p[label] in nats, computed in `dtype`.

    p is softmax(logits), or with the `function` "stablemax" s(x)/Σ s with s(x) = x + 1 for x ≥ 0 and 1/(1 − x)
    below (Prieto et al. 2025, eq. 5), which grows linearly and so cannot collapse. After memorization losses are
    about 1e-7, where 1 − softmax cancels in float32 (both Nanda et al. 2023 and Prieto et al. take float64 here).
    """
    x = logits.to(getattr(torch, dtype))
    if function == "stablemax":
        # Written so that the derivative at exactly zero is the one there is, 1.
        log_s = torch.where(x >= 0, x.clamp_min(0).log1p(), -(-x.clamp_max(0)).log1p())
        log_probabilities = log_s - log_s.exp().sum(-1, keepdim=True).log()
    else:
        log_probabilities = x.log_softmax(-1)
    return -log_probabilities.gather(1, labels[:, None])[:, 0]


def mean_loss(
    model: Model,
    parameters: Parameters,
    inputs: Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, " n_examples"],
    config: RunConfig,
) -> Float[Tensor, ""]:
    """Return the mean over some equations of the config's `loss`, taken in its `loss_dtype`; it has a gradient."""
    return losses(model.logits(parameters, inputs), labels, config.loss_dtype, config.loss).mean()


@torch.no_grad()
def evaluate(
    model: Model,
    parameters: Parameters,
    inputs: Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, " n_examples"],
    dtype: str = "float64",
    function: str = "softmax",
) -> tuple[Float[Tensor, " n_examples"], Bool[Tensor, " n_examples"]]:
    """Return every example's loss and whether its answer is right (the largest logit is the label's)."""
    parts = []
    for some_inputs, some_labels in zip(
        inputs.split(_EVALUATED_AT_ONCE), labels.split(_EVALUATED_AT_ONCE), strict=True
    ):
        logits = model.logits(parameters, some_inputs)
        parts.append((losses(logits, some_labels, dtype, function), logits.argmax(-1) == some_labels))
    return torch.cat([loss for loss, _ in parts]), torch.cat([right for _, right in parts])


def _sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Return sin(pos / 10000^(i/d_model)) in the even columns i, and in each odd one the cosine of the one before."""
    column = torch.arange(d_model)
    wavelength = 10_000 ** ((column - column % 2).double() / d_model)
    angle = torch.arange(n_ctx)[:, None].double() / wavelength
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def _causal(n_ctx: int, device: torch.device) -> Bool[Tensor, "query key"]:
    return torch.ones(n_ctx, n_ctx, dtype=torch.bool, device=device).tril()
