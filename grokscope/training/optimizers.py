"""Optimizers: how gradients become updates, in parts that combine, with a named state for exact resume.

A gradient passes through a filter and a limit of its norm, and then through one of torch's optimizers with a schedule
of the learning rate. A decay towards the initialization and noise are added afterwards. Last, the norm is clamped.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokscope import plugins, rng
from grokscope.config import OptimizerConfig, lr_schedule, part_decay
from grokscope.errors import GrokscopeError
from grokscope.training import gradient_filters
from grokscope.training.muon import Muon

_FILTER = "filter/"
TINY = 1e-12
"""The least norm that weights are divided by."""
_NOT_HIDDEN = {"embed", "pos_embed", "unembed", "biases", "layer_norms"}
"""The parts that Muon leaves to AdamW: its authors advise it for weight matrices of hidden layers only."""


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


def muon(config: OptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return Muon for weight matrices inside the network (Jordan et al. 2024); AdamW trains the other parameters."""
    return Muon(parameters, lr=config.lr, momentum=config.muon_momentum, weight_decay=config.weight_decay)


class Optimizer:
    """The optimizer of a config, over named parameters, which it updates in place.

    - Update number u = 0, 1, … has the `learning_rate` of its schedule.
    - `gradient_clip` c: g ← g · min(c / |g|, 1), with the norm over all trained parameters, after the filter.
    - adamw with the decay centre c = initialization: W ← W − lr·λ(W − c) + lr·ΔW. As in AdamW, the decay comes first.
    - Update noise adds lr·σε with ε ~ N(0, 1), drawn for each update from a stream of (seed, u).
    - `norm_clamp` r: after all of these W ← W · r / |W|, with the norm over all trained parameters.
    - With "muon", AdamW trains the embeddings, the positions, the unembedding and all vectors.

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
        self._decays = part_decay.decays(config.decay_by_part, config.weight_decay, parameters)
        self._torch = self._torch_optimizers()
        self._filter_state: dict[str, Tensor] = {}

    def _torch_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return torch's optimizers, which together train every parameter, each with its own weight decay."""
        config = self._config
        build, names = plugins.load("optimizers", config.name), list(self._parameters)
        if build is muon:
            hidden = [name for name in names if _is_hidden_matrix(name, self._parameters[name])]
            parts = [(muon, hidden), (adamw, [name for name in names if name not in hidden])]
        else:
            parts = [(build, names)]
        optimizers = []
        for part_build, members in parts:
            if not members:
                continue
            optimizer = part_build(config, [self._parameters[name] for name in members])
            if config.decay_by_part:
                (group,) = optimizer.param_groups
                optimizer.param_groups = [
                    {
                        **group,
                        "weight_decay": decay,
                        "params": [self._parameters[name] for name in members if self._decays[name] == decay],
                    }
                    for decay in dict.fromkeys(self._decays[name] for name in members)
                ]
            optimizers.append(optimizer)
        return optimizers

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter, empty before its first update."""
        states = [optimizer.state[parameter] for optimizer in self._torch if parameter in optimizer.state]
        return states[0] if states else {}

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor], u: int) -> None:
        """Make update number `u` = 0, 1, … with the gradient of each parameter."""
        config = self._config
        lr = learning_rate(config, u)
        for optimizer in self._torch:
            for group in optimizer.param_groups:
                group["lr"] = lr
        if config.gradient_filter:
            apply_filter = gradient_filters.FILTERS[config.gradient_filter]
            gradients = apply_filter(config, gradients, self._parameters, self._filter_state, u)
        if config.gradient_clip:
            gradients = clipped(gradients, config.gradient_clip)
        for name, parameter in self._parameters.items():
            # A fused kernel walks parameter, gradient and moments by address, and ignores the gradient's strides.
            parameter.grad = gradients[name].contiguous()
        for optimizer in self._torch:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if config.decay_centre == "initialization":
            for name, parameter in self._parameters.items():
                parameter.add_(self._centre[name], alpha=lr * self._decays[name])
        if config.update_noise:
            device = next(iter(self._parameters.values())).device
            generator = rng.generator("update noise", self._seed, u, device)
            for parameter in self._parameters.values():
                parameter.add_(noise_like(parameter, generator), alpha=lr * config.update_noise)
        if config.norm_clamp:
            norms = [torch.linalg.vector_norm(p, dtype=torch.float64) for p in self._parameters.values()]
            scale = config.norm_clamp / torch.linalg.vector_norm(torch.stack(norms)).clamp_min(TINY)
            for parameter in self._parameters.values():
                parameter.mul_(scale.to(parameter.dtype))

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
        if self._config.name not in ("adam", "adamw") or not self._torch[0].state:
            raise GrokscopeError(
                f"optimizer.name: {self._config.name!r} has no preconditioner here. Allowed: adam or adamw, after at "
                f"least one update."
            )
        group, diagonals = self._torch[0].param_groups[0], {}
        for name, parameter in self._parameters.items():
            moments = self._state_of(parameter)
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
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._live_state().items()}

    def copied_state(self) -> dict[str, Tensor]:
        """Return copies of the optimizer's tensors on their devices, named as in `state`."""
        return {name: tensor.detach().clone() for name, tensor in self._live_state().items()}

    def _live_state(self) -> dict[str, Tensor]:
        live = {
            f"{name}/{quantity}": tensor
            for name, parameter in self._parameters.items()
            for quantity, tensor in self._state_of(parameter).items()
            if tensor is not None  # sgd without momentum has None as its buffer.
        }
        return live | {_FILTER + name: tensor for name, tensor in self._filter_state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that `state` returned; the hyperparameters stay those of the config.

        Shapes are not checked here, and a fused kernel reads past the end of a tensor that is too short.
        `learner.require_resumable` checks them.
        """
        for optimizer in self._torch:
            optimizer.state.clear()
        owners = {
            id(parameter): optimizer
            for optimizer in self._torch
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        self._filter_state.clear()
        for full_name, tensor in state.items():
            if full_name.startswith(_FILTER):
                name = full_name.removeprefix(_FILTER)
                self._filter_state[name] = tensor.to(self._parameters[name].device, copy=True)
            else:
                name, _, quantity = full_name.rpartition("/")
                parameter = self._parameters[name]
                # As in torch's load_state_dict, every tensor is on its parameter's device and keeps its own dtype.
                owners[id(parameter)].state[parameter][quantity] = tensor.to(parameter.device, copy=True)


def learning_rate(config: OptimizerConfig, u: int) -> float:
    """Return the learning rate of update number `u` = 0, 1, …: lr times the factor of warm-up and schedule."""
    return config.lr * lr_schedule.factor(config.schedule, config.warmup_steps, u)


def clipped(gradients: Mapping[str, Tensor], largest: float) -> dict[str, Tensor]:
    """Return gradients g · min(c / (|g| + 1e-6), 1), as `torch.nn.utils.clip_grad_norm_` makes them.

    Args:
        gradients: The gradient of each trained parameter by name; the norm |g| is over all of them.
        largest: The largest norm c.
    """
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    factor = (largest / (norm + 1e-6)).clamp_max(1)
    return {name: gradient * factor for name, gradient in gradients.items()}


def _is_hidden_matrix(name: str, tensor: Tensor) -> bool:
    """Return whether Muon trains a parameter: a matrix of neither an embedding nor the unembedding."""
    # The biases of attention have two axes, heads and d_head.
    return tensor.ndim > 1 and not _NOT_HIDDEN & part_decay.parts_of(name)


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
