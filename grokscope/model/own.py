"""The family "module": a torch.nn.Module of the user's own, which maps tokens (n, n_ctx) to logits.

`torch.func.functional_call` makes it a pure function of its parameters. A run's config contains the names and shapes
of the parameters, but not the module's code. The module is therefore given again to open, resume or fork such a run
in another process. Without it, everything still works that reads parameters alone, such as norms and export of logs.

The module's parts are found by type: the embedding is its only `torch.nn.Embedding` with a row for each token. The
unembedding is its last `torch.nn.Linear` with a column for each answer. The neurons are the outputs of activation
modules such as `torch.nn.ReLU`.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grokscope import tasks
from grokscope.config import ModelConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Matrix, Model, sizes
from grokscope.model.forward import EMBEDDED, Hook, Masks, Parameters
from grokscope.model.state_dicts import parameters_digest
from grokscope.tasks import Task

FAMILY = "module"
_ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Mish)
_MODULES: dict[str, nn.Module] = {}
"""The modules given in this process, by the fingerprint of their class and their parameters' names and shapes."""


def remember(module: nn.Module | None) -> None:
    """Let runs of this module be opened in this process; nothing happens without a module.

    Raises:
        GrokscopeError: The argument is not a module.
    """
    if module is None:
        return
    if not isinstance(module, nn.Module):
        raise GrokscopeError(f"model: a {type(module).__name__}. Allowed: a torch.nn.Module, or None.")
    about = _about(module)
    _MODULES[_fingerprint(about)] = module


def with_module(config: RunConfig, module: nn.Module | None) -> RunConfig:
    """Return the config of a run that trains a module, whose present parameters are the initialization.

    Args:
        config: The other settings. Its `model` may only set `d_vocab_out`.
        module: The module; None returns the config unchanged.

    Raises:
        GrokscopeError: The module does not map tokens to logits, has no trained parameters, or is not a function of
            its parameters alone: it draws random numbers, as dropout does, or changes its buffers, as BatchNorm does.
    """
    if module is None:
        return config
    remember(module)
    task = tasks.build(config.task)
    tokens = task.inputs[:4]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.no_grad():
        try:
            first, second = module(tokens), module(tokens)
        except Exception as error:
            raise GrokscopeError(
                f"The module {type(module).__name__} fails on tokens of shape {tuple(tokens.shape)}: "
                f"{type(error).__name__}: {error}."
            ) from error
    is_single = task.labels.ndim == 1
    shapes = "(n, columns) or (n, positions, columns)" if is_single else "(n, positions, columns)"
    if not (
        isinstance(first, Tensor) and first.ndim in ((2, 3) if is_single else (3,)) and len(first) == len(tokens)
    ):
        shape = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise GrokscopeError(
            f"The module {type(module).__name__} returns {shape} for tokens of shape {tuple(tokens.shape)}. Allowed: "
            f"logits of shape {shapes}."
        )
    if not torch.equal(first, second) or any(
        not torch.equal(buffer, buffers[name]) for name, buffer in module.named_buffers()
    ):
        raise GrokscopeError(
            f"The module {type(module).__name__} gives different results for the same parameters and tokens, as with "
            f"dropout or BatchNorm. Allowed: a function of the parameters and tokens; call module.eval()."
        )
    about = _about(module)
    if not about["trained"]:
        raise GrokscopeError(f"The module {type(module).__name__} has no parameter that requires a gradient.")
    about["initialization"] = _digest(dict(module.named_parameters()))
    model = ModelConfig(
        family=FAMILY,
        d_vocab_out=None if first.shape[-1] == task.d_vocab_out else first.shape[-1],
        options=json.dumps(about, sort_keys=True),
    )
    return dataclasses.replace(config, model=model)


@dataclass(frozen=True)
class Own(Model):
    """A module of the user's own."""

    module: nn.Module | None = field(default=None, compare=False)
    """The module; None if it was not given in this process."""

    @property
    def _about(self) -> Mapping[str, Any]:
        return self.config.option_values

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, sorted by name."""
        return {name: tuple(shape) for name, shape in sorted(self._about["parameters"].items())}

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The parameters that required a gradient when the run began."""
        return tuple(name for name in self.shapes if name in self._about["trained"])

    def _given(self) -> nn.Module:
        if self.module is None:
            raise GrokscopeError(
                f"This run's network is the module {self._about['name']}, which was not given here. Give it in "
                f"Python as model=module to Trajectory.open, grokscope.resume, grokscope.fork or grokscope.densify."
            )
        return self.module

    def initialize(self, seed: int) -> dict[str, Float[Tensor, "..."]]:
        """Return the module's own parameters; the seed is not used.

        Raises:
            GrokscopeError: The module was not given, or its parameters are not those that the run began with.
        """
        parameters = {name: tensor.detach() for name, tensor in self._given().named_parameters()}
        if _digest(parameters) != self._about["initialization"]:
            raise GrokscopeError(
                f"The parameters of the module {self._about['name']} are not those that the run began with. "
                f"Construct the module again from the same seed."
            )
        return {name: parameters[name].float().clone() for name in self.shapes}

    def logits(
        self,
        parameters: Parameters,
        tokens: Equations | Int[Tensor, "n n_ctx"],
        dropout: Masks | None = None,
        hook: Hook | None = None,
    ) -> Float[Tensor, "n *positions d_vocab_out"]:
        """Return the module's logits, as a function of `parameters`.

        Args:
            parameters: All parameters by name.
            tokens: The sequences.
            dropout: None; the module's residual stream, if it has one, is not known.
            hook: Reads or replaces the outputs of the embedding and of the activation modules.
        """
        tokens = tokens if isinstance(tokens, Tensor) else tokens.tokens
        module, like = self._given(), next(iter(parameters.values()))
        buffers = {
            name: buffer.to(like) if buffer.is_floating_point() else buffer.to(like.device)
            for name, buffer in module.named_buffers()
        }
        with ExitStack() as stack:
            if hook is not None:
                for name in (*([self._embedding] if self._embedding else []), *self.neurons):
                    handle = module.get_submodule(name).register_forward_hook(_caller(name, hook, self._embedding))
                    stack.callback(handle.remove)
            logits = torch.func.functional_call(module, {**buffers, **parameters}, (tokens,))
        return logits if logits.ndim == 2 or self.has_all_positions else logits[:, -1]

    @cached_property
    def _embedding(self) -> str:
        """The name of the embedding, or ""."""
        names = self._named(nn.Embedding, lambda part: part.num_embeddings == self.d_vocab)
        return names[0] if len(names) == 1 else ""

    def _named(self, kind: Any, test: Any = lambda part: True) -> list[str]:
        modules = self.module.named_modules() if self.module else ()
        return [name for name, part in modules if isinstance(part, kind) and test(part)]

    @property
    def embedded_positions(self) -> tuple[int, ...]:
        """All positions, if the module has an embedding."""
        return tuple(range(self.n_ctx)) if self._embedding else ()

    @cached_property
    def neurons(self) -> tuple[str, ...]:
        """The names of the activation modules."""
        return tuple(self._named(_ACTIVATIONS))

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        """The weights of the embedding and of the last linear map, as far as the module has them.

        That linear map is the map from neurons to logits too, if its input is the output of the last activation.
        """
        matrices = {}
        if self._embedding:
            W_E = f"{self._embedding}.weight"
            matrices["embedding"] = Matrix((W_E,), lambda p: p[W_E], lambda p, W: {**p, W_E: W})
        linear = self._named(nn.Linear, lambda part: part.out_features == self.d_vocab_out)
        if linear:
            W_U = f"{linear[-1]}.weight"
            matrices["unembedding"] = Matrix((W_U,), lambda p: p[W_U].mT, lambda p, W: {**p, W_U: W.mT})
            if self.neurons and self._reads_neurons(linear[-1]):
                matrices["neuron_logits"] = Matrix((W_U,), lambda p: p[W_U].double())
        return matrices

    @torch.no_grad()
    def _reads_neurons(self, linear: str) -> bool:
        """Return whether the input of a linear map is the output of the last activation module."""
        module, values = self._given(), {}
        with ExitStack() as stack:
            for key, name in (("post", self.neurons[-1]), ("input", linear)):
                handle = module.get_submodule(name).register_forward_hook(
                    lambda _, inputs, output, key=key: values.update({key: output if key == "post" else inputs[0]})
                )
                stack.callback(handle.remove)
            module(torch.zeros(1, self.n_ctx, dtype=torch.long))
        return values["post"].shape == values["input"].shape and torch.equal(values["post"], values["input"])

    def components(self, parameters: Iterable[str]) -> dict[str, list[str]]:
        """Return the parameters of each submodule of the module."""
        groups: dict[str, list[str]] = {}
        for name in parameters:
            groups.setdefault(name.partition(".")[0], []).append(name)
        return groups


def own(config: ModelConfig, task: Task) -> Own:
    """Return a torch.nn.Module of the user's own, which `grokscope.train(config, model=module)` trains."""
    about = config.option_values
    if not {"name", "parameters", "trained", "initialization"} <= about.keys():
        raise GrokscopeError(
            "model.family: 'module' needs a module, which the command line cannot give. Train it in Python with "
            "grokscope.train(config, model=module)."
        )
    return Own(config, **sizes(config, task), module=_MODULES.get(_fingerprint(about)))


def _caller(name: str, hook: Hook, embedding: str) -> Any:
    """Return a forward hook that gives a module's output to `hook`, with a position axis."""

    def call(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if name == embedding:
            return hook(EMBEDDED, output)
        return hook(name, output) if output.ndim == 3 else hook(name, output[:, None])[:, -1]

    return call


def _about(module: nn.Module) -> dict[str, Any]:
    parameters = dict(module.named_parameters())
    return {
        "name": type(module).__name__,
        "parameters": {name: list(tensor.shape) for name, tensor in sorted(parameters.items())},
        "trained": sorted(name for name, tensor in parameters.items() if tensor.requires_grad),
    }


def _fingerprint(about: Mapping[str, Any]) -> str:
    return json.dumps([about["name"], about["parameters"]], sort_keys=True)


def _digest(parameters: Mapping[str, Tensor]) -> str:
    return parameters_digest({name: tensor.float() for name, tensor in parameters.items()})
