"""The model: one pure function of its parameters that agrees with HookedTransformer.

Parameters are a dict with TransformerLens names and shapes. Training, losses and curvature all call `Model.logits`,
which can be differentiated twice and vmapped. `Model.hooked_transformer` copies the parameters into a real
HookedTransformer for hooks, caches and patching. No other file imports TransformerLens.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import rng
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError, quoted_name
from grokscope.model import bridge, forward, published_draws
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Hook, Masks, Parameters
from grokscope.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer for sequences of `n_ctx` tokens."""

    config: ModelConfig
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    has_all_positions: bool = False
    """Whether logits are computed at every position; by default, only at the last one, where an answer is read."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, sorted by name, as in `HookedTransformer.named_parameters`."""
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
        """The names of the trained parameters. The others are biases that stay zero, or sinusoidal positions.

        LayerNorm's scale and shift are always trained: `biases` concerns linear layers only.
        """
        biases = {"all": (), "mlp": ("attn.b_", "unembed.b_"), "none": ("attn.b_", "mlp.b_", "unembed.b_")}
        frozen = biases[self.config.biases] + (("W_pos",) if self.config.positions == "sinusoidal" else ())
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
            elif name in published:
                parameters[name] = published[name] * c.init_scale
            elif kind.startswith("W_"):
                generator = rng.generator("init", seed, name)
                if c.init == "torch" and kind not in ("W_E", "W_pos"):
                    bound = (c.d_mlp if kind == "W_out" else c.d_model) ** -0.5
                    weights = torch.rand(shape, generator=generator, dtype=torch.float32) * (2 * bound) - bound
                else:
                    deviation = (self.d_vocab if kind == "W_U" else c.d_model) ** -0.5 if c.init == "normal" else 1.0
                    weights = torch.randn(shape, generator=generator, dtype=torch.float32) * deviation
                parameters[name] = weights * c.init_scale
            else:
                parameters[name] = torch.full(shape, 1.0 if kind == "w" else 0.0, dtype=torch.float32)
        return parameters

    def faults(self, parameters: Parameters) -> list[str]:
        """Return one message for each missing name, unknown name and wrong shape."""
        missing = [f"{name} is missing" for name in self.shapes if name not in parameters]
        unknown = [f"{quoted_name(name)} is unknown" for name in parameters if name not in self.shapes]
        wrong = [
            f"{name} has shape {tuple(parameters[name].shape)}; allowed: {shape}"
            for name, shape in self.shapes.items()
            if name in parameters and tuple(parameters[name].shape) != shape
        ]
        return missing + unknown + wrong

    def equations(self, tokens: Int[Tensor, "n n_ctx"]) -> Equations:
        """Return a batch of equations, to be prepared once and then used in many calls of `logits`."""
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
            hook: Reads or replaces attention patterns and neuron activations, as `forward.plain` describes.
        """
        equations = self.equations(tokens) if isinstance(tokens, Tensor) else tokens
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
        for layer in range(self.config.n_layers):
            is_last_only = layer == self.config.n_layers - 1 and not self.has_all_positions
            n_positions = 1 if is_last_only else self.n_ctx
            for hook in ("hook_attn_out", "hook_mlp_out"):
                shape = (n_batch, n_positions, self.config.d_model)
                is_kept = torch.rand(shape, generator=generator, device=generator.device) >= probability
                masks[f"blocks.{layer}.{hook}"] = is_kept.float() / (1 - probability)
        return masks

    @property
    def hooked_transformer_arguments(self) -> dict[str, Any]:
        """The arguments of HookedTransformerConfig that describe this architecture, as JSON-able values."""
        c = self.config
        return {
            "n_layers": c.n_layers,
            "d_model": c.d_model,
            "n_heads": c.n_heads,
            "d_head": c.d_model // c.n_heads,
            "d_mlp": c.d_mlp,
            "d_vocab": self.d_vocab,
            "d_vocab_out": self.d_vocab_out,
            "n_ctx": self.n_ctx,
            "act_fn": c.act_fn,
            "normalization_type": c.normalization_type,
            "eps": forward.LAYER_NORM_EPS,
            "init_weights": False,
        }

    def hooked_transformer(self, parameters: Parameters) -> "HookedTransformer":
        """Return a HookedTransformer on the CPU with a copy of `parameters`, without any weight processing.

        TransformerLens 4 has none; it returns a TransformerBridge with the same weights and logits.

        Raises:
            GrokscopeError: The parameters do not fit the architecture, or TransformerLens 4 does not have it.
        """
        if bridge.is_needed():
            arguments = self.hooked_transformer_arguments
            return bridge.transformer_bridge(arguments, parameters, lambda tokens: self.logits(parameters, tokens))

        from transformer_lens import HookedTransformer, HookedTransformerConfig

        dtype = next(iter(parameters.values())).dtype
        hooked_config = HookedTransformerConfig(
            **self.hooked_transformer_arguments,
            seed=None,  # A seed would reset the global generators of torch, NumPy and Python.
            device="cpu",
            dtype=dtype,
        )
        with warnings.catch_warnings():
            # TransformerLens 3 recommends version 4 at each construction, but version 4 has no HookedTransformer.
            warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
            hooked = HookedTransformer(hooked_config, move_to_device=False)
        state_dict = {name: tensor.detach() for name, tensor in parameters.items()}
        keys = hooked.load_state_dict(state_dict, strict=False)
        buffers = {name for name, _ in hooked.named_buffers()}
        if keys.unexpected_keys or set(keys.missing_keys) - buffers:
            raise GrokscopeError(f"The parameters do not fit this architecture's HookedTransformer: {keys}.")
        return hooked


def build(config: ModelConfig, task: Task) -> Model:
    """Return the model that `config` describes, sized for the tokens of `task`.

    It gives logits at every position if the task's labels have a position axis.

    Raises:
        GrokscopeError: `config.d_vocab_out` is smaller than the number of answers.
    """
    d_vocab_out = task.d_vocab_out if config.d_vocab_out is None else config.d_vocab_out
    if d_vocab_out < task.d_vocab_out:
        raise GrokscopeError(
            f"model.d_vocab_out: {d_vocab_out} is less than the {task.d_vocab_out} answers of {task.formula}. "
            f"Allowed: from {task.d_vocab_out}, or none for this number."
        )
    return Model(config, task.d_vocab, d_vocab_out, task.n_ctx, task.labels.ndim == 2)


def _sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Return sin(pos / 10000^(i/d_model)) in even columns i, and the cosine of the same angle in column i + 1."""
    columns = torch.arange(d_model)
    wavelengths = 10_000 ** ((columns - columns % 2).double() / d_model)
    angles = torch.arange(n_ctx)[:, None].double() / wavelengths
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()
