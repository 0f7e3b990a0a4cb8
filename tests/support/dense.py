"""Dense matrices of small transformers in float64, to judge by what was never formed.

They are torch's own derivatives of HookedTransformer's forward and of a second implementation of the loss, and so
share neither the model's code nor the loss's nor the products' with the measures.
"""

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from grokscope import Trajectory

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}


def memorized(start: Trajectory, n_steps: int, ahead: float = 1.0) -> dict[str, Tensor]:
    """Return float32 parameters after plain Adam on the train set, the logits then scaled by `ahead`."""
    task, train = start.task, start.split.train
    parameters = {name: tensor.clone() for name, tensor in start.first.parameters.items()}
    moved = [parameters[name].requires_grad_() for name in start.model.trained]
    optimizer = torch.optim.Adam(moved, lr=0.02)
    for _ in range(n_steps):
        optimizer.zero_grad()
        F.cross_entropy(start.model.logits(parameters, task.inputs[train]), task.labels[train]).backward()
        optimizer.step()
    last = {name: tensor.detach() for name, tensor in parameters.items()}
    return last | {"unembed.W_U": last["unembed.W_U"] * ahead, "unembed.b_U": last["unembed.b_U"] * ahead}


def stablemax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of Prieto et al. 2025, equation 5, as it is written there."""
    s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits.clamp_max(0)))
    return -(s / s.sum(-1, keepdim=True)).gather(1, labels[:, None]).log().mean()


LOSSES = {"softmax": F.cross_entropy, "stablemax": stablemax}


def dense_hessian(trajectory: Trajectory, i: int, part: str = "train") -> tuple[float, Tensor]:
    """Return the loss of a part and its Hessian over the trained parameters at a checkpoint, all in float64."""
    logits, flat, labels = hooked_logits(trajectory, i, part)

    def loss(x: Tensor) -> Tensor:
        return LOSSES[trajectory.config.loss](logits(x), labels)

    with warnings.catch_warnings():
        # At its first vmap torch itself calls torch.jit.script, which it has deprecated.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        hessian = torch.autograd.functional.hessian(loss, flat, vectorize=True)
    assert isinstance(hessian, Tensor)
    return loss(flat).detach().item(), hessian


def dense_gauss_newton(trajectory: Trajectory, i: int) -> Tensor:
    """Return Jᵀ(∇²L)J of the train loss, from the whole Jacobian and the whole Hessian in the logits."""
    logits, flat, labels = hooked_logits(trajectory, i, "train")
    J = torch.autograd.functional.jacobian(logits, flat)
    at = logits(flat).detach()
    inner = torch.autograd.functional.hessian(lambda z: LOSSES[trajectory.config.loss](z, labels), at)
    assert isinstance(J, Tensor) and isinstance(inner, Tensor)
    J = J.flatten(0, 1)
    return J.T @ inner.reshape(len(J), len(J)) @ J


def hooked_logits(trajectory: Trajectory, i: int, part: str) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Return HookedTransformer's logits as a function of the trained parameters, their values, and labels."""
    snapshot, task, examples = trajectory[i], trajectory.task, getattr(trajectory.split, part)
    parameters = {name: tensor.double() for name, tensor in snapshot.parameters.items()}
    hooked = trajectory.model.hooked_transformer(parameters)
    names = trajectory.model.trained
    shapes = [trajectory.model.shapes[name] for name in names]
    sizes = [math.prod(shape) for shape in shapes]

    def logits(flat: Tensor) -> Tensor:
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        moved = dict(zip(names, parts, strict=True))
        return torch.func.functional_call(hooked, moved, (task.inputs[examples],))[:, -1]

    return logits, torch.cat([parameters[name].flatten() for name in names]), task.labels[examples]
