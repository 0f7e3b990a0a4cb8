"""The training loop: `optimize` is a generator of steps over a `State`, with everything else in a `Setup`."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import environment, rng, tasks
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses, transformer
from grokscope.model.equation_batch import Equations
from grokscope.training.optimizers import Optimizer, noise_like, remembered

_TINY = 1e-12
"""Keeps a gradient of zero from being divided by its norm."""
SCALARS = {
    "step": torch.tensor(0),
    "schedule/reference": torch.tensor(1.0, dtype=torch.float64),
    "schedule/n_adaptive": torch.tensor(0),
}
"""What a resume state holds beside parameters and optimizer."""
Row = dict[str, float]
"""What the log says of one step: train and test loss and accuracy."""


class NotFiniteError(GrokscopeError):
    """A loss, gradient or weight is not finite; `resumable` says whether a resume from here would stop here again."""

    def __init__(self, what: str, step: int, last_finite: int, *, resumable: bool):
        super().__init__(
            f"{what} is not finite at step {step}; the last finite step is {last_finite}. What was saved is "
            f"intact. A smaller optimizer.lr or model.init_scale, or loss_dtype 'float64', may help."
        )
        self.step, self.resumable = step, resumable


@dataclass
class State:
    """What training changes: the number of updates made, the parameters (in place) and the optimizer."""

    step: int
    parameters: dict[str, Tensor]
    optimizer: "Remembers"


class Remembers(Protocol):
    """What a state needs of its optimizer: to tell what it remembers."""

    def state(self) -> dict[str, Tensor]:
        """Return copies on the CPU, named "parameter/quantity"."""
        ...


class Setup:
    """What training reads: config, task, split, model, and the data on the training device."""

    def __init__(self, config: RunConfig):
        environment.keep_memory()
        self.config = config.validate()
        self.task, self.split = tasks.load(config.task, config.split_seed)
        self.model = transformer.build(config.model, self.task)
        self.device = _device(config.device)
        self.inputs, self.labels = self.task.inputs.to(self.device), self.task.labels.to(self.device)
        self._train, self._test = (part.to(self.device) for part in (self.split.train, self.split.test))
        self.equations = self.model.equations(self.inputs)
        self._train_equations, self._train_labels = self.equations[self._train], self.labels[self._train]
        n_train = len(self._train)
        # Exact: in floating point 0.28 · 25 is above 7.
        largest = math.ceil(Fraction(str(config.batch_share)) * n_train)
        self.batch_size = min(config.batch_size, largest) if config.batch_size else n_train
        """The examples in a batch; the last one of an epoch may have fewer."""
        self._epoch: tuple[int, Tensor] = (-1, torch.arange(n_train))

    def state(self, resumed: Mapping[str, Tensor] | None = None) -> State:
        """Return the state at initialization, or the one that `resume_state` described."""
        if resumed is None:
            parameters = self.model.initialize(self.config.init_seed)
        else:
            parameters = {name: resumed[f"parameters/{name}"] for name in self.model.shapes}
        # A copy, in memory that torch itself has aligned: where a matrix begins may decide the kernel, and so bits.
        parameters = {name: tensor.to(self.device, copy=True) for name, tensor in parameters.items()}
        for name in self.model.trained:
            parameters[name].requires_grad_()
        trained = {name: parameters[name] for name in self.model.trained}
        centre = {}
        if self.config.optimizer.decay_centre == "initialization":
            start = self.model.initialize(self.config.init_seed)
            centre = {name: start[name].to(self.device) for name in trained}
        optimizer = Optimizer(self.config.optimizer, trained, centre, self.config.training_seed)
        if resumed is None:
            return State(0, parameters, optimizer)
        prefix = "optimizer/"
        optimizer.load({name[len(prefix) :]: one for name, one in resumed.items() if name.startswith(prefix)})
        return State(int(resumed["step"]), parameters, optimizer)

    def require_resumable(self, resumed: Mapping[str, Tensor], *, whole: bool = False) -> None:
        """Raise GrokscopeError that names what a resume state lacks, what is unknown, and what is of another kind.

        Unless it must be `whole`, all of the optimizer's or all of the gradient filter's may be missing, as a fork's.
        """
        like = {name: torch.empty(shape) for name, shape in self.model.shapes.items()}
        expected = {**SCALARS, **{f"parameters/{name}": one for name, one in like.items()}}
        for part in remembered(self.config.optimizer, {name: like[name] for name in self.model.trained}):
            named = {f"optimizer/{name}": one for name, one in part.items()}
            expected |= named if whole or named.keys() & resumed.keys() else {}
        found = {"lacks": expected.keys() - resumed.keys(), "has unknown": resumed.keys() - expected.keys()}
        faults = [f"it {what} {', '.join(sorted(names))}" for what, names in found.items() if names]
        faults += [
            f"{name} is {_kind(resumed[name])}, not {_kind(expected[name])}"
            for name in sorted(expected.keys() & resumed.keys())
            if _kind(resumed[name]) != _kind(expected[name])
        ]
        if faults:
            raise GrokscopeError(f"The resume state does not fit the run: {'; '.join(faults)}.")

    def batch(self, step: int) -> tuple[Equations, Int[Tensor, " batch"]]:
        """Return the batch of the update that follows `step`: the training examples that `chosen` says."""
        if self.config.batch_size is None:
            return self._train_equations, self._train_labels
        chosen = self.chosen(step).to(self.device)
        return self._train_equations[chosen], self._train_labels[chosen]

    def chosen(self, step: int) -> Int[Tensor, " batch"]:
        """Return which training examples the update that follows `step` takes: a function of seed and step alone.

        Minibatches run through the training set in a new random order each epoch; an epoch's last may be short.
        """
        n_train = len(self._train)
        if self.config.batch_size is None:
            return self._epoch[1]
        epoch, position = divmod(step, -(-n_train // self.batch_size))
        if self._epoch[0] != epoch:
            order = rng.permutation("batches", self.config.training_seed, epoch, n_train)
            self._epoch = (epoch, torch.from_numpy(order))
        return self._epoch[1][position * self.batch_size :][: self.batch_size]

    def evaluate(self, state: State) -> Row:
        """Return the log's row for the present parameters; raise NotFiniteError if a loss is not finite."""
        loss, right = losses.evaluate(
            self.model, state.parameters, self.equations, self.labels, self.config.loss_dtype, self.config.loss
        )
        row = {
            "train_loss": float(loss[self._train].mean()),
            "test_loss": float(loss[self._test].mean()),
            "train_accuracy": float(right[self._train].double().mean()),
            "test_accuracy": float(right[self._test].double().mean()),
        }
        return require_finite_losses(row, state.step)


def require_finite_losses(row: Row, step: int) -> Row:
    """Return the row of a step itself; raise NotFiniteError if one of its losses is not finite."""
    for name in ("train_loss", "test_loss"):
        if not math.isfinite(row[name]):
            raise NotFiniteError(f"The {name}", step, step - 1, resumable=False)
    return row


def optimize(setup: Setup, state: State) -> Iterator[State]:
    """Make one update after the other, for ever, and yield the state after each.

    Raise NotFiniteError, naming the tensor, before an update with a loss or gradient that is not finite, and after
    one that leaves a weight so.
    """
    trained = {name: state.parameters[name] for name in setup.model.trained}
    assert isinstance(state.optimizer, Optimizer)
    while True:
        loss, gradients = loss_and_gradients(setup, state)
        _require_finite(state.step, {"The training loss": loss}, resumable=True)
        _require_finite(
            state.step,
            {f"The gradient of {name}": gradient for name, gradient in gradients.items()},
            resumable=True,
        )
        state.optimizer.update(gradients, state.step)
        state.step += 1
        weights = {f"The parameter {name}": tensor.detach() for name, tensor in trained.items()}
        _require_finite(state.step, weights, resumable=False)
        yield state


def loss_and_gradients(setup: Setup, state: State) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss on the batch that follows `state.step`, and the gradient that its update is made of.

    Weight noise moves the parameters before the call, θ + σε; sharpness-aware minimization then takes the
    gradient once more at θ + ρ g/|g|, with the same batch, noise and dropout. What is random depends on the
    training seed and the step alone.
    """
    config, step = setup.config, state.step
    inputs, labels = setup.batch(step)
    dropout = None
    if config.residual_dropout:
        generator = rng.generator("dropout", config.training_seed, step, setup.device)
        dropout = setup.model.dropout_masks(len(inputs), config.residual_dropout, generator)

    parameters: Mapping[str, Tensor] = state.parameters
    if config.optimizer.weight_noise:
        generator = rng.generator("weight noise", config.training_seed, step, setup.device)
        noise = {name: noise_like(parameters[name], generator) for name in setup.model.trained}
        parameters = _moved(parameters, noise, config.optimizer.weight_noise)
    loss, gradients = _backward(setup, parameters, inputs, labels, dropout)
    if config.optimizer.sam_radius:
        norm = float(torch.nn.utils.get_total_norm(list(gradients.values())))
        uphill = _moved(parameters, gradients, config.optimizer.sam_radius / max(norm, _TINY))
        _, gradients = _backward(setup, uphill, inputs, labels, dropout)
    return loss, gradients


def _backward(
    setup: Setup,
    parameters: Mapping[str, Tensor],
    inputs: Equations,
    labels: Int[Tensor, " batch"],
    dropout: Mapping[str, Tensor] | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    with environment.matrix_products(setup.config.matrix_products):
        logits = setup.model.logits(parameters, inputs, dropout)
        loss = losses.cross_entropy(logits, labels, setup.config.loss_dtype, setup.config.loss).mean()
        found = torch.autograd.grad(loss, [parameters[name] for name in setup.model.trained])
    return loss.detach(), dict(zip(setup.model.trained, found, strict=True))


def _moved(parameters: Mapping[str, Tensor], directions: Mapping[str, Tensor], distance: float) -> dict[str, Tensor]:
    """Return the parameters, those with a direction moved along it, ready to take a gradient there."""
    return {
        name: tensor.detach().add(directions[name], alpha=distance).requires_grad_() if name in directions else tensor
        for name, tensor in parameters.items()
    }


def _require_finite(step: int, tensors: Mapping[str, Tensor], *, resumable: bool) -> None:
    total = torch.nn.utils.get_total_norm(list(tensors.values()))
    if torch.isfinite(total):
        return
    # The norm of finite numbers may overflow: only the elements decide.
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotFiniteError(name, step, step - 1, resumable=resumable)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}"


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GrokscopeError(
            f"device: {name!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices, and 'cpu'."
        )
    return device
