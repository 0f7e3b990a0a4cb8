"""The loss as a function of the weights: what curvature, sharpness and every slice of the landscape are taken of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope import curvature
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.model.equation_batch import Equations
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model
from grokscope.series import LabelledArrays
from grokscope.snapshot import Snapshot
from grokscope.trajectory import Trajectory

DTYPES = ("float32", "float64")
PARTS = ("train", "test")
SCANNED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""What `loss_scan` says of each model."""


@dataclass(frozen=True, eq=False)
class Objective:
    """f(x): the mean of the config's loss over some equations at trained parameters x, written as one flat vector.

    A frozen bias is no direction. Parameters and logits are in the dtype of `parameters`, the log-softmax in the
    config's `loss_dtype`.
    """

    model: Model
    config: RunConfig
    equations: Equations
    labels: Int[Tensor, " n_examples"]
    parameters: Parameters
    """Where it stands: every parameter of a checkpoint, the frozen ones included."""

    @cached_property
    def point(self) -> Float[Tensor, " n"]:
        """The trained parameters of the checkpoint, as one vector."""
        return self.flat({name: self.parameters[name] for name in self.model.trained})

    def flat(self, tensors: Parameters) -> Float[Tensor, " n"]:
        """Return a tensor for each trained parameter as one vector, in the order of `Model.trained`."""
        return torch.cat([tensors[name].reshape(-1) for name in self.model.trained])

    def unflat(self, x: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """Return the trained parameters that one vector holds, as views of it; the opposite of `flat`."""
        shapes = [self.model.shapes[name] for name in self.model.trained]
        parts = x.to(self.point).split([self.parameters[name].numel() for name in self.model.trained])
        return {name: part.reshape(s) for name, part, s in zip(self.model.trained, parts, shapes, strict=True)}

    def logits(self, parameters: Parameters) -> Float[Tensor, "n_examples d_vocab_out"]:
        """Return the logits of its equations at some trained parameters, the frozen ones the checkpoint's own."""
        return self.model.logits({**self.parameters, **parameters}, self.equations)

    def loss(self, parameters: Parameters) -> Float[Tensor, ""]:
        """Return f at some trained parameters as a tensor that can be differentiated, twice and more."""
        there = {**self.parameters, **parameters}
        return losses.mean_loss(self.model, there, self.equations, self.labels, self.config)

    @torch.no_grad()
    def value(self, x: Float[Tensor, " n"]) -> float:
        """Return f(x)."""
        return float(self.loss(self.unflat(x)))

    @torch.no_grad()
    def examples(self, x: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n_examples"], Bool[Tensor, " n_examples"]]:
        """Return each example's loss at x and whether its answer is right."""
        there = {**self.parameters, **self.unflat(x)}
        dtype, function = self.config.loss_dtype, self.config.loss
        return losses.evaluate(self.model, there, self.equations, self.labels, dtype, function)

    def value_and_gradient(self, x: Float[Tensor, " n"]) -> tuple[float, Float[Tensor, " n"]]:
        """Return f(x) and ∇f(x), one pass forward and one backward."""
        with torch.enable_grad():
            leaves = {name: one.detach().requires_grad_() for name, one in self.unflat(x).items()}
            value = self.loss(leaves)
            gradient = torch.autograd.grad(value, list(leaves.values()))
        return value.item(), self.flat(dict(zip(leaves, gradient, strict=True)))

    def hessian(self, names: Sequence[str] | None = None) -> tuple[curvature.Product, int]:
        """Return v ↦ ∇²f v at the checkpoint over the trained parameters, or those of a block, and their number."""
        with torch.enable_grad():
            leaves = self._leaves(names)
            return curvature.hvp(self.loss(leaves), list(leaves.values()))

    def gauss_newton(self, names: Sequence[str] | None = None) -> tuple[curvature.Product, int]:
        """Return v ↦ Jᵀ(∇²L)J v at the checkpoint, over the trained parameters or those of a block, and their number.

        J is the Jacobian of all the equations' logits, L the mean of the config's loss as a function of them. With
        the softmax it has no negative eigenvalue; stablemax's loss is not convex in the logits, and it may.
        """

        def loss(logits: Tensor) -> Float[Tensor, ""]:
            return losses.cross_entropy(logits, self.labels, self.config.loss_dtype, self.config.loss).mean()

        with torch.enable_grad():
            leaves = self._leaves(names)
            return curvature.gauss_newton(self.logits(leaves), loss, list(leaves.values()))

    def _leaves(self, names: Sequence[str] | None) -> dict[str, Tensor]:
        chosen = self.model.trained if names is None else names
        return {name: self.parameters[name].detach().requires_grad_() for name in chosen}


def objectives(
    trajectory: Trajectory, *, part: str = "train", dtype: str = "float64"
) -> Iterator[tuple[Snapshot, Objective]]:
    """Yield each checkpoint with the mean loss over a part of the equations, "train" or "test", where it stands.

    Parameters are converted to `dtype`, "float32" or "float64". Raise GrokscopeError for another part or dtype, and
    for a part that has no equations.
    """
    if dtype not in DTYPES:
        raise GrokscopeError(f"dtype: {dtype!r}; allowed: {' or '.join(DTYPES)}.")
    if part not in PARTS:
        raise GrokscopeError(f"part: {part!r}; allowed: {' or '.join(PARTS)}.")
    task, model = trajectory.task, trajectory.model
    examples = getattr(trajectory.split, part)
    if not len(examples):
        raise GrokscopeError(f"The run has no {part} equations, so there is no {part} loss.")
    # What the equations have in common is worked out once for all checkpoints.
    equations, labels = model.equations(task.inputs[examples]), task.labels[examples]
    for snapshot in trajectory:
        parameters = {name: one.to(getattr(torch, dtype)) for name, one in snapshot.parameters.items()}
        yield snapshot, Objective(model, trajectory.config, equations, labels, parameters)


def loss_scan(trajectory: Trajectory, axes: Mapping[str, np.ndarray], models: Iterable[Parameters]) -> LabelledArrays:
    """Return `train_loss test_loss train_accuracy test_accuracy` of models, which come in the order of the axes.

    The config's `loss` in its `loss_dtype`, on the trajectory's own task and split, in the dtype of each model's
    parameters; a part without equations has no number (nan). One forward pass over all equations a model, and only
    one model in memory at a time if they come one by one.
    """
    task, split, config = trajectory.task, trajectory.split, trajectory.config
    equations = trajectory.model.equations(task.inputs)
    parts = {"train": split.train, "test": split.test}
    rows: list[dict[str, float]] = []
    for parameters in models:
        loss, right = losses.evaluate(
            trajectory.model, parameters, equations, task.labels, config.loss_dtype, config.loss
        )
        rows.append(
            {f"{name}_loss": float(loss[part].mean()) for name, part in parts.items()}
            | {f"{name}_accuracy": float(right[part].double().mean()) for name, part in parts.items()}
        )
    shape = tuple(len(one) for one in axes.values())
    return LabelledArrays(axes, {name: np.array([row[name] for row in rows]).reshape(shape) for name in SCANNED})
