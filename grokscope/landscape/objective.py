"""The loss as a function of the weights: the function whose curvature, sharpness and landscape are measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.series import LabelledArrays
from grokscope.snapshot import Snapshot
from grokscope.trajectory import Trajectory

DTYPES = ("float32", "float64")
PARTS = ("train", "test")
SCAN_NAMES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""The arrays of `loss_scan`."""


@dataclass(frozen=True, eq=False)
class Objective:
    """f(x): the mean loss over a set of equations as a function of the trained parameters, flattened to a vector x.

    Frozen biases are not coordinates of x. Parameters and logits have the dtype of `parameters`; the log-softmax has
    the config's `loss_dtype`.
    """

    model: Model
    config: RunConfig
    equations: Equations
    labels: Int[Tensor, "n_examples *positions"]
    parameters: Parameters
    """All parameters of a checkpoint, including the frozen ones."""

    @cached_property
    def point(self) -> Float[Tensor, " n"]:
        """The trained parameters of the checkpoint as a vector."""
        return self.to_vector({name: self.parameters[name] for name in self.model.trained})

    def to_vector(self, tensors: Parameters) -> Float[Tensor, " n"]:
        """Return one tensor per trained parameter as a vector, in the order of `Model.trained`."""
        return torch.cat([tensors[name].reshape(-1) for name in self.model.trained])

    def to_tensors(self, x: Float[Tensor, " n"]) -> dict[str, Tensor]:
        """Return a vector as one tensor per trained parameter, in the dtype of `point`; inverse of `to_vector`."""
        shapes = [self.model.shapes[name] for name in self.model.trained]
        parts = x.to(self.point).split([self.parameters[name].numel() for name in self.model.trained])
        return {name: part.reshape(s) for name, part, s in zip(self.model.trained, parts, shapes, strict=True)}

    def logits(self, parameters: Parameters) -> Float[Tensor, "n_examples d_vocab_out"]:
        """Return the logits of the equations at these parameters; missing parameters are those of the checkpoint."""
        return self.model.logits({**self.parameters, **parameters}, self.equations)

    def loss(self, parameters: Parameters) -> Float[Tensor, ""]:
        """Return f at these parameters as a tensor that can be differentiated more than once."""
        all_parameters = {**self.parameters, **parameters}
        return losses.mean_loss(self.model, all_parameters, self.equations, self.labels, self.config)

    @torch.no_grad()
    def value(self, x: Float[Tensor, " n"]) -> float:
        """Return f(x)."""
        return float(self.loss(self.to_tensors(x)))

    @torch.no_grad()
    def evaluate_examples(
        self, x: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n_examples"], Bool[Tensor, " n_examples"] | Float[Tensor, " n_examples"]]:
        """Return the loss of each example at x, and whether its answer is correct."""
        parameters = {**self.parameters, **self.to_tensors(x)}
        dtype, function = self.config.loss_dtype, self.config.loss
        return losses.evaluate(self.model, parameters, self.equations, self.labels, dtype, function)

    def value_and_gradient(self, x: Float[Tensor, " n"]) -> tuple[float, Float[Tensor, " n"]]:
        """Return f(x) and ∇f(x); the cost is one forward and one backward pass."""
        with torch.enable_grad():
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in self.to_tensors(x).items()}
            value = self.loss(leaves)
            gradient = torch.autograd.grad(value, list(leaves.values()))
        return value.item(), self.to_vector(dict(zip(leaves, gradient, strict=True)))

    def hessian(self, names: Sequence[str] | None = None) -> tuple[curvature.Product, int]:
        """Return the Hessian at the checkpoint as the product v ↦ ∇²f v, and its number of rows.

        Args:
            names: The parameters of a diagonal block; by default all trained parameters.
        """
        with torch.enable_grad():
            leaves = self._leaves(names)
            return curvature.hvp(self.loss(leaves), list(leaves.values()))

    def in_float64(self) -> "Objective":
        """Return the objective with parameters and logits in float64."""
        return replace(self, parameters={name: tensor.double() for name, tensor in self.parameters.items()})

    def gauss_newton(self, names: Sequence[str] | None = None) -> tuple[curvature.Product, int]:
        """Return the Gauss-Newton matrix at the checkpoint as the product v ↦ Jᵀ(∇²L)J v, and its number of rows.

        J is the Jacobian of the logits of all equations, and L is the mean loss as a function of these logits. The
        matrix has no negative eigenvalue for the softmax; it can have some for stablemax, whose loss is not convex in
        the logits.

        Args:
            names: The parameters of a diagonal block; by default all trained parameters.
        """

        def loss(logits: Tensor) -> Float[Tensor, ""]:
            return losses.cross_entropy(logits, self.labels, self.config.loss_dtype, self.config.loss).mean()

        with torch.enable_grad():
            leaves = self._leaves(names)
            return curvature.gauss_newton(self.logits(leaves), loss, list(leaves.values()))

    def _leaves(self, names: Sequence[str] | None) -> dict[str, Tensor]:
        """Return the named parameters of the checkpoint, ready to be differentiated by."""
        chosen = self.model.trained if names is None else names
        return {name: self.parameters[name].detach().requires_grad_() for name in chosen}


def objectives(
    trajectory: Trajectory, *, part: str = "train", dtype: str = "float64"
) -> Iterator[tuple[Snapshot, Objective]]:
    """Yield each checkpoint with the mean loss over a part of the equations as a function of the weights.

    Args:
        trajectory: The checkpoints.
        part: The equations, "train" or "test".
        dtype: The precision of parameters and logits, "float32" or "float64". The default makes rounding negligible
            even after memorization, when losses are about 1e-7.

    Raises:
        GrokscopeError: `part` or `dtype` has another value, or the part has no equations.
    """
    if dtype not in DTYPES:
        raise GrokscopeError(f"dtype: {dtype!r}. Allowed: {' or '.join(DTYPES)}.")
    if part not in PARTS:
        raise GrokscopeError(f"part: {part!r}. Allowed: {' or '.join(PARTS)}.")
    task, model = trajectory.task, trajectory.model
    examples = getattr(trajectory.split, part)
    if not len(examples):
        raise GrokscopeError(f"part: {part!r}, but the run has no {part} equations. Use the other part.")
    # Built once, so that all checkpoints share the structure of the equations.
    equations, labels = model.equations(task.inputs[examples]), task.labels[examples]
    for snapshot in trajectory:
        parameters = {name: tensor.to(getattr(torch, dtype)) for name, tensor in snapshot.parameters.items()}
        yield snapshot, Objective(model, trajectory.config, equations, labels, parameters)


def loss_scan(trajectory: Trajectory, axes: Mapping[str, np.ndarray], models: Iterable[Parameters]) -> LabelledArrays:
    """Return losses and accuracies of many models over named axes.

    The cost is one forward pass over all equations for each model. An iterator of models keeps only one of them in
    memory.

    Args:
        trajectory: The task, the split, `loss` and `loss_dtype` of the evaluation.
        axes: The coordinates along each axis.
        models: The parameters of each model, in the order of the axes; the last axis changes fastest.

    Returns:
        `train_loss`, `test_loss`, `train_accuracy` and `test_accuracy`. They are NaN for a part without equations.
    """
    task, split, config = trajectory.task, trajectory.split, trajectory.config
    equations = trajectory.model.equations(task.inputs)
    parts = {"train": split.train, "test": split.test}
    rows: list[dict[str, float]] = []
    for parameters in models:
        loss, is_correct = losses.evaluate(
            trajectory.model, parameters, equations, task.labels, config.loss_dtype, config.loss
        )
        rows.append(
            {f"{name}_loss": losses.mean_over(loss, task.labels, part) for name, part in parts.items()}
            | {f"{name}_accuracy": losses.mean_over(is_correct, task.labels, part) for name, part in parts.items()}
        )
    shape = tuple(len(coordinates) for coordinates in axes.values())
    arrays = {name: np.array([row[name] for row in rows]).reshape(shape) for name in SCAN_NAMES}
    return LabelledArrays(axes, arrays, config.loss)
