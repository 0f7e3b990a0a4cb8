"""The family "transformer": every decoder-only transformer that HookedTransformer has, and a few that it lacks.

Parameters are a dict with TransformerLens names and shapes. `grokscope.model.forward` computes the simple
architectures itself, in several forms. `grokscope.model.hooked_form` calls HookedTransformer's own forward pass for
all others: rotary positions, RMSNorm, folded norms, gates, parallel blocks, and further activation functions.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import rng
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model import bridge, forward, hooked_form, published_draws
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Matrix, Model, sizes
from grokscope.model.forward import EMBEDDED, Hook, Masks, Parameters
from grokscope.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


@dataclass(frozen=True)
class Transformer(Model):
    """A decoder-only transformer."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, sorted by name, as in `HookedTransformer.named_parameters`."""
        if not self.config.is_simple:
            return {name: tuple(tensor.shape) for name, tensor in self._constants.items()}
        c, d_head = self.config, self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, c.d_model),
            "pos_embed.W_pos": (self.n_ctx, c.d_model),
            "unembed.W_U": (c.d_model, self.d_vocab_out),
            "unembed.b_U": (self.d_vocab_out,),
        }
        layer_norms = ["ln_final"] if c.normalization_type == "LN" else []
        for layer in range(c.n_layers):
            block = f"blocks.{layer}"
            for name in "QKV":
                shapes[f"{block}.attn.W_{name}"] = (c.n_heads, c.d_model, d_head)
                shapes[f"{block}.attn.b_{name}"] = (c.n_heads, d_head)
            shapes[f"{block}.attn.W_O"] = (c.n_heads, d_head, c.d_model)
            shapes[f"{block}.attn.b_O"] = (c.d_model,)
            layer_norms += [f"{block}.ln1"] if c.normalization_type else []
            if c.attn_only:
                continue
            shapes[f"{block}.mlp.W_in"] = (c.d_model, c.d_mlp)
            shapes[f"{block}.mlp.b_in"] = (c.d_mlp,)
            shapes[f"{block}.mlp.W_out"] = (c.d_mlp, c.d_model)
            shapes[f"{block}.mlp.b_out"] = (c.d_model,)
            layer_norms += [f"{block}.ln2"] if c.normalization_type else []
        for name in layer_norms:
            shapes[f"{name}.w"] = shapes[f"{name}.b"] = (c.d_model,)
        return dict(sorted(shapes.items()))

    @property
    def d_head(self) -> int:
        """The width of each attention head."""
        return self.config.d_head or self.config.d_model // self.config.n_heads

    @property
    def _constants(self) -> dict[str, Tensor]:
        """HookedTransformer's own parameters, of which those that are not "W_…" have their initial values."""
        return hooked_form.constants(self.config, hooked_form.as_key(self.hooked_transformer_arguments))

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The names of the trained parameters. The others are biases that stay zero, or fixed positions.

        LayerNorm's scale and shift are always trained: `biases` concerns linear layers only.
        """
        biases = {"all": (), "mlp": ("attn.b_", "unembed.b_"), "none": ("attn.b_", "mlp.b_", "unembed.b_")}
        frozen = biases[self.config.biases] + (("W_pos",) if self.config.positions in ("sinusoidal", "none") else ())
        return tuple(name for name in self.shapes if not any(part in name for part in frozen))

    def initialize(self, seed: int) -> dict[str, Float[Tensor, "..."]]:
        """Return initial float32 parameters, each tensor from its own random stream.

        - `init` "normal": weights have standard deviation 1/√d_model, and W_U has 1/√d_vocab (Nanda et al. 2023,
          appendix).
        - `init` "torch": W_E and W_pos have standard deviation 1, and every other matrix is uniform in ±1/√n_inputs.
          These are torch's defaults, and therefore those of Power et al. 2022.
        - `init` "nanda2023": the very numbers that the code of Nanda et al. 2023 draws with this seed, from one
          stream (`published_draws.nanda2023`).

        `init_scale` multiplies the weights of all. Biases are 0 and LayerNorm scales are 1. No global generator is
        touched.

        Args:
            seed: Decides the random numbers, together with the name of each parameter.
        """
        c, parameters = self.config, {}
        published = {}
        if c.init == "nanda2023":
            published = published_draws.nanda2023(self.shapes, c.d_model, self.d_vocab, seed)
        for name, shape in self.shapes.items():
            kind = name.split(".")[-1]
            if kind == "W_pos" and c.positions == "sinusoidal":
                parameters[name] = _sinusoids(*shape)
            elif kind == "W_pos" and c.positions == "none":
                parameters[name] = torch.zeros(shape)
            elif name in published:
                parameters[name] = published[name] * c.init_scale
            elif kind.removeprefix("_").startswith("W_"):
                generator = rng.generator("init", seed, name)
                if c.init == "torch" and kind not in ("W_E", "W_pos"):
                    n_inputs = {"W_out": c.d_mlp, "W_O": c.n_heads * self.d_head}.get(kind, c.d_model)
                    bound = n_inputs**-0.5
                    weights = torch.rand(shape, generator=generator, dtype=torch.float32) * (2 * bound) - bound
                else:
                    deviation = (self.d_vocab if kind == "W_U" else c.d_model) ** -0.5 if c.init == "normal" else 1.0
                    weights = torch.randn(shape, generator=generator, dtype=torch.float32) * deviation
                parameters[name] = weights * c.init_scale
            elif c.is_simple:
                parameters[name] = torch.full(shape, 1.0 if kind == "w" else 0.0, dtype=torch.float32)
            else:
                parameters[name] = self._constants[name].clone()
        return parameters

    def equations(self, tokens: Int[Tensor, "n n_ctx"]) -> Equations:
        """Return a batch of sequences, to be prepared once and then used in many calls of `logits`."""
        return Equations.from_tokens(tokens, self.d_vocab, self.config.n_heads)

    def logits(
        self,
        parameters: Parameters,
        tokens: Equations | Int[Tensor, "n n_ctx"],
        dropout: Masks | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "n *positions d_vocab_out"]:
        """Return the logits, equal to those of HookedTransformer to rounding.

        They are those of the last position (n, d_vocab_out), or with `has_all_positions` of every position
        (n, positions, d_vocab_out).

        Args:
            parameters: The parameters under TransformerLens names.
            tokens: The equations, as tokens or as a prepared batch from `equations`.
            dropout: Masks from `dropout_masks` that multiply the output of each sublayer; by default no dropout.
            hook: Reads or replaces embedded tokens, attention patterns and neurons. In a simple architecture, the
                last block has only the last query and position, unless `has_all_positions`.
        """
        equations = self.equations(tokens) if isinstance(tokens, Tensor) else tokens
        if not self.config.is_simple:
            names = (EMBEDDED, *self.neurons, *self.attention)
            at_all_positions = hooked_form.logits(
                self.config, self.hooked_transformer_arguments, parameters, equations.tokens, dropout, hook, names
            )
            return at_all_positions if self.has_all_positions else at_all_positions[:, -1]
        if self.has_all_positions:
            return forward.plain(self.config, parameters, equations.tokens, dropout, hook, all_positions=True)
        return forward.logits(self.config, parameters, equations, dropout, hook)

    def dropout_masks(
        self, n_batch: int, probability: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "batch positions d_model"]]:
        """Draw residual-dropout masks for `logits`: 0 with `probability`, and otherwise 1/(1 − probability).

        Args:
            n_batch: The number of equations.
            probability: The dropout probability, from 0 to below 1.
            generator: The source of the random numbers; the masks are on its device.

        Returns:
            A mask for each output of attention and MLP, under the name of HookedTransformer's hook on that output.
            The masks of the last block cover only the positions at which `logits` computes logits.
        """
        masks = {}
        for name in self.sublayers:
            is_last_block = name.startswith(f"blocks.{self.config.n_layers - 1}.")
            has_one = is_last_block and self.config.is_simple and not self.has_all_positions
            shape = (n_batch, 1 if has_one else self.n_ctx, self.config.d_model)
            is_kept = torch.rand(shape, generator=generator, device=generator.device) >= probability
            masks[name] = is_kept.float() / (1 - probability)
        return masks

    @property
    def sublayers(self) -> tuple[str, ...]:
        """The names of the outputs of attention and MLP in each block."""
        names = ("hook_attn_out",) if self.config.attn_only else ("hook_attn_out", "hook_mlp_out")
        return tuple(f"blocks.{layer}.{name}" for layer in range(self.config.n_layers) for name in names)

    @property
    def n_activations(self) -> int:
        """The number of neurons at one position."""
        return len(self.neurons) * self.config.d_mlp

    @property
    def embedded_positions(self) -> tuple[int, ...]:
        """All positions."""
        return tuple(range(self.n_ctx))

    @property
    def neurons(self) -> tuple[str, ...]:
        """The name of each block's neurons."""
        layers = range(0 if self.config.attn_only else self.config.n_layers)
        return tuple(f"blocks.{layer}.mlp.hook_post" for layer in layers)

    @property
    def attention(self) -> tuple[str, ...]:
        """The name of each block's attention pattern."""
        return tuple(f"blocks.{layer}.attn.hook_pattern" for layer in range(self.config.n_layers))

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        """W_E, W_U and, with an MLP, the map W_L from the last block's neurons to the logits."""
        W_E, W_U = "embed.W_E", "unembed.W_U"
        matrices = {
            "embedding": Matrix((W_E,), lambda p: p[W_E], lambda p, W: {**p, W_E: W}),
            "unembedding": Matrix((W_U,), lambda p: p[W_U], lambda p, W: {**p, W_U: W}),
        }
        if self.neurons:
            last = self.config.n_layers - 1
            norm = f"blocks.{last}.ln2" if self.config.normalization_type == "LNPost" else "ln_final"
            scale = (f"{norm}.w",) if f"{norm}.w" in self.shapes else ()
            names = (f"blocks.{last}.mlp.W_out", W_U, *scale)
            matrices["neuron_logits"] = Matrix(names, self._neuron_logits)
        return matrices

    def _neuron_logits(self, parameters: Parameters) -> Float[Tensor, "*steps classes d_mlp"]:
        """Return W_L = W_out W_U, transposed, in float64.

        Column j is the contribution of neuron j to the logits. Under LayerNorm the map is W_out (1 − 11ᵀ/d_model)
        diag(w) W_U: the contribution up to the scale of each example. RMSNorm does not subtract the mean.
        """
        W_out, W_U, *scale = (parameters[name].double() for name in self.matrices["neuron_logits"].parameters)
        if (self.config.normalization_type or "").startswith("LN"):
            W_out = W_out - reduce(W_out, "... neuron d_model -> ... neuron 1", "mean")
        for w in scale:
            W_U = w[..., None] * W_U
        return (W_out @ W_U).mT

    @property
    def hooked_transformer_arguments(self) -> dict[str, Any]:
        """The arguments of HookedTransformerConfig that describe this architecture, as JSON-able values.

        Constant attention and the quadratic activation are not arguments; `hooked_transformer` adds them.
        """
        return hooked_form.arguments(self.config, self.d_vocab, self.d_vocab_out, self.n_ctx)

    def hooked_transformer(self, parameters: Parameters) -> "HookedTransformer":
        """Return a HookedTransformer on the CPU with a copy of `parameters`, without any weight processing.

        TransformerLens 4 has none; it returns a TransformerBridge with the same weights and logits.

        Raises:
            GrokscopeError: HookedTransformer has no such architecture, or the parameters do not fit it; or
                TransformerLens 4 does not have the architecture.
        """
        if bridge.is_needed():
            arguments, single = self.hooked_transformer_arguments, replace(self, has_all_positions=False)
            return bridge.transformer_bridge(arguments, parameters, lambda tokens: single.logits(parameters, tokens))
        dtype = next(iter(parameters.values())).dtype
        model = hooked_form.construct(self.config, self.hooked_transformer_arguments, dtype)
        state_dict = {name: tensor.detach() for name, tensor in parameters.items()}
        keys = model.load_state_dict(state_dict, strict=False)
        buffers = {name for name, _ in model.named_buffers()}
        if keys.unexpected_keys or set(keys.missing_keys) - buffers:
            raise GrokscopeError(f"The parameters do not fit this architecture's HookedTransformer: {keys}.")
        return model


def transformer(config: ModelConfig, task: Task) -> Transformer:
    """Return the decoder-only transformer that `config` describes, with every architecture of HookedTransformer."""
    return Transformer(config, **sizes(config, task))


def _sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Return sin(pos / 10000^(i/d_model)) in even columns i, and the cosine of the same angle in column i + 1."""
    columns = torch.arange(d_model)
    wavelengths = 10_000 ** ((columns - columns % 2).double() / d_model)
    angles = torch.arange(n_ctx)[:, None].double() / wavelengths
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()
