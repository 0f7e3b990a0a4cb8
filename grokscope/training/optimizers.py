"""Optimizers: how gradients become updates, in parts that combine, with a named state for exact resume.

A gradient passes through a filter and then through one of torch's optimizers with warm-up. A decay towards the
initialization and noise are added afterwards.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import plugins, rng
from grokscope.config import OptimizerConfig
from grokscope.errors import GrokscopeError
from grokscope.training import gradient_filters

_FILTER = "filter/"


def adamw(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return AdamW with decoupled weight decay (Loshchilov & Hutter 2019), as one fused kernel."""
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def adam(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015) without weight decay, as one fused kernel."""
    return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, fused=True)


def sgd(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with momentum, v ← μv + g + λw and w ← w − lr·v, as one fused kernel."""
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )


class Optimizer:
    """The optimizer of a config, over named parameters, which it updates in place.

    - Update number u = 0, 1, … has the learning rate lr · min(u / warmup_steps, 1).
    - adamw with the decay centre c = initialization: W ← W − lr·λ(W − c) + lr·ΔW. As in AdamW, the decay comes first.
    - Update noise adds lr·σε with ε ~ N(0, 1), drawn for each update from a stream of (seed, u).

    Args:
        config: The optimizer's settings.
        parameters: The trained parameters by name.
        centre: The decay centre by name, if `config.decay_centre` is "initialization".
        seed: The training seed, for update noise.
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
        """Make update number `u` = 0, 1, … with the gradient of each parameter."""
        config = self._config
        lr = learning_rate(config, u)
        for group in self._torch.param_groups:
            group["lr"] = lr
        if config.gradient_filter:
            apply_filter = gradient_filters.FILTERS[config.gradient_filter]
            gradients = apply_filter(config, gradients, self._parameters, self._filter_state, u)
        for name, parameter in self._parameters.items():
            # A fused kernel walks parameter, gradient and moments by address, and ignores the gradient's strides.
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
        """Return the diagonal P of the last update w ← w − lr P⁻¹ m of adam or adamw.

        After t updates P = (1 − β₁ᵗ) (√(v / (1 − β₂ᵗ)) + ε), which includes the bias correction of the mean m.

        Returns:
            P by parameter, in the parameter's shape, in float64 on the CPU.

        Raises:
            GrokscopeError: The optimizer is neither adam nor adamw, or has made no update.

        References:
            Cohen et al. 2022, section 2.
        """
        if self._config.name not in ("adam", "adamw") or not self._torch.state:
            raise GrokscopeError(
                f"optimizer.name: {self._config.name!r} has no preconditioner here. Allowed: adam or adamw, after at "
                f"least one update."
            )
        (group,), diagonals = self._torch.param_groups, {}
        for name, parameter in self._parameters.items():
            moments = self._torch.state[parameter]
            t, (beta_1, beta_2) = float(moments["step"]), group["betas"]
            root = (moments["exp_avg_sq"].detach().double().cpu() / (1 - beta_2**t)).sqrt()
            diagonals[name] = (1 - beta_1**t) * (root + group["eps"])
        return diagonals

    def state(self) -> dict[str, Tensor]:
        """Return copies of the optimizer's tensors on the CPU.

        Returns:
            The tensors by "parameter/quantity", such as "embed.W_E/exp_avg". Those of the gradient filter are named
            "filter/parameter".
        """
        live = {
            f"{name}/{quantity}": tensor
            for name, parameter in self._parameters.items()
            for quantity, tensor in self._torch.state.get(parameter, {}).items()
            if tensor is not None  # sgd without momentum has None as its buffer.
        }
        live |= {_FILTER + name: tensor for name, tensor in self._filter_state.items()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in live.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that `state` returned; the hyperparameters stay those of the config.

        Shapes are not checked here, and a fused kernel reads past the end of a tensor that is too short.
        `learner.require_resumable` checks them.
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
                # As in torch's load_state_dict, every tensor is on its parameter's device and keeps its own dtype.
                self._torch.state[parameter][quantity] = tensor.to(parameter.device, copy=True)


def learning_rate(config: OptimizerConfig, u: int) -> float:
    """Return the learning rate of update number `u` = 0, 1, …: lr · min(u / warmup_steps, 1)."""
    return config.lr * (min(u / config.warmup_steps, 1) if config.warmup_steps else 1)


def expected_state(
    config: OptimizerConfig, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state that an optimizer has after an update, with its names, shapes and dtypes.

    The state comes from a real update of zeros, so it is also right for optimizers of other packages. Its values have
    no meaning.

    Args:
        config: The optimizer's settings.
        parameters: The trained parameters by name; only their shapes and dtypes matter.

    Returns:
        The tensors of the optimizer and those of the gradient filter, each named as in `Optimizer.state`.
    """
    zeros = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in parameters.items()}
    trial = Optimizer(config, zeros, zeros)
    trial.update({name: torch.zeros_like(tensor) for name, tensor in zeros.items()}, 1)
    state = trial.state()
    filter_state = {name: tensor for name, tensor in state.items() if name.startswith(_FILTER)}
    return {name: tensor for name, tensor in state.items() if name not in filter_state}, filter_state


def n_values_per_parameter(config: OptimizerConfig) -> int:
    """Return how many numbers the optimizer stores per parameter; optimizers of other packages count as Adam."""
    n_moments = int(config.momentum > 0) if config.name == "sgd" else 2
    n_filtered = {"grokfast_ema": 1, "grokfast_ma": config.filter_window}.get(config.gradient_filter or "", 0)
    return n_moments + n_filtered


def noise_like(tensor: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Return standard normal noise with a tensor's shape, dtype and device."""
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
