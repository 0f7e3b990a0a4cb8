"""The family "mlp": operands, one or more hidden layers, answers.

    h_0 = [x_1, …, x_k] or x_1 + … + x_k,   h_{l+1} = act(h_l W_in^l + b_in^l),   logits = h_L W_U + b_U.

x_i is the i-th operand, one-hot or embedded by W_E, or by a table of its own. Gromov (2023), Doshi et al. (2023),
Morwani et al. (2024) and Chughtai et al. (2023) train such networks. Signs that all sequences share, such as "=", are
not inputs.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import rng
from grokscope.config import MlpConfig, ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Matrix, Model, sizes
from grokscope.model.forward import EMBEDDED, Hook, Masks, Parameters
from grokscope.tasks import Task

_FIRST, _W_E, _W_U = "mlp.0.W_in", "embed.W_E", "unembed.W_U"
_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "quadratic": torch.square, "tanh": torch.tanh}


@dataclass(frozen=True)
class Mlp(Model):
    """A multilayer perceptron on the tokens at some positions."""

    positions: tuple[int, ...] = ()
    """The positions of the inputs."""

    @property
    def settings(self) -> MlpConfig:
        """The settings of this family."""
        return self.config.mlp

    @property
    def _is_one_hot(self) -> bool:
        return self.settings.operands == "one-hot"

    @property
    def _n_slots(self) -> int:
        """The number of inputs that have weights of their own in the first hidden layer."""
        return len(self.positions) if self.settings.combination == "concatenated" else 1

    @property
    def _n_tables(self) -> int:
        """The number of tables that are looked up: of one-hot operands, those in the first hidden layer."""
        if self._is_one_hot:
            return self._n_slots
        return len(self.positions) if self.settings.operands == "embedded separately" else 1

    @property
    def _embedding(self) -> str:
        """The name of the parameter that is looked up."""
        return _FIRST if self._is_one_hot else _W_E

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, sorted by name.

        One-hot inputs read the rows of `mlp.0.W_in`: row slot · d_vocab + token. So do operands that are embedded
        separately in W_E.
        """
        c = self.settings
        width = self.d_vocab if self._is_one_hot else c.d_embed
        shapes: dict[str, tuple[int, ...]] = {}
        if not self._is_one_hot:
            shapes[_W_E] = (self._n_tables * self.d_vocab, c.d_embed)
        for layer in range(c.n_layers):
            shapes[f"mlp.{layer}.W_in"] = (self._n_slots * width if layer == 0 else c.d_hidden, c.d_hidden)
            shapes[f"mlp.{layer}.b_in"] = (c.d_hidden,)
        shapes |= {_W_U: (c.d_hidden, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}
        return dict(sorted(shapes.items()))

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The names of the trained parameters: all, or without `biases` the matrices."""
        return tuple(name for name in self.shapes if self.settings.biases or ".b_" not in name)

    def initialize(self, seed: int) -> dict[str, Float[Tensor, "..."]]:
        """Return initial float32 parameters, each matrix from its own random stream.

        - `init` "normal": standard deviation 1/√n_inputs; W_E has 1.
        - `init` "torch": uniform in ±1/√n_inputs; W_E has standard deviation 1.

        `init_scale` multiplies all matrices. Biases are 0. A one-hot layer has k · d_vocab inputs.

        Args:
            seed: Decides the random numbers, together with the name of each parameter.
        """
        parameters = {}
        for name, shape in self.shapes.items():
            if ".b_" in name:
                parameters[name] = torch.zeros(shape)
                continue
            generator = rng.generator("init", seed, name)
            scale = self.config.init_scale * (1.0 if name == _W_E else shape[0] ** -0.5)
            if self.config.init == "torch" and name != _W_E:
                weights = torch.rand(shape, generator=generator, dtype=torch.float32) * 2 - 1
            else:
                weights = torch.randn(shape, generator=generator, dtype=torch.float32)
            parameters[name] = weights * scale
        return parameters

    def logits(
        self,
        parameters: Parameters,
        tokens: Equations | Int[Tensor, "n n_ctx"],
        dropout: Masks | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "n d_vocab_out"]:
        """Return the logits of the answer.

        Args:
            parameters: All parameters by name.
            tokens: The sequences.
            dropout: None; this family has no residual stream to drop.
            hook: Reads or replaces the operands' vectors and the neurons, (n, 1, d_hidden) in each layer. The vector
                of a one-hot operand is its row of the first hidden layer's weights.
        """
        tokens = tokens if isinstance(tokens, Tensor) else tokens.tokens
        operands = tokens[:, list(self.positions)]
        tables = torch.arange(len(self.positions), device=tokens.device) % self._n_tables
        vectors = F.embedding(operands + tables * self.d_vocab, parameters[self._embedding])
        vectors = hook(EMBEDDED, vectors) if hook else vectors
        if self._is_one_hot or self._n_slots == 1:
            x = vectors.sum(1)
        else:
            x = rearrange(vectors, "n operand d -> n (operand d)")
        for layer in range(self.settings.n_layers):
            pre = x if layer == 0 and self._is_one_hot else x @ parameters[f"mlp.{layer}.W_in"]
            post = _ACTIVATIONS[self.settings.act_fn](pre + parameters[f"mlp.{layer}.b_in"])
            x = hook(self.neurons[layer], post[:, None])[:, -1] if hook else post
        return x @ parameters[_W_U] + parameters["unembed.b_U"]

    @property
    def embedded_positions(self) -> tuple[int, ...]:
        """The positions of the inputs."""
        return self.positions

    @property
    def neurons(self) -> tuple[str, ...]:
        """The name of each hidden layer's neurons."""
        return tuple(f"mlp.{layer}.hook_post" for layer in range(self.settings.n_layers))

    @property
    def n_activations(self) -> int:
        """The number of neurons."""
        return self.settings.n_layers * self.settings.d_hidden

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        """W_E, W_U, and W_Uᵀ as the map from the last neurons to the logits.

        The embedding of one-hot operands is the first hidden layer's weights. If each operand has weights of its own,
        the vector of a token has those of each operand, one after the other.
        """
        name, slots = self._embedding, self._n_tables

        def read(p: Parameters) -> Float[Tensor, "*steps token d"]:
            return rearrange(p[name], "... (slot token) d -> ... token (slot d)", slot=slots)

        def write(p: Parameters, W: Tensor) -> dict[str, Tensor]:
            return {**p, name: rearrange(W, "token (slot d) -> (slot token) d", slot=slots)}

        return {
            "embedding": Matrix((name,), read, write),
            "unembedding": Matrix((_W_U,), lambda p: p[_W_U], lambda p, W: {**p, _W_U: W}),
            "neuron_logits": Matrix((_W_U,), lambda p: p[_W_U].double().mT),
        }


def mlp(config: ModelConfig, task: Task) -> Mlp:
    """Return the multilayer perceptron that `config.mlp` describes: operands, hidden layers, answers."""
    arguments = sizes(config, task)
    if arguments["has_all_positions"]:
        raise GrokscopeError(
            f"model.family: 'mlp' gives a single answer, and {task.formula} has an answer at several positions. "
            f"Allowed: 'transformer'."
        )
    positions = (task.inputs != task.inputs[:1]).any(0).nonzero()[:, 0].tolist()
    return Mlp(config, **arguments, positions=tuple(positions))
