"""The model: one pure function of parameters, equal to HookedTransformer's. The only importer of TransformerLens.

Parameters are a dict under TransformerLens' names and shapes. Training, losses and curvature all call
`Model.logits`, which can be differentiated twice and vmapped; `Model.hooked` gives the same parameters as a real
HookedTransformer for hooks, caches and patching.
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
from grokscope.model import forward
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Hook, Masks, Parameters
from grokscope.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


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
                generator = rng.generator("init", seed, name)
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
        unknown = [f"{quoted_name(name)} is unknown" for name in parameters if name not in self.shapes]
        wrong = [
            f"{name} has shape {tuple(parameters[name].shape)}; allowed: {shape}"
            for name, shape in self.shapes.items()
            if name in parameters and tuple(parameters[name].shape) != shape
        ]
        return missing + unknown + wrong

    def equations(self, tokens: Int[Tensor, "n n_ctx"]) -> Equations:
        """Return tokens with what they have in common, worked out once for a batch that is used again and again."""
        return Equations.of(tokens, self.d_vocab, self.config.n_heads)

    def logits(
        self,
        parameters: Parameters,
        tokens: Equations | Int[Tensor, "n n_ctx"],
        dropout: Masks | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "n d_vocab_out"]:
        """Return the logits at the answer position (the last), as HookedTransformer's forward gives them there.

        `dropout` holds the masks of `dropout_masks`, by which that which each sublayer adds to the residual stream
        is multiplied; without it nothing is dropped. A `hook` sees, and may change, the attention patterns and the
        neurons' activations (`forward.plain` says which). How they are computed is `grokscope.forward`'s affair.
        """
        equations = self.equations(tokens) if isinstance(tokens, Tensor) else tokens
        return forward.logits(self.config, parameters, equations, dropout, hook)

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

    @property
    def hooked_arguments(self) -> dict[str, Any]:
        """The arguments of HookedTransformerConfig that are this architecture's, plain values all."""
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

    def hooked(self, parameters: Parameters) -> "HookedTransformer":
        """Return a HookedTransformer that holds a copy of `parameters`, unprocessed, on the CPU."""
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        dtype = next(iter(parameters.values())).dtype
        hooked_config = HookedTransformerConfig(
            **self.hooked_arguments,
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


def _sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Return sin(pos / 10000^(i/d_model)) in the even columns i, and in each odd one the cosine of the one before."""
    column = torch.arange(d_model)
    wavelength = 10_000 ** ((column - column % 2).double() / d_model)
    angle = torch.arange(n_ctx)[:, None].double() / wavelength
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()
