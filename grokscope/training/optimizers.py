"""Optimizers: how gradients become updates, in parts that combine, with a state of named tensors for exact resume.

A gradient passes through a filter, then through one of torch's optimizers with warm-up; then come what is left of
a decay towards the initialization, and noise.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from grokscope import plugins, rng
from grokscope.config import OptimizerConfig
from grokscope.errors import GrokscopeError
from grokscope.training import gradient_filters

_FILTER = "filter/"


def adamw(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return AdamW with decoupled weight decay (Loshchilov & Hutter 2019), one fused kernel."""
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def adam(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015) without any weight decay, one fused kernel."""
    return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, fused=True)


def sgd(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum, v ← μv + g + λw and w ← w − lr·v, one fused kernel."""
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


class Optimizer:
    """The optimizer that the config names, over named parameters, which it updates in place.

    Update number u = 0, 1, … has learning rate lr · min(u / warmup_steps, 1). With adamw's decay centre c at the
    initialization, decay and update are W ← W − lr·λ(W − c) + lr·ΔW, the decay before the update as in AdamW.
    Update noise adds lr·σε with ε ~ N(0, 1), drawn anew for each update from a stream of (seed, u).
    """

    def __init__(
        self,
        config: OptimizerConfig,
        parameters: Mapping[str, Tensor],
        centre: Mapping[str, Tensor] | None = None,
        seed: int = 0,
    ):
        self._config, self._seed = config, seed
        self._parameters = dict(parameters)
        self._centre = dict(centre or {})
        self._torch = plugins.load("optimizers", config.name)(config, list(parameters.values()))
        self._filter_state: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor], u: int) -> None:
        """Make update number `u` with the gradient of each parameter."""
        config = self._config
        lr = learning_rate(config, u)
        for group in self._torch.param_groups:
            group["lr"] = lr
        if config.gradient_filter:
            transform = gradient_filters.FILTERS[config.gradient_filter]
            gradients = transform(config, gradients, self._parameters, self._filter_state, u)
        for name, parameter in self._parameters.items():
            # A fused kernel walks parameter, gradient and moments by address, whatever the gradient's strides.
            parameter.grad = gradients[name].contiguous()
        self._torch.step()
        self._torch.zero_grad(set_to_none=True)
        if config.decay_centre == "initialization":
            for name, parameter in self._parameters.items():
                parameter.add_(self._centre[name], alpha=lr * config.weight_decay)
        if config.update_noise:
            device = next(iter(self._parameters.values())).device
            generator = rng.generator("update noise", self._seed, u, device)
            for parameter in self._parameters.values():
                parameter.add_(noise_like(parameter, generator), alpha=lr * config.update_noise)

    def preconditioner(self) -> dict[str, Tensor]:
        """Return by parameter the diagonal P of adam's or adamw's last update w ← w − lr P⁻¹ m, on the CPU.

        With t updates made, P = (1 − β₁ᵗ) (√(v / (1 − β₂ᵗ)) + ε), the correction of the mean m's bias included
        (Cohen et al. 2022, section 2). Raise GrokscopeError for another optimizer, and before the first update.
        """
        if self._config.name not in ("adam", "adamw") or not self._torch.state:
            raise GrokscopeError(
                f"There is no preconditioner of {self._config.name!r} after {len(self._torch.state)} updates; "
                f"allowed: adam or adamw, from the first update."
            )
        (group,), found = self._torch.param_groups, {}
        for name, parameter in self._parameters.items():
            remembered = self._torch.state[parameter]
            t, (beta_1, beta_2) = float(remembered["step"]), group["betas"]
            root = (remembered["exp_avg_sq"].detach().double().cpu() / (1 - beta_2**t)).sqrt()
            found[name] = (1 - beta_1**t) * (root + group["eps"])
        return found

    def state(self) -> dict[str, Tensor]:
        """Return the state as copies on the CPU, named "parameter/quantity", such as "embed.W_E/exp_avg".

        What the gradient filter remembers is named "filter/parameter".
        """
        live = {
            f"{name}/{quantity}": tensor
            for name, parameter in self._parameters.items()
            for quantity, tensor in self._torch.state.get(parameter, {}).items()
            if tensor is not None  # sgd without momentum says so of its buffer.
        }
        live |= {_FILTER + name: tensor for name, tensor in self._filter_state.items()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in live.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned. Hyperparameters are the config's, not the state's.

        Nothing is compared here: a fused kernel reads past the end of what is too short (`Setup.require_resumable`).
        """
        self._torch.state.clear()
        self._filter_state.clear()
        for full_name, tensor in state.items():
            if full_name.startswith(_FILTER):
                name = full_name.removeprefix(_FILTER)
                self._filter_state[name] = tensor.to(self._parameters[name].device, copy=True)
            else:
                name, _, quantity = full_name.rpartition("/")
                parameter = self._parameters[name]
                # As in torch's own load_state_dict: everything lives with its parameter, in its own dtype.
                self._torch.state[parameter][quantity] = tensor.to(parameter.device, copy=True)


def learning_rate(config: OptimizerConfig, u: int) -> float:
    """Return the learning rate of update number `u` = 0, 1, …: lr · min(u / warmup_steps, 1)."""
    return config.lr * (min(u / config.warmup_steps, 1) if config.warmup_steps else 1)


def remembered(
    config: OptimizerConfig, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what is remembered after an update with zeros in place of everything: the optimizer's, and the filter's.

    So names, shapes and types of what is remembered are known for sure, of a third party's too.
    """
    still = {name: torch.zeros_like(one, requires_grad=False) for name, one in parameters.items()}
    trial = Optimizer(config, still, still)
    trial.update({name: torch.zeros_like(one) for name, one in still.items()}, 1)
    state = trial.state()
    filters_own = {name: one for name, one in state.items() if name.startswith(_FILTER)}
    return {name: one for name, one in state.items() if name not in filters_own}, filters_own


def n_remembered(config: OptimizerConfig) -> int:
    """Return how many numbers the optimizer's state has for each parameter; one of a third party counts as Adam."""
    moments = bool(config.momentum) if config.name == "sgd" else 2
    return moments + {"grokfast_ema": 1, "grokfast_ma": config.filter_window}.get(config.gradient_filter or "", 0)


def noise_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of a tensor's shape, dtype and device."""
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
