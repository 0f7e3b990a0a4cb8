"""The training loop: `optimize` is a generator of steps over a `State`, with everything else in a `Setup`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import model as models
from grokscope import tasks
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.optimizers import Optimizer

Row = dict[str, float]
"""What the log says of one step: train and test loss and accuracy."""


class NotFinite(GrokscopeError):
    """A loss, gradient or weight is not finite; `resumable` says whether a resume from here would stop here again."""

    def __init__(self, what: str, step: int, last_finite: int, *, resumable: bool):
        super().__init__(
            f"{what} is not finite at step {step}; the last finite step is {last_finite}. What was saved is "
            f"intact. A smaller optimizer.lr or model.init_scale, or loss_dtype 'float64', may help."
        )
        self.resumable = resumable


@dataclass
class State:
    """What training changes: the number of updates made, the parameters (in place) and the optimizer."""

    step: int
    parameters: dict[str, Tensor]
    optimizer: Optimizer


class Setup:
    """What training reads: config, task, split, model, and the data on the training device."""

    def __init__(self, config: RunConfig):
        self.config = config.validate()
        self.task = tasks.build(config.task)
        self.split = tasks.split(self.task, config.task.train_fraction, config.split_seed)
        self.model = models.build(config.model, self.task)
        self.device = _device(config.device)
        self.inputs, self.labels = self.task.inputs.to(self.device), self.task.labels.to(self.device)
        self._train = self.split.train.to(self.device)
        self._test = self.split.test.to(self.device)
        self._train_inputs, self._train_labels = self.inputs[self._train], self.labels[self._train]
        self._epoch: tuple[int, Tensor] = (-1, self._train)
        n_train = len(self._train)
        if config.batch_size is not None and config.batch_size > n_train:
            raise GrokscopeError(
                f"batch_size: {config.batch_size} exceeds the training set; allowed: from 1 to {n_train}, or none."
            )

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
        optimizer = Optimizer(self.config.optimizer, {name: parameters[name] for name in self.model.trained})
        if resumed is None:
            return State(0, parameters, optimizer)
        prefix = "optimizer/"
        optimizer.load({name[len(prefix) :]: one for name, one in resumed.items() if name.startswith(prefix)})
        return State(int(resumed["step"]), parameters, optimizer)

    def batch(self, step: int) -> tuple[Int[Tensor, "batch n_ctx"], Int[Tensor, " batch"]]:
        """Return the batch of the update that follows `step`: a function of the training seed and the step.

        Minibatches run through the training set in a new random order each epoch; an epoch's last may be short.
        """
        if self.config.batch_size is None:
            return self._train_inputs, self._train_labels
        n_train = len(self._train)
        epoch, position = divmod(step, -(-n_train // self.config.batch_size))
        if self._epoch[0] != epoch:
            order = tasks.permutation("batches", self.config.training_seed, epoch, n_train)
            self._epoch = (epoch, torch.from_numpy(order).to(self.device))
        chosen = self._epoch[1][position * self.config.batch_size :][: self.config.batch_size]
        return self._train_inputs[chosen], self._train_labels[chosen]

    def evaluate(self, state: State) -> Row:
        """Return the log's row for the present parameters; raise NotFinite if a loss is not finite."""
        loss, right = models.evaluate(self.model, state.parameters, self.inputs, self.labels, self.config.loss_dtype)
        row = {
            "train_loss": float(loss[self._train].mean()),
            "test_loss": float(loss[self._test].mean()),
            "train_accuracy": float(right[self._train].double().mean()),
            "test_accuracy": float(right[self._test].double().mean()),
        }
        for name in ("train_loss", "test_loss"):
            if not np.isfinite(row[name]):
                raise NotFinite(f"The {name}", state.step, state.step - 1, resumable=False)
        return row


def optimize(setup: Setup, state: State) -> Iterator[State]:
    """Make one update after the other, for ever, and yield the state after each.

    Raise NotFinite, naming the tensor, before an update with a loss or gradient that is not finite, and after
    one that leaves a weight so.
    """
    trained = {name: state.parameters[name] for name in setup.model.trained}
    while True:
        inputs, labels = setup.batch(state.step)
        logits = setup.model.logits(state.parameters, inputs)
        loss = models.losses(logits, labels, setup.config.loss_dtype).mean()
        gradients = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
        _require_finite(state.step, {"The training loss": loss.detach()}, resumable=True)
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


def _require_finite(step: int, tensors: Mapping[str, Tensor], *, resumable: bool) -> None:
    total = torch.nn.utils.get_total_norm(list(tensors.values()))
    if torch.isfinite(total):
        return
    # The norm of finite numbers may overflow: only the elements decide.
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotFinite(name, step, step - 1, resumable=resumable)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GrokscopeError(
            f"device: {name!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices, and 'cpu'."
        )
    return device
