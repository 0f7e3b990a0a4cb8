"""Optimizers: how gradients become updates, with warm-up and a state of named tensors for exact resume."""

from collections.abc import Mapping

import torch
from torch import Tensor

from grokscope import plugins
from grokscope.config import OptimizerConfig


def adamw(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return AdamW with decoupled weight decay towards zero (Loshchilov & Hutter 2019), one fused kernel."""
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


class Optimizer:
    """The optimizer that the config names, over named parameters, which it updates in place.

    Update number u = 0, 1, … has learning rate lr · min(u / warmup_steps, 1).
    """

    def __init__(self, config: OptimizerConfig, parameters: Mapping[str, Tensor]):
        self._config = config
        self._parameters = dict(parameters)
        self._torch = plugins.load("optimizers", config.name)(config, list(parameters.values()))

    def update(self, gradients: Mapping[str, Tensor], u: int) -> None:
        """Make update number `u` with the gradient of each parameter."""
        warmup = self._config.warmup_steps
        for group in self._torch.param_groups:
            group["lr"] = self._config.lr * (min(u / warmup, 1) if warmup else 1)
        for name, parameter in self._parameters.items():
            # A fused kernel walks parameter, gradient and moments by address, whatever the gradient's strides.
            parameter.grad = gradients[name].contiguous()
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the state as copies on the CPU, named "parameter/quantity", such as "embed.W_E/exp_avg"."""
        return {
            f"{name}/{quantity}": tensor.detach().to("cpu", copy=True)
            for name, parameter in self._parameters.items()
            for quantity, tensor in self._torch.state.get(parameter, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned. Hyperparameters are the config's, not the state's."""
        self._torch.state.clear()
        for full_name, tensor in state.items():
            name, _, quantity = full_name.rpartition("/")
            parameter = self._parameters[name]
            # As in torch's own load_state_dict: everything lives with its parameter, in its own dtype.
            self._torch.state[parameter][quantity] = tensor.to(parameter.device, copy=True)
