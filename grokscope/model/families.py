"""The network that a run trains: one pure function of its parameters, and the parts that measures ask for.

A family of networks is one file with a subclass of `Model` and a function `(ModelConfig, Task) -> Model`, which the
registry names ("models" in `grokscope.plugins`). Everything else calls the `Model` alone:

- training needs `shapes`, `trained`, `initialize` and `logits`. `logits` is a pure function of the parameters, so it
  can be differentiated twice and vmapped;
- measures ask for parts, never for a family: `matrix` for the "embedding" over tokens, the "unembedding" and the map
  from neurons to logits; hooks of `logits` for the embedded tokens (`forward.EMBEDDED`), neurons and attention
  patterns. A network may lack any part, and `LacksPartError` says in one sentence which;
- `hooked_transformer` returns the matching HookedTransformer, or says in one sentence why there is none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope import plugins
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError, quoted_name, quoted_value
from grokscope.model import components
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Hook, Masks, Parameters
from grokscope.tasks import Task

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PARTS = {
    "embedding": "a matrix with a row for each token",
    "unembedding": "a linear map from the last activations to the logits",
    "neuron_logits": "a linear map from the last neurons to the logits",
    "embedded tokens": "a vector for each operand",
    "neurons": "the outputs of an activation function",
    "attention": "attention patterns",
    "sublayers": "attention and MLP blocks that add to a residual stream",
}
"""The parts that a measure can ask for, in words."""


class LacksPartError(GrokscopeError):
    """The network lacks a part that a measure needs."""


@dataclass(frozen=True)
class Matrix:
    """A matrix that measures ask a network for, as a function of some of its parameters."""

    parameters: tuple[str, ...]
    """The names of these parameters."""
    read: Callable[[Parameters], Float[Tensor, "*steps rows columns"]]
    """Returns the matrix of parameters that have any leading axes in common."""
    write: Callable[[Parameters, Tensor], dict[str, Tensor]] | None = None
    """Returns the parameters with another matrix; None for a matrix that is a product."""


@dataclass(frozen=True)
class Model(ABC):
    """A network for sequences of `n_ctx` tokens; the base class of all families."""

    config: ModelConfig
    """The settings of the network."""
    d_vocab: int
    """The number of tokens."""
    d_vocab_out: int
    """The number of output columns."""
    n_ctx: int
    """The number of tokens in a sequence."""
    has_all_positions: bool = False
    """Whether logits are computed at every position; by default, only at the last one, where an answer is read."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, sorted by name."""

    @property
    @abstractmethod
    def trained(self) -> tuple[str, ...]:
        """The names of the trained parameters."""

    @abstractmethod
    def initialize(self, seed: int) -> dict[str, Float[Tensor, "..."]]:
        """Return initial float32 parameters that depend on nothing but the seed; touch no global generator."""

    @abstractmethod
    def logits(
        self,
        parameters: Parameters,
        tokens: Equations | Int[Tensor, "n n_ctx"],
        dropout: Masks | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "n *positions d_vocab_out"]:
        """Return the logits: those of the last position, or with `has_all_positions` of every position.

        Args:
            parameters: All parameters by name.
            tokens: The sequences, as tokens or as a prepared batch from `equations`.
            dropout: Masks from `dropout_masks` that multiply the outputs of sublayers; by default no dropout.
            hook: Reads or replaces the activations that `EMBEDDED`, `neurons` and `attention` name.
        """

    @property
    def matrices(self) -> dict[str, Matrix]:
        """The matrices that this network has, by the names of PARTS."""
        return {}

    @property
    def embedded_positions(self) -> tuple[int, ...]:
        """The positions whose embedded tokens a hook receives as `EMBEDDED`; empty without any."""
        return ()

    @property
    def neurons(self) -> tuple[str, ...]:
        """The names of each layer's neurons in a hook: (n, positions, neurons), the answer's position last."""
        return ()

    @property
    def attention(self) -> tuple[str, ...]:
        """The names of each layer's attention patterns in a hook: (n, heads, queries, keys), the answer's last."""
        return ()

    @property
    def sublayers(self) -> tuple[str, ...]:
        """The names of the outputs that dropout masks multiply; empty for a network without a residual stream."""
        return ()

    @property
    def n_activations(self) -> int:
        """The number of neurons per sequence, from which training estimates its memory."""
        return 0

    def components(self, parameters: Iterable[str]) -> dict[str, list[str]]:
        """Return the parameters of each component, without empty components."""
        return components.group_by_component(parameters)

    def matrix(self, part: str) -> Matrix:
        """Return a matrix of the network.

        Args:
            part: "embedding", (token, d): the vector by which the network reads each token. "unembedding",
                (d, column): the map from the last activations to the logits. "neuron_logits", (column, neuron): the
                map W_L from the last layer's neurons to the logits.

        Raises:
            LacksPartError: The network has no such matrix.
        """
        self.require(part, part in self.matrices)
        return self.matrices[part]

    def require(self, part: str, has_part: object) -> None:
        """Raise LacksPartError unless the network has a part of PARTS."""
        if not has_part:
            raise self._lacks(part)

    def _lacks(self, part: str) -> LacksPartError:
        return LacksPartError(
            f"The network, of the family {self.config.family!r}, has no {part.replace('_', ' ')}, and this "
            f"measure needs {PARTS[part]}."
        )

    def equations(self, tokens: Int[Tensor, "n n_ctx"]) -> Equations:
        """Return a batch of sequences, to be prepared once and then used in many calls of `logits`."""
        return Equations.from_tokens(tokens, self.d_vocab, 1)

    def dropout_masks(
        self, n_batch: int, probability: float, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "batch positions d_model"]]:
        """Draw residual-dropout masks for `logits`; raise LacksPartError for a network without a residual stream."""
        raise self._lacks("sublayers")

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

    @property
    def hooked_transformer_arguments(self) -> dict[str, Any]:
        """The arguments of HookedTransformerConfig that describe this network, as JSON-able values.

        Raise GrokscopeError if HookedTransformer cannot represent the network.
        """
        raise GrokscopeError(f"HookedTransformer cannot represent the family {self.config.family!r}.")

    def hooked_transformer(self, parameters: Parameters) -> "HookedTransformer":
        """Return a HookedTransformer with a copy of `parameters`.

        Raises:
            GrokscopeError: HookedTransformer cannot represent the network, or the parameters do not fit it.
        """
        raise GrokscopeError(f"HookedTransformer cannot represent the family {self.config.family!r}.")


def build(config: ModelConfig, task: Task) -> Model:
    """Return the network that `config` describes, sized for the tokens of `task`.

    It gives logits at every position if the task's labels have a position axis.

    Raises:
        GrokscopeError: The settings do not fit the task, or another package's family fails.
    """
    model = plugins.call("models", config.family, config, task)
    if not isinstance(model, Model):
        subject = plugins.described("models", config.family)
        raise GrokscopeError(f"{subject[0].upper()}{subject[1:]} returned {quoted_value(model)}; allowed: a Model.")
    return model


def sizes(config: ModelConfig, task: Task) -> dict[str, Any]:
    """Return the arguments of a Model that the task determines.

    Raises:
        GrokscopeError: `config.d_vocab_out` is smaller than the number of answers.
    """
    d_vocab_out = task.d_vocab_out if config.d_vocab_out is None else config.d_vocab_out
    if d_vocab_out < task.d_vocab_out:
        raise GrokscopeError(
            f"model.d_vocab_out: {d_vocab_out} is less than the {task.d_vocab_out} answers of {task.formula}. "
            f"Allowed: from {task.d_vocab_out}, or none for this number."
        )
    return {
        "d_vocab": task.d_vocab,
        "d_vocab_out": d_vocab_out,
        "n_ctx": task.n_ctx,
        "has_all_positions": task.labels.ndim == 2,
    }
